//! `fieldlock policy explain` of a station of PROFINET.

use fieldlock_policy::{
    AskedStation, Call, CallError, Controller, Now, Policy, Side, StationExplanation,
    StationOrigin, explain_station, explain_station_named, parse_ar, parse_index, parse_slot,
};
use fieldlock_profinet::{ArType, Mac, Service, StationName};

use super::Error;

#[derive(Debug, clap::Args)]
pub(super) struct StationArgs {
    /// A station of PROFINET by its name-of-station, in place of a device.
    #[arg(
        long,
        value_name = "NAME",
        requires = "service",
        conflicts_with_all = ["device", "pdu", "function", "address", "client", "identity", "role"]
    )]
    station: Option<StationName>,
    /// The PROFINET service: identify, connect, read, write, set-name, ...
    #[arg(long, requires = "station", value_parser = service)]
    service: Option<Service>,
    /// As what a controller connects: io-controller, supervisor, redundant.
    #[arg(long, value_name = "TYPE", requires = "station", value_parser = ar)]
    ar: Option<ArType>,
    /// Index of the record that is read or written: 0x8001.
    #[arg(long, value_name = "INDEX", requires = "station", value_parser = index)]
    record: Option<u16>,
    /// Slot and subslot of that record: 1.1, 1.0x8000; 0.1 if left out.
    #[arg(long, requires = "record", value_parser = slot)]
    slot: Option<(u16, u16)>,
    /// The Ethernet address of the controller.
    #[arg(long, requires = "station", conflicts_with = "client_name")]
    mac: Option<Mac>,
    /// What that controller calls itself in its Connect.
    #[arg(long, value_name = "NAME", requires = "mac")]
    called: Option<StationName>,
}

impl StationArgs {
    pub(super) fn station(&self) -> Option<&StationName> {
        self.station.as_ref()
    }

    pub(super) fn call(&self) -> Result<Call, CallError> {
        // It comes with every station.
        let service = self.service.unwrap_or(Service::Identify);
        Call::new(service, self.ar, self.record, self.slot)
    }

    pub(super) fn explain(
        &self,
        policy: &Policy,
        clients: &[String],
        via: Option<&str>,
        (station, call, now): (&StationName, &Call, Now),
    ) -> Result<StationExplanation, Error> {
        let side = via.map_or(Side::Headend, |_| Side::Edge);
        let asked = AskedStation { station, call, now };
        let Some(mac) = self.mac else {
            return Ok(explain_station_named(policy, clients, side, via, asked)?);
        };
        let controller = Controller {
            mac,
            station: self.called.as_ref(),
        };
        let origin = StationOrigin {
            side,
            via,
            controller,
        };
        Ok(explain_station(policy, &origin, asked))
    }
}

fn service(text: &str) -> Result<Service, ArgumentError> {
    Service::from_name(text).ok_or(ArgumentError::Service)
}

fn ar(text: &str) -> Result<ArType, ArgumentError> {
    parse_ar(text).ok_or(ArgumentError::Ar)
}

fn index(text: &str) -> Result<u16, ArgumentError> {
    parse_index(text).ok_or(ArgumentError::Index)
}

fn slot(text: &str) -> Result<(u16, u16), ArgumentError> {
    let slot = parse_slot(text).and_then(|slot| slot.single());
    slot.ok_or(ArgumentError::Slot)
}

#[derive(Debug, thiserror::Error)]
enum ArgumentError {
    #[error("no such service; there are {}", Service::ALL.map(Service::name).join(", "))]
    Service,
    #[error("no such kind of AR; write io-controller, supervisor, rt-class-3 or redundant")]
    Ar,
    #[error("write a number such as 0x8001, at most 0xffff")]
    Index,
    #[error("write slot and subslot, such as 1.1 or 1.0x8000")]
    Slot,
}
