//! DCP: who a device says it is, and how it is named and addressed.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_profinet::dcp::{Block, BlockId, Kind, Pdu as Received, ServiceId};

use super::{Device, Ended};
use crate::profinet::discovery::{IpSuite, Pdu, block, frame};
use crate::profinet::event::Event;

/// An answer to Identify that waits for its moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delayed {
    pub(super) due: Instant,
    asker: Mac,
    xid: u32,
}

/// Answers that wait at a time; one more request goes unanswered.
const DELAYED: usize = 16;
/// All senders of Hello and DCP use VLAN priority 0.
const PRIORITY: Option<u8> = Some(0);

const IP: (u8, u8) = (1, 2);
const MAC: (u8, u8) = (1, 1);
const VENDOR: (u8, u8) = (2, 1);
const NAME: (u8, u8) = (2, 2);
const DEVICE_ID: (u8, u8) = (2, 3);
const ROLE: (u8, u8) = (2, 4);
const OPTIONS: (u8, u8) = (2, 5);
const START: (u8, u8) = (5, 1);
const STOP: (u8, u8) = (5, 2);
const SIGNAL: (u8, u8) = (5, 3);
const RESPONSE: (u8, u8) = (5, 4);
const FACTORY_RESET: (u8, u8) = (5, 5);
const RESET_TO_FACTORY: (u8, u8) = (5, 6);
const ALL: (u8, u8) = (0xff, 0xff);

/// What a device tells of itself.
const KNOWN: [(u8, u8); 6] = [IP, VENDOR, NAME, DEVICE_ID, ROLE, OPTIONS];

/// BlockError of a Set.
const SET_OK: u8 = 0;
const OPTION_UNSUPPORTED: u8 = 1;
const SUBOPTION_UNSUPPORTED: u8 = 2;
const NOT_SET: u8 = 3;

/// PNIOStatus codes of an AR that DCP ends.
const ABORTED: u8 = 0x0d;
const NAME_CHANGED: u8 = 0x1f;
const RESET: u8 = 0x20;

impl Device {
    pub(super) fn hello(&mut self) {
        let (mac, name, suite) = (self.config.mac, self.name.clone(), self.ip);
        let (vendor, device) = (self.config.vendor, self.config.device);
        self.out.push(|out| {
            frame(out, (Mac::DCP_HELLO, mac), PRIORITY, Pdu::Hello, 1, |out| {
                block(out, NAME, Some(0), name.as_bytes());
                block(out, IP, Some(ip_info(suite)), &suite.octets());
                block(out, DEVICE_ID, Some(0), &ids(vendor, device));
                // Device initiative: says Hello when it has its name.
                block(out, (6, 1), Some(0), &[0, 1]);
            });
        });
    }

    pub(super) fn handle_dcp(&mut self, now: Instant, asker: Mac, pdu: &Received<'_>) {
        match (pdu.service, pdu.kind) {
            (ServiceId::Identify, Kind::Request) => self.handle_identify(now, asker, pdu),
            (ServiceId::Get, Kind::Request) => self.handle_get(asker, pdu),
            (ServiceId::Set, Kind::Request) => self.handle_set(now, asker, pdu),
            _ => {}
        }
    }

    fn handle_identify(&mut self, now: Instant, asker: Mac, pdu: &Received<'_>) {
        self.asked.identify += 1;
        for filter in pdu.blocks() {
            match filter {
                Ok(filter) if self.is_meant(&filter) => {}
                Ok(_) => return,
                Err(_) => {
                    self.asked.malformed += 1;
                    return;
                }
            }
        }
        if self.identify_answers.len() < DELAYED {
            let steps = self.random.next() % u64::from(pdu.delay_factor.max(1));
            self.identify_answers.push(Delayed {
                due: now + Duration::from_millis(10) * steps as u32,
                asker,
                xid: pdu.xid,
            });
        }
        self.answer_identify(now);
    }

    fn is_meant(&self, filter: &Block<'_>) -> bool {
        match pair(filter.id) {
            ALL => true,
            NAME => filter.data == self.name.as_bytes() && !self.name.is_empty(),
            DEVICE_ID => filter.data == ids(self.config.vendor, self.config.device),
            VENDOR => filter.data == VENDOR_NAME.as_bytes(),
            IP => filter.data == self.ip.octets(),
            MAC => filter.data == self.config.mac.0,
            _ => false,
        }
    }

    pub(super) fn answer_identify(&mut self, now: Instant) {
        while let Some(at) = self
            .identify_answers
            .iter()
            .position(|answer| answer.due <= now)
        {
            let Delayed { asker, xid, .. } = self.identify_answers.swap_remove(at);
            let ends = (asker, self.config.mac);
            self.answer(ends, Pdu::IdentifyResponse, xid, &KNOWN);
        }
    }

