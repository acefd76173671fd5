//! What kind of frame it is, and who looks at it.

use std::time::Instant;

use fieldlock_profinet::ar::End;
use fieldlock_profinet::arp::Arp;
use fieldlock_profinet::{Class, Frame, Never, classify};

use super::bridge::{Bridge, Ingress};
use super::drops::DropReason;

/// A frame, and where it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) now: Instant,
    /// Whose side it came from.
    pub(super) end: End,
    pub(super) ingress: Ingress,
    pub(super) frame: &'a Frame<'a>,
    /// The whole of it, to be sent on.
    pub(super) bytes: &'a [u8],
}

impl Bridge {
    /// Judges a frame that came from `end`, and sends it on if it may.
    pub(super) fn dispatch(
        &mut self,
        now: Instant,
        end: End,
        ingress: Ingress,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let class = classify(frame);
        // What belongs to an AR is asked for the VLAN that the AR names.
        let of_ar = matches!(
            class,
            Ok(Class::Cyclic { .. } | Class::AlarmHigh(_) | Class::AlarmLow(_))
        );
        if !of_ar && frame.tag.is_some_and(|tag| tag.vlan() != 0) {
            return Err(DropReason::Vlan);
        }
        // On the own wire nobody else may speak with an address of the other side.
        if ingress == Ingress::Wire {
            self.check_source(end, frame)?;
        }
        let came = Received {
            now,
            end,
            ingress,
            frame,
            bytes,
        };
        match class.map_err(|error| self.malformed(&came, &error))? {
            Class::Cyclic { id, pdu } => match ingress {
                Ingress::Wire => self.cyclic_from_wire(&came, id, pdu),
                // Cyclic data crosses in datagrams only.
                Ingress::Tunnel { .. } => Err(DropReason::Malformed),
            },
            Class::AlarmHigh(alarm) => self.alarm(&came, true, &alarm),
            Class::AlarmLow(alarm) => self.alarm(&came, false, &alarm),
            Class::Dcp(pdu) => self.dcp(&came, &pdu),
            Class::Arp(arp) => self.arp(&came, &arp),
            Class::Udp(datagram) => self.udp(&came, &datagram),
            Class::Never(never) => Err(drop_of(never)),
        }
    }

    fn check_source(&mut self, end: End, frame: &Frame<'_>) -> Result<(), DropReason> {
        match end {
            End::Controller => match self.parties.station_of(frame.src) {
                Some(station) => {
                    let reason = "its address speaks on the controllers' wire";
                    Err(self.conflict(station, frame.src, reason))
                }
                None => Ok(()),
            },
            End::Device => match self.parties.controller_of(frame.src) {
                Some(_) => Err(DropReason::ForeignSource),
                None => Ok(()),
            },
        }
    }

    /// ARP passes between paired stations of which both addresses are known, and asks for nobody
    /// else.
    fn arp(&mut self, came: &Received<'_>, arp: &Arp) -> Result<(), DropReason> {
        let Received {
            now,
            end,
            ingress,
            frame,
            bytes,
        } = *came;
        if arp.sender_mac != frame.src {
            return Err(DropReason::Malformed);
        }
        let (station, controller) = match end {
            End::Controller => {
                let station = self.parties.stations.iter().position(|station| {
                    station.ip == Some(arp.target)
                        && (!frame.dst.is_station() || station.mac == Some(frame.dst))
                });
                let station = station.ok_or(DropReason::NotPaired)?;
                self.note_controller(now, frame.src, ingress)?;
                (station, frame.src)
            }
            End::Device => {
                let station = self
                    .parties
                    .station_of(frame.src)
                    .ok_or(DropReason::NotPaired)?;
                let controller = self.parties.controllers.iter().find(|controller| {
                    controller.ip == Some(arp.target)
                        && (!frame.dst.is_station() || controller.mac == frame.dst)
                });
                let controller = controller.ok_or(DropReason::NotPaired)?.mac;
                self.note_station(now, station, frame.src)?;
                (station, controller)
            }
        };
        if let Ingress::Tunnel { station: of, .. } = ingress
            && of != station
        {
            return Err(DropReason::NotPaired);
        }
        if !self.may_talk(station, controller) {
            return Err(DropReason::Denied);
        }
        self.note_ip(came, station, controller, arp.sender)?;
        self.forward(ingress, (station, controller), bytes)
    }
}

/// Why a frame stays that is never carried.
fn drop_of(never: Never) -> DropReason {
    match never {
        Never::Ptcp | Never::Lldp | Never::Mrp => DropReason::LinkLocal,
        Never::Irt => DropReason::Irt,
        Never::Rsi
        | Never::Fragment
        | Never::MulticastCyclic(_)
        | Never::ReservedFrameId(_)
        | Never::RtOverUdp => DropReason::NotCarried,
        Never::IpFragment => DropReason::IpFragment,
        Never::OtherIp(_) | Never::OtherEtherType(_) => DropReason::OtherProtocol,
    }
}
