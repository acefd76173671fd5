//! DCP: who is where, and what would change that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_policy::Call;
use fieldlock_profinet::ar::End;
use fieldlock_profinet::dcp::{DcpError, Identity, Kind, Pdu, ServiceId, Text, Value};
use fieldlock_profinet::{Frame, Mac, Service};

use super::bridge::{Bridge, Ingress};
use super::dispatch::Received;
use super::drops::DropReason;
use super::event::Event;

impl Bridge {
    pub(super) fn dcp(&mut self, came: &Received<'_>, pdu: &Pdu<'_>) -> Result<(), DropReason> {
        if let Err(error) = pdu.check() {
            return Err(self.unsound(came, pdu, &error));
        }
        match (came.end, pdu.service, pdu.kind) {
            (End::Controller, ServiceId::Identify, Kind::Request) => self.identify(came, pdu),
            (End::Device, ServiceId::Identify, Kind::Success) => self.identified(came, pdu),
            (End::Controller, ServiceId::Get | ServiceId::Set, Kind::Request) => {
                self.get_or_set(came, pdu)
            }
            (End::Device, ServiceId::Get | ServiceId::Set, _) => self.got_or_set(came, pdu),
            (End::Device, ServiceId::Hello, Kind::Request) => self.hello(came, pdu),
            _ => Err(DropReason::NotPaired),
        }
    }

    /// A PDU with a block that is against its format. Of a Set it is on record what it tried.
    fn unsound(&mut self, came: &Received<'_>, pdu: &Pdu<'_>, error: &DcpError) -> DropReason {
        let Frame { src, dst, .. } = *came.frame;
        let sets = (came.end, pdu.kind) == (End::Controller, Kind::Request);
        let known = self.parties.controller_of(src).is_some();
        let station = self.parties.station_of(dst).filter(|_| sets && known);
        let tried = pdu
            .attempts()
            .filter_map(|service| Some((service, station?)));
        let mut told = false;
        for (service, station) in tried {
            told = true;
            self.output.event(Event::Refused {
                who: self.who(src),
                station: self.parties.stations[station].name().clone(),
                service,
                record: None,
                rule: None,
                reason: error.to_string().into(),
            });
        }
        match told {
            true => DropReason::Malformed,
            false => self.malformed(came, error),
        }
    }

    /// A question to all stations, or to one by its address. That to all goes to the one that it names, or to each that the policy
    /// lets the asker know.
    fn identify(&mut self, came: &Received<'_>, pdu: &Pdu<'_>) -> Result<(), DropReason> {
        let Received {
            now,
            ingress,
            frame,
            ..
        } = *came;
        let to_all = frame.dst == Mac::DCP_IDENTIFY;
        let named = match name_of(pdu) {
            _ if !to_all => Some(self.parties.station_of(frame.dst)),
            // Those that have lost their name are asked for.
            None | Some(Text([])) => None,
            Some(Text(name)) => Some(self.parties.station_named(name)),
        };
        let named = named
            .map(|named| named.ok_or(DropReason::NotPaired))
            .transpose()?;
        let asked: Vec<usize> = match (named, ingress) {
            (Some(named), Ingress::Tunnel { station, .. }) if named != station => Vec::new(),
            (_, Ingress::Tunnel { station, .. }) => vec![station],
            (Some(named), Ingress::Wire) => vec![named],
            (None, Ingress::Wire) => (0..self.parties.stations.len()).collect(),
        };
        if asked.is_empty() {
            return Err(DropReason::NotPaired);
        }
        self.note_controller(now, frame.src, ingress)?;
        let window = Duration::from_millis(10) * u32::from(pdu.delay_factor);
        let mut result = Ok(());
        for station in asked {
            let one = self.identify_one(came, pdu.xid, station, window);
            // A question to all is refused by those that it may not reach, and by no more.
            if named.is_some() || ingress != Ingress::Wire {
                result = one;
            }
        }
        result
    }

