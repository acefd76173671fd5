//! DCP: who is where, and what would change that.

use std::time::{Duration, Instant};

use fieldlock_policy::Call;
use fieldlock_profinet::ar::End;
use fieldlock_profinet::dcp::{Identity, Kind, Pdu, ServiceId, Text, Value};
use fieldlock_profinet::{Mac, Service};

use super::bridge::{Bridge, Ingress};
use super::carry::Came;
use super::drops::Drop;
use super::event::Event;
use super::outlet::Outlet;

impl Bridge {
    pub(super) fn dcp(
        &mut self,
        came: &Came<'_>,
        pdu: &Pdu<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        pdu.check().map_err(|_| Drop::Malformed)?;
        match (came.end, pdu.service, pdu.kind) {
            (End::Controller, ServiceId::Identify, Kind::Request) => {
                self.identify(came, pdu, outlet)
            }
            (End::Device, ServiceId::Identify, Kind::Success) => self.identified(came, pdu, outlet),
            (End::Controller, ServiceId::Get | ServiceId::Set, Kind::Request) => {
                self.get_or_set(came, pdu, outlet)
            }
            (End::Device, ServiceId::Get | ServiceId::Set, _) => self.got_or_set(came, pdu, outlet),
            (End::Device, ServiceId::Hello, Kind::Request) => self.hello(came, pdu, outlet),
            _ => Err(Drop::NotPaired),
        }
    }

    /// A question to all stations: it goes to the one that it names, or to each that the policy
    /// lets the asker know.
    fn identify(
        &mut self,
        came: &Came<'_>,
        pdu: &Pdu<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let Came {
            now,
            ingress,
            frame,
            ..
        } = *came;
        if frame.dst != Mac::DCP_IDENTIFY {
            return Err(Drop::Malformed);
        }
        let named = match name_of(pdu) {
            Some(Text(name)) => Some(self.parties.station_named(name).ok_or(Drop::NotPaired)?),
            None => None,
        };
        let asked: Vec<usize> = match (named, ingress) {
            (Some(named), Ingress::Tunnel { station, .. }) if named != station => Vec::new(),
            (_, Ingress::Tunnel { station, .. }) => vec![station],
            (Some(named), Ingress::Wire) => vec![named],
            (None, Ingress::Wire) => (0..self.parties.stations.len()).collect(),
        };
        if asked.is_empty() {
            return Err(Drop::NotPaired);
        }
        self.note_controller(now, frame.src, ingress, outlet)?;
        let window = Duration::from_millis(10) * u32::from(pdu.delay_factor);
        let mut result = Ok(());
        for station in asked {
            let one = self.identify_one(came, pdu.xid, station, window, outlet);
            // A question to all is refused by those that it may not reach, and by no more.
            if named.is_some() || ingress != Ingress::Wire {
                result = one;
            }
        }
        result
    }

    fn identify_one(
        &mut self,
        came: &Came<'_>,
        xid: u32,
        station: usize,
        window: Duration,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let Came {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        let call = Call::Service(Service::Identify);
        self.judge(frame.src, station, &call, outlet)?;
        let noted = self.asked.note(now, frame.src, xid, station, true, window);
        let repeated = noted.ok_or(Drop::Overload)?;
        if repeated && ingress != Ingress::Wire {
            return Ok(());
        }
        self.forward(ingress, (station, frame.src), bytes, outlet)
    }

    /// An answer: with it the station's address is known.
    fn identified(
        &mut self,
        came: &Came<'_>,
        pdu: &Pdu<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let Came {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        let identity = Identity::read(pdu).map_err(|_| Drop::Malformed)?;
        let Text(name) = identity.name.ok_or(Drop::NotPaired)?;
        let station = self.parties.station_named(name).ok_or(Drop::NotPaired)?;
        self.check_channel(ingress, station)?;
        if !self.asked.is_open(now, frame.dst, pdu.xid, station, true) {
            return Err(Drop::Unasked);
        }
        // The rules may be others than when it was asked; nothing is learnt against them.
        let call = Call::Service(Service::Identify);
        self.judge(frame.dst, station, &call, outlet)?;
        self.note_station(now, station, frame.src, outlet)?;
        self.learn(now, station, pdu);
        self.forward(ingress, (station, frame.dst), bytes, outlet)
    }

    fn get_or_set(
        &mut self,
        came: &Came<'_>,
        pdu: &Pdu<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let Came {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        let (station, pair) = self.pair(came, outlet)?;
        let mut changes = Vec::new();
        for service in pdu.services().map_err(|_| Drop::Malformed)? {
            let rule = self.judge(pair.controller, station, &Call::Service(service), outlet)?;
            if service.is_set() {
                changes.push((service, rule));
            }
        }
        if !changes.is_empty() && !outlet.may_change() {
            return Err(Drop::NoAudit);
        }
        let noted = self
            .asked
            .note(now, frame.src, pdu.xid, station, false, Duration::ZERO);
        noted.ok_or(Drop::Overload)?;
        for (service, rule) in changes {
            outlet.event(Event::Changes {
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
        self.forward(ingress, (station, pair.controller), bytes, outlet)
    }

    fn got_or_set(
        &mut self,
        came: &Came<'_>,
        pdu: &Pdu<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let Came {
            now,
            ingress,
            bytes,
            ..
        } = *came;
        let (station, pair) = self.pair(came, outlet)?;
        if !self
            .asked
            .is_open(now, pair.controller, pdu.xid, station, false)
        {
            return Err(Drop::Unasked);
        }
        self.learn(now, station, pdu);
        self.forward(ingress, (station, pair.controller), bytes, outlet)
    }

    /// A device that has just started says so to all controllers.
    fn hello(
        &mut self,
        came: &Came<'_>,
        pdu: &Pdu<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let Came {
            now,
            ingress,
            frame,
            bytes,
            ..
        } = *came;
        if frame.dst != Mac::DCP_HELLO {
            return Err(Drop::Malformed);
        }
        let identity = Identity::read(pdu).map_err(|_| Drop::Malformed)?;
        let Text(name) = identity.name.ok_or(Drop::NotPaired)?;
        let station = self.parties.station_named(name).ok_or(Drop::NotPaired)?;
        self.check_channel(ingress, station)?;
        self.note_station(now, station, frame.src, outlet)?;
        self.learn(now, station, pdu);
        let mut hearers: Vec<Mac> = self.parties.controllers.iter().map(|c| c.mac).collect();
        hearers.retain(|mac| self.allows(*mac, station, &Call::Service(Service::Hello)));
        if hearers.is_empty() {
            return Err(Drop::Denied);
        }
        match ingress {
            // On the controllers' wire it is one frame to all.
            Ingress::Tunnel { .. } => outlet.wire(bytes),
            Ingress::Wire => {
                let ways = hearers.iter().filter_map(|mac| self.way(station, *mac));
                let mut ways: Vec<_> = ways.collect();
                ways.sort();
                ways.dedup();
                for (link, channel) in ways {
                    outlet.station(link, channel, bytes);
                }
            }
        }
        Ok(())
    }

    /// What came on a station's channel has to be that station's.
    pub(super) fn check_channel(&self, ingress: Ingress, station: usize) -> Result<(), Drop> {
        match ingress {
            Ingress::Tunnel { station: of, .. } if of != station => Err(Drop::NotPaired),
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
