//! Reading `[[test]]`.

use std::net::IpAddr;
use std::ops::Range;

use fieldlock_modbus::FunctionCode;
use fieldlock_profinet::{ArType, Mac, Service, StationName};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{EMPTY_MEANS_NONE, Keys, function_code, integer};
use super::{Given, MAX_NAME, values_of};
use crate::error::{ModbusProblem, Problem, Problems, ProfinetProblem};
use crate::model::address::{Span, parse_address};
use crate::model::number::{Number, WordOrder};
use crate::model::spelling::nearest;
use crate::station::{parse_index, parse_slot};

/// A `[[test]]` as written.
#[derive(Debug)]
pub(crate) struct SourceTest {
    pub(crate) span: Range<usize>,
    pub(crate) name: Given<String>,
    pub(crate) given: Given<SourceGiven>,
    pub(crate) expect: Given<Expect>,
    /// The rule that must decide.
    pub(crate) rule: Given<String>,
}

/// The request that a test is about.
#[derive(Debug)]
pub(crate) struct SourceGiven {
    /// Clients by their names, or else by what is seen of them.
    pub(crate) client: Given<Vec<String>>,
    pub(crate) ip: Given<IpAddr>,
    pub(crate) identity: Given<String>,
    pub(crate) role: Given<String>,
    /// The headend: then the edge decides.
    pub(crate) via: Given<String>,
    pub(crate) mac: Given<Mac>,
    pub(crate) device: Given<String>,
    pub(crate) unit: Given<u8>,
    pub(crate) function: Given<FunctionCode>,
    pub(crate) address: Given<Span>,
    pub(crate) quantity: Given<u16>,
    pub(crate) value: Given<Number>,
    pub(crate) word_order: Given<WordOrder>,
    /// In place of a device.
    pub(crate) station: Given<StationName>,
    pub(crate) service: Given<Service>,
    pub(crate) ar: Given<ArType>,
    pub(crate) record: Given<u16>,
    pub(crate) slot: Given<(u16, u16)>,
    /// Seconds since 1970-01-01 UTC.
    pub(crate) at: Given<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Allow,
    Deny,
}

type Value<'t> = Spanned<DeValue<'t>>;

pub(super) fn read_test(
    span: Range<usize>,
    table: &DeTable<'_>,
    problems: &mut Problems,
) -> SourceTest {
    const KEYS: &[&str] = &["name", "given", "expect", "rule", "comment"];
    let mut keys = Keys::new("test", table, KEYS, problems);
    keys.value("comment", Keys::text);
    let test = SourceTest {
        name: keys.value("name", Keys::label),
        given: keys.value("given", Keys::given),
        expect: keys.value("expect", Keys::expect),
        rule: keys.value("rule", Keys::label),
        span: span.clone(),
    };
    let hints = [
        ("name", test.name.is_absent(), "say what must hold"),
        (
            "given",
            test.given.is_absent(),
            "give the request, such as { client = \"hmi-1\", device = \"press-07\", function = 3, address = \"holding 0\" }",
        ),
        (
            "expect",
            test.expect.is_absent(),
            "write \"allow\" or \"deny\"",
        ),
    ];
    for (key, is_absent, hint) in hints {
        if is_absent {
            keys.report(span.clone(), key, Problem::Missing { hint });
        }
    }
    test
}