    fn identify_one(
        &mut self,
        came: &Received<'_>,
        xid: u32,
        station: usize,
        window: Duration,
    ) -> Result<(), DropReason> {
        let Received {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        let call = Call::Service(Service::Identify);
        self.judge(frame.src, station, &call)?;
        let noted = self.asked.note(now, frame.src, xid, station, true, window);
        let repeated = noted.ok_or(DropReason::Overload)?;
        // On the devices' wire one question to all does for all.
        if repeated && ingress != Ingress::Wire && frame.dst == Mac::DCP_IDENTIFY {
            return Ok(());
        }
        self.forward(ingress, (station, frame.src), bytes)
    }

    /// An answer: with it the station's address is known.
    fn identified(&mut self, came: &Received<'_>, pdu: &Pdu<'_>) -> Result<(), DropReason> {
        let Received {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        let (station, said) = self.speaker(came, pdu)?;
        self.check_channel(ingress, station)?;
        if !self.asked.is_open(now, frame.dst, pdu.xid, station, true) {
            return Err(DropReason::Unasked);
        }
        // The rules may be others than when it was asked; nothing is learnt against them.
        let call = Call::Service(Service::Identify);
        self.judge(frame.dst, station, &call)?;
        self.note_station(now, station, frame.src)?;
        self.note_name(station, said);
        self.learn(now, station, pdu);
        self.forward(ingress, (station, frame.dst), bytes)
    }

    /// The station that tells of itself: by its name, or by its configured address where it has lost
    /// that or has another one. What it calls itself then, too.
    fn speaker(
        &mut self,
        came: &Received<'_>,
        pdu: &Pdu<'_>,
    ) -> Result<(usize, Option<Arc<str>>), DropReason> {
        let identity = Identity::read(pdu);
        let identity = identity.map_err(|error| self.malformed(came, &error))?;
        let Text(name) = identity.name.unwrap_or(Text(&[]));
        if let Some(station) = self.parties.station_named(name) {
            return Ok((station, None));
        }
        let mac = Some(came.frame.src);
        let mut stations = self.parties.stations.iter();
        let station = stations.position(|station| station.settings.mac == mac);
        // Names have at most 240 octets.
        let said = Text(name.get(..240).unwrap_or(name)).to_string();
        Ok((station.ok_or(DropReason::NotPaired)?, Some(said.into())))
    }

    /// Takes note of a station that has lost its name, or has it again.
    fn note_name(&mut self, station: usize, said: Option<Arc<str>>) {
        let known = &mut self.parties.stations[station];
        if known.nameless == said {
            return;
        }
        known.nameless.clone_from(&said);
        let (station, mac) = (known.name().clone(), known.mac);
        match (said, mac) {
            (Some(said), Some(mac)) => self.output.event(Event::Nameless { station, mac, said }),
            _ => self.output.event(Event::Named { station }),
        }
    }

    fn get_or_set(&mut self, came: &Received<'_>, pdu: &Pdu<'_>) -> Result<(), DropReason> {
        let Received {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        let (station, pair) = self.pair(came)?;
        let mut changes = Vec::new();
        let services = pdu.services();
        for service in services.map_err(|error| self.malformed(came, &error))? {
            let rule = self.judge(pair.controller, station, &Call::Service(service))?;
            if service.is_set() {
                changes.push((service, rule));
            }
        }
        if !changes.is_empty() && !self.writable {
            return Err(DropReason::NoAudit);
        }
        let noted = self
            .asked
            .note(now, frame.src, pdu.xid, station, false, Duration::ZERO);
        noted.ok_or(DropReason::Overload)?;
        for (service, rule) in changes {
            self.output.event(Event::Changes {
                who: self.who(pair.controller),
                station: self.parties.stations[station].name().clone(),
                service,
                record: None,
                value: value_of(pdu, service),
                rule,
            });
        }
        // A station that takes an address is asked for it by ARP before it answers.
        self.learn(now, station, pdu);
        self.forward(ingress, (station, pair.controller), bytes)
    }

    fn got_or_set(&mut self, came: &Received<'_>, pdu: &Pdu<'_>) -> Result<(), DropReason> {
        let Received {
            now,
            ingress,
            bytes,
            ..
        } = *came;
        let (station, pair) = self.pair(came)?;
        if !self
            .asked
            .is_open(now, pair.controller, pdu.xid, station, false)
        {
            return Err(DropReason::Unasked);
        }
        self.learn(now, station, pdu);
        self.forward(ingress, (station, pair.controller), bytes)
    }

    /// A device that has just started says so to all controllers.
    fn hello(&mut self, came: &Received<'_>, pdu: &Pdu<'_>) -> Result<(), DropReason> {
        let Received {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        if frame.dst != Mac::DCP_HELLO {
            return Err(self.malformed(came, &"DCP Hello to a single address"));
        }
        let (station, said) = self.speaker(came, pdu)?;
        self.check_channel(ingress, station)?;
        self.note_station(now, station, frame.src)?;
        self.note_name(station, said);
        self.learn(now, station, pdu);
        let mut hearers: Vec<Mac> = self.parties.controllers.iter().map(|c| c.mac).collect();
        hearers.retain(|mac| self.allows(*mac, station, &Call::Service(Service::Hello)));
        if hearers.is_empty() {
            return Err(DropReason::Denied);
        }
        match ingress {
            // On the controllers' wire it is one frame to all.
            Ingress::Tunnel { .. } => self.output.wire(bytes),
            Ingress::Wire => {
                let ways = hearers.iter().filter_map(|mac| self.way(station, *mac));
                let mut ways: Vec<_> = ways.collect();
                ways.sort();
                ways.dedup();
                for way in ways {
                    self.output.station_copy(way, bytes);
                }
            }
        }
        Ok(())
    }

    /// What came on a station's channel has to be that station's.
    pub(super) fn check_channel(&self, ingress: Ingress, station: usize) -> Result<(), DropReason> {
        match ingress {
            Ingress::Tunnel { station: of, .. } if of != station => Err(DropReason::NotPaired),
            _ => Ok(()),
        }
    }

    /// Takes note of what a station says of itself, or is told.
    fn learn(&mut self, now: Instant, station: usize, pdu: &Pdu<'_>) {
        for value in values(pdu) {
            let mac = self.parties.stations[station].mac;
            let taken = |ip| mac.is_none_or(|mac| self.is_of_another(now, ip, mac));
            let free = match value {
                // The answer passes all the same: who asked should know of the conflict.
                Value::Ip(ip) | Value::FullIp(ip, _) => !taken(ip.address),
                _ => true,
            };
            let station = &mut self.parties.stations[station];
            match value {
                Value::Ip(ip) | Value::FullIp(ip, _) if free => {
                    station.ip = (!ip.address.is_unspecified()).then_some(ip.address);
                }
                Value::DeviceId { vendor, device } => {
                    station.facts.vendor_id = Some(vendor);
                    station.facts.device_id = Some(device);
                }
                _ => {}
            }
        }
    }
}

/// What the blocks of a PDU say, which has been [checked](Pdu::check).
fn values<'a>(pdu: &Pdu<'a>) -> impl Iterator<Item = Value<'a>> + use<'a> {
    let blocks = pdu.blocks().flatten();
    blocks.filter_map(|block| block.value().ok())
}

/// The name-of-station that a PDU carries.
fn name_of<'a>(pdu: &Pdu<'a>) -> Option<Text<'a>> {
    values(pdu).find_map(|value| match value {
        Value::Name(name) => Some(name),
        _ => None,
    })
}

/// What a Set sets, in words.
fn value_of(pdu: &Pdu<'_>, service: Service) -> Option<String> {
    values(pdu).find_map(|value| match (service, value) {
        (Service::SetIp, Value::Ip(ip) | Value::FullIp(ip, _)) => Some(format!(
            "{} mask {} gateway {}",
            ip.address, ip.mask, ip.gateway
        )),
        (Service::SetName, Value::Name(name)) => Some(name.to_string()),
        _ => None,
    })
}
