//! From a name to a MAC and an IP address: DCP Identify, Set, ARP.

use std::net::Ipv4Addr;
use std::time::Instant;

use fieldlock_profinet::Mac;
use fieldlock_profinet::dcp::{BlockError, BlockId, Kind, Pdu as Received, ServiceId, Value};

use super::management::Step;
use super::{Controller, Defect, Phase};
use crate::profinet::discovery::{IpSuite, Pdu, block, frame};
use crate::profinet::event::Event;
use crate::profinet::lan::{ArpOperation, arp};
use crate::profinet::stats::Side;

/// A question that is asked some times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Try {
    pub(super) deadline: Instant,
    xid: u32,
    left: u32,
}

const IP: (u8, u8) = (1, 2);
const NAME: (u8, u8) = (2, 2);
const PRIORITY: Option<u8> = Some(0);
/// BlockQualifier: permanent.
const PERMANENT: u16 = 1;

impl Controller {
    fn first_try(&mut self, now: Instant) -> Try {
        Try {
            deadline: now + self.config.identify_timeout,
            xid: self.random.next() as u32,
            left: self.config.identify_tries.saturating_sub(1),
        }
    }

    pub(super) fn identify(&mut self, now: Instant) {
        let tried = self.first_try(now);
        self.phase = Phase::Identifying(tried);
        self.ask(tried.xid);
    }

    /// Sends the question of this phase.
    fn ask(&mut self, xid: u32) {
        let (own, device) = (self.config.mac, self.device);
        match &self.phase {
            Phase::Identifying(_) => {
                let pdu = Pdu::IdentifyRequest {
                    delay_factor: self.config.delay_factor,
                };
                let name = &self.config.device;
                self.out.push(|out| {
                    frame(out, (Mac::DCP_IDENTIFY, own), PRIORITY, pdu, xid, |out| {
                        block(out, NAME, None, name.as_bytes());
                    });
                });
            }
            Phase::SettingIp(_) => {
                if let Some(suite) = self.config.device_ip {
                    self.put_set_ip(own, xid, suite);
                }
            }
            Phase::Resolving(_) => {
                let from = (own, self.config.ip.address);
                let to = (Mac::BROADCAST, device.ip);
                self.out
                    .push(|out| arp(out, ArpOperation::Request, from, to));
            }
            _ => {}
        }
    }

    fn put_set_ip(&mut self, from: Mac, xid: u32, suite: IpSuite) {
        let device = self.device.mac;
        self.out.push(|out| {
            frame(out, (device, from), PRIORITY, Pdu::SetRequest, xid, |out| {
                block(out, IP, Some(PERMANENT), &suite.octets());
            });
        });
    }

    pub(super) fn find_timeout(&mut self, now: Instant) {
        let timeout = self.config.identify_timeout;
        let (Phase::Identifying(tried) | Phase::SettingIp(tried) | Phase::Resolving(tried)) =
            &mut self.phase
        else {
            return;
        };
        if tried.deadline > now {
            return;
        }
        if let Some(left) = tried.left.checked_sub(1) {
            // An answer to the earlier question may still come: it keeps its number.
            *tried = Try {
                deadline: now + timeout,
                left,
                ..*tried
            };
            let xid = tried.xid;
            return self.ask(xid);
        }
        if matches!(self.phase, Phase::Identifying(_)) {
            self.event(Event::NotFound {
                tries: self.config.identify_tries,
            });
            self.rest(now);
        } else {
            self.ended(now, Side::Device, 0);
        }
    }

    pub(super) fn handle_dcp(&mut self, now: Instant, src: Mac, pdu: &Received<'_>) {
        match (&self.phase, pdu.service, pdu.kind) {
            (Phase::Identifying(tried), ServiceId::Identify, Kind::Success)
                if pdu.xid == tried.xid =>
            {
                self.handle_identity(now, src, pdu);
            }
            (Phase::SettingIp(tried), ServiceId::Set, Kind::Success)
                if pdu.xid == tried.xid && src == self.device.mac =>
            {
                let refused = pdu.blocks().flatten().any(|answer| {
                    !matches!(
                        answer.value(),
                        Ok(Value::Response {
                            error: BlockError::Ok,
                            ..
                        })
                    )
                });
                match (refused, self.config.device_ip) {
                    (false, Some(suite)) => {
                        self.device.ip = suite.address;
                        self.resolve(now);
                    }
                    _ => self.ended(now, Side::Device, 0),
                }
            }
            _ => {}
        }
    }

    fn handle_identity(&mut self, now: Instant, mac: Mac, pdu: &Received<'_>) {
        let (mut suite, mut named) = (IpSuite::NONE, false);
        for block in pdu.blocks().flatten() {
            match block.id {
                BlockId::IP => suite = ip_suite(block.data).unwrap_or(suite),
                BlockId::NAME => named = block.data == self.config.device.as_bytes(),
                _ => {}
            }
        }
        if !named {
            return;
        }
        self.device.mac = mac;
        self.device.ip = suite.address;
        self.event(Event::Found {
            mac,
            ip: suite.address,
        });
        if let Some(Defect::SetsIpFrom(stranger)) = self.config.defect {
            let xid = self.random.next() as u32;
            self.put_set_ip(stranger, xid, IpSuite::local(Ipv4Addr::new(10, 66, 66, 66)));
        }
        match self.config.device_ip {
            Some(wanted) if wanted != suite => {
                // Is the address free? A conflict would be answered while the device sets it.
                let own = self.config.mac;
                let (nobody, wanted) = (Ipv4Addr::UNSPECIFIED, (Mac::BROADCAST, wanted.address));
                self.out
                    .push(|out| arp(out, ArpOperation::Request, (own, nobody), wanted));
                let tried = self.first_try(now);
                self.phase = Phase::SettingIp(tried);
                self.ask(tried.xid);
            }
            _ => self.resolve(now),
        }
    }

    fn resolve(&mut self, now: Instant) {
        let tried = self.first_try(now);
        self.phase = Phase::Resolving(tried);
        self.ask(tried.xid);
    }

    pub(super) fn handle_arp_reply(&mut self, now: Instant, mac: Mac, ip: Ipv4Addr) {
        if matches!(self.phase, Phase::Resolving(_))
            && ip == self.device.ip
            && mac == self.device.mac
        {
            self.call(now, Step::Connect);
        }
    }
}

fn ip_suite(data: &[u8]) -> Option<IpSuite> {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = <&[u8; 12]>::try_from(data).ok()?;
    Some(IpSuite {
        address: Ipv4Addr::new(a, b, c, d),
        mask: Ipv4Addr::new(e, f, g, h),
        gateway: Ipv4Addr::new(i, j, k, l),
    })
}