impl<'t> Keys<'t> {
    fn given(&mut self, key: &str, value: &'t Value<'t>) -> Option<SourceGiven> {
        const KEYS: &[&str] = &[
            "client",
            "ip",
            "identity",
            "role",
            "via",
            "device",
            "unit",
            "function",
            "address",
            "quantity",
            "type",
            "word_order",
            "value",
            "at",
            "mac",
            "station",
            "service",
            "ar",
            "record",
            "slot",
        ];
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(key, value, "a table such as { client = \"hmi-1\", ... }");
        };
        let mut keys = Keys::new("test.given", table, KEYS, self.problems);
        let number = keys.value("type", Keys::number_type);
        let word_order = keys.value("word_order", Keys::word_order);
        let values = values_of(&number);
        let given = SourceGiven {
            client: keys.value("client", Keys::client_names),
            ip: keys.value("ip", Keys::ip),
            identity: keys.value("identity", Keys::text),
            role: keys.value("role", Keys::text),
            via: keys.value("via", Keys::name),
            device: keys.value("device", Keys::name),
            unit: keys.value("unit", Keys::unit),
            function: keys.value("function", Keys::function),
            address: keys.value("address", Keys::address),
            quantity: keys.value("quantity", Keys::register),
            value: keys.value("value", |keys, key, value| keys.number(key, value, values?)),
            word_order,
            at: keys.value("at", Keys::moment),
            mac: keys.value("mac", Keys::mac),
            station: keys.value("station", Keys::station),
            service: keys.value("service", Keys::one_service),
            ar: keys.value("ar", Keys::ar_type),
            record: keys.value("record", Keys::record),
            slot: keys.value("slot", Keys::slot),
        };
        keys.check_given(value, &given);
        Some(given)
    }

    /// Keys that must be there, and keys that must not.
    fn check_given(&mut self, value: &'t Value<'t>, given: &SourceGiven) {
        let seen = [
            given.ip.is_absent(),
            given.identity.is_absent(),
            given.role.is_absent(),
            given.mac.is_absent(),
        ];
        if !given.client.is_absent() && seen.contains(&false) {
            self.report(value.span(), "client", Problem::TestClientTwice);
        }
        let of_stations = [
            ("mac", given.mac.span()),
            ("service", given.service.span()),
            ("ar", given.ar.span()),
            ("record", given.record.span()),
            ("slot", given.slot.span()),
        ];
        let of_devices = [
            ("ip", given.ip.span()),
            ("identity", given.identity.span()),
            ("role", given.role.span()),
            ("unit", given.unit.span()),
            ("function", given.function.span()),
            ("address", given.address.span()),
            ("quantity", given.quantity.span()),
            ("word_order", given.word_order.span()),
            ("value", given.value.span()),
        ];
        let (needed, others, problem) = match (given.device.is_absent(), given.station.is_absent())
        {
            (false, false) => {
                return self.report(value.span(), "station", Problem::DeviceAndStation);
            }
            (_, true) => (
                [
                    (
                        "device",
                        given.device.is_absent(),
                        "name the device, or for PROFINET the station",
                    ),
                    (
                        "function",
                        given.function.is_absent(),
                        "name the function, or give its number",
                    ),
                ],
                of_stations.to_vec(),
                Problem::KeyOfStations,
            ),
            (true, false) => (
                [
                    ("station", false, ""),
                    ("service", given.service.is_absent(), "name the service"),
                ],
                of_devices.to_vec(),
                Problem::KeyOfDevices,
            ),
        };
        for (key, is_absent, hint) in needed {
            if is_absent {
                self.report(value.span(), key, Problem::Missing { hint });
            }
        }
        for (key, span) in others {
            if let Some(span) = span {
                self.report(span, key, problem.clone());
            }
        }
    }

    fn expect(&mut self, key: &str, value: &'t Value<'t>) -> Option<Expect> {
        match value.get_ref().as_str() {
            Some("allow") => Some(Expect::Allow),
            Some("deny") => Some(Expect::Deny),
            _ => self.wrong(key, value, "\"allow\" or \"deny\""),
        }
    }

    fn client_names(&mut self, key: &str, value: &'t Value<'t>) -> Option<Vec<String>> {
        self.list(key, value, EMPTY_MEANS_NONE, |keys, item| {
            Some(keys.string(key, item)?.to_owned())
        })
    }

    fn ip(&mut self, key: &str, value: &'t Value<'t>) -> Option<IpAddr> {
        match self.string(key, value)?.parse() {
            Ok(address) => Some(address),
            Err(_) => self.wrong(key, value, "an IP address such as \"10.1.1.20\""),
        }
    }

    fn unit(&mut self, key: &str, value: &'t Value<'t>) -> Option<u8> {
        match integer(value.get_ref()).map(u8::try_from) {
            Some(Ok(unit)) => Some(unit),
            _ => self.wrong(key, value, "a number from 0 to 255"),
        }
    }

    fn function(&mut self, key: &str, value: &'t Value<'t>) -> Option<FunctionCode> {
        function_code(value.get_ref())
            .map_err(|problem| self.report(value.span(), key, problem))
            .ok()
    }

    fn address(&mut self, key: &str, value: &'t Value<'t>) -> Option<Span> {
        parse_address(self.string(key, value)?)
            .map_err(|error| self.report(value.span(), key, ModbusProblem::from(error)))
            .ok()
    }

    fn one_service(&mut self, key: &str, value: &'t Value<'t>) -> Option<Service> {
        let word = self.string(key, value)?;
        let service = Service::from_name(word);
        if service.is_none() {
            let names = Service::ALL.into_iter().map(Service::name);
            let problem = ProfinetProblem::UnknownSingleService {
                name: word.chars().take(MAX_NAME).collect(),
                nearest: nearest(word, names).map(str::to_owned),
            };
            self.report(value.span(), key, problem);
        }
        service
    }

    fn record(&mut self, key: &str, value: &'t Value<'t>) -> Option<u16> {
        self.numbers(key, value, parse_index, ProfinetProblem::Record)
    }

    fn slot(&mut self, key: &str, value: &'t Value<'t>) -> Option<(u16, u16)> {
        let single = |text: &str| parse_slot(text)?.single();
        self.numbers(key, value, single, ProfinetProblem::SlotAlone)
    }
}