    /// Sends a response with these blocks, as far as the device has them.
    fn answer(&mut self, ends: (Mac, Mac), pdu: Pdu, xid: u32, which: &[(u8, u8)]) {
        let (name, suite, mac) = (self.name.clone(), self.ip, self.config.mac);
        let (vendor, device) = (self.config.vendor, self.config.device);
        self.out.push(|out| {
            frame(out, ends, PRIORITY, pdu, xid, |out| {
                for &option in which {
                    match option {
                        IP => block(out, IP, Some(ip_info(suite)), &suite.octets()),
                        MAC => block(out, MAC, Some(0), &mac.0),
                        VENDOR => block(out, VENDOR, Some(0), VENDOR_NAME.as_bytes()),
                        NAME => block(out, NAME, Some(0), name.as_bytes()),
                        DEVICE_ID => block(out, DEVICE_ID, Some(0), &ids(vendor, device)),
                        // IO-device.
                        ROLE => block(out, ROLE, Some(0), &[1, 0]),
                        OPTIONS => {
                            let supported = [IP, VENDOR, NAME, DEVICE_ID, ROLE, OPTIONS, SIGNAL];
                            let list: Vec<u8> =
                                supported.iter().flat_map(|&(o, s)| [o, s]).collect();
                            block(out, OPTIONS, Some(0), &list);
                        }
                        (option, suboption) => {
                            block(
                                out,
                                RESPONSE,
                                None,
                                &[option, suboption, SUBOPTION_UNSUPPORTED],
                            );
                        }
                    }
                }
            });
        });
    }

    fn handle_get(&mut self, asker: Mac, pdu: &Received<'_>) {
        self.asked.get += 1;
        let which: Vec<(u8, u8)> = pdu.blocks().flatten().map(|block| pair(block.id)).collect();
        let which = match which.as_slice() {
            [ALL] => &KNOWN[..],
            which => which,
        };
        let ends = (asker, self.config.mac);
        self.answer(ends, Pdu::GetResponse, pdu.xid, which);
    }

    fn handle_set(&mut self, now: Instant, asker: Mac, pdu: &Received<'_>) {
        // All of it is sound before any of it is done.
        if pdu.check().is_err() {
            self.asked.malformed += 1;
            return;
        }
        let results: Vec<[u8; 3]> = pdu
            .blocks()
            .flatten()
            .map(|block| [block.id.option, block.id.suboption, self.set(now, &block)])
            .collect();
        let ends = (asker, self.config.mac);
        self.out.push(|out| {
            frame(out, ends, PRIORITY, Pdu::SetResponse, pdu.xid, |out| {
                for result in &results {
                    block(out, RESPONSE, None, result);
                }
            });
        });
    }

    /// Does what one block of a Set says.
    fn set(&mut self, now: Instant, set: &Block<'_>) -> u8 {
        match pair(set.id) {
            IP => self.set_ip(now, set.data),
            NAME => self.set_name(now, set.data),
            SIGNAL => {
                self.asked.signal += 1;
                self.event(Event::Signalled);
                SET_OK
            }
            FACTORY_RESET | RESET_TO_FACTORY => {
                self.asked.reset += 1;
                self.abort_all(now, RESET);
                self.name.clear();
                self.ip = IpSuite::NONE;
                self.records.clear();
                self.event(Event::WasReset);
                SET_OK
            }
            START | STOP => {
                self.asked.set_other += 1;
                SET_OK
            }
            (1 | 2 | 5, _) => {
                self.asked.set_other += 1;
                SUBOPTION_UNSUPPORTED
            }
            _ => {
                self.asked.set_other += 1;
                OPTION_UNSUPPORTED
            }
        }
    }

    fn set_ip(&mut self, now: Instant, data: &[u8]) -> u8 {
        self.asked.set_ip += 1;
        let Ok(&[a, b, c, d, e, f, g, h, i, j, k, l]) = <&[u8; 12]>::try_from(data) else {
            return NOT_SET;
        };
        let suite = IpSuite {
            address: Ipv4Addr::new(a, b, c, d),
            mask: Ipv4Addr::new(e, f, g, h),
            gateway: Ipv4Addr::new(i, j, k, l),
        };
        if suite.address.is_multicast() || suite.address.is_broadcast() {
            return NOT_SET;
        }
        if suite != self.ip {
            self.abort_all(now, ABORTED);
            self.ip = suite;
        }
        self.event(Event::IpSet(suite));
        SET_OK
    }

    fn set_name(&mut self, now: Instant, data: &[u8]) -> u8 {
        self.asked.set_name += 1;
        let name = match std::str::from_utf8(data) {
            Ok("") => String::new(),
            Ok(name) if name.parse::<fieldlock_profinet::StationName>().is_ok() => name.to_owned(),
            Ok(_) | Err(_) => return NOT_SET,
        };
        if name != self.name {
            self.abort_all(now, NAME_CHANGED);
            self.name.clone_from(&name);
        }
        self.event(Event::NameSet(name));
        SET_OK
    }

    fn abort_all(&mut self, now: Instant, code: u8) {
        while !self.ars.is_empty() {
            self.end(now, 0, Ended::own(code));
        }
    }
}

fn pair(id: BlockId) -> (u8, u8) {
    (id.option, id.suboption)
}

const VENDOR_NAME: &str = "Fieldlock simulated IO-device";

/// BlockInfo of an IP suite: 0 not set, 1 set.
fn ip_info(suite: IpSuite) -> u16 {
    u16::from(suite != IpSuite::NONE)
}

fn ids(vendor: u16, device: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (vendor.to_be_bytes(), device.to_be_bytes());
    [a, b, c, d]
}
