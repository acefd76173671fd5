//! Connection management: what is opened, read and written, and by whom.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Instant;

use fieldlock_policy::Call;
use fieldlock_profinet::ar::{self, End, Ended, Pair, Refused};
use fieldlock_profinet::calls::{PNIO_CM_PORT, Part};
use fieldlock_profinet::cm::{ConnectRequest, Message, RecordAccess, WriteRequest, refuse};
use fieldlock_profinet::ip::Datagram;
use fieldlock_profinet::rpc::{CallId, Interface, PacketType, Rpc, Uuid};
use fieldlock_profinet::status::PnioStatus;
use fieldlock_profinet::{Service, epm};

use super::answer::{Way, put_answer};
use super::bridge::{Bridge, Ingress};
use super::dispatch::Received;
use super::drops::DropReason;
use super::event::{Event, RecordPlace};
use super::parties::Parties;
use super::views::opens;

/// Error classes of the answers (PNIOStatus.ErrorCode): IODConnectRes, IODReleaseRes,
/// IODControlRes, IODReadRes, IODWriteRes.
const CONNECT: u8 = 0xdb;
const RELEASE: u8 = 0xdc;
const CONTROL: u8 = 0xdd;
const READ: u8 = 0xde;
const WRITE: u8 = 0xdf;

/// PNIORW "access: access denied".
fn access_denied(code: u8) -> PnioStatus {
    PnioStatus {
        code,
        decode: 0x80,
        code1: 0xb6,
        code2: 0,
    }
}

/// What a Connect gets that the policy does not allow: CMRPC, "out of AR resources". There is no
/// code for "not allowed"; the audit log has the reason.
const NOT_ALLOWED: PnioStatus = PnioStatus {
    code: CONNECT,
    decode: 0x81,
    code1: 0x40,
    code2: 4,
};

/// A message that does not pass, and what its sender is told, where there is anything to tell.
struct Refusal {
    drop: DropReason,
    told: Option<Told>,
}

/// The answer to a refused request, as if the other station gave it.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// An answer of connection management.
    Status(PnioStatus),
    /// The RPC layer rejects it.
    NoInterface,
}

impl Refusal {
    fn telling(status: PnioStatus) -> impl Fn(DropReason) -> Self {
        move |drop| Self {
            drop,
            told: Some(Told::Status(status)),
        }
    }

    fn no_interface(drop: DropReason) -> Self {
        Self {
            drop,
            told: Some(Told::NoInterface),
        }
    }
}

impl From<DropReason> for Refusal {
    fn from(drop: DropReason) -> Self {
        Self { drop, told: None }
    }
}

/// One message, and between whom it is.
struct Exchange {
    now: Instant,
    from: End,
    station: usize,
    pair: Pair,
    call: CallId,
    /// The RPC object.
    object: Uuid,
}

impl Bridge {
    pub(super) fn udp(
        &mut self,
        came: &Received<'_>,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        let Received {
            now,
            end,
            ingress,
            frame,
            bytes,
        } = *came;
        let Datagram { ip, udp } = datagram;
        let (station, pair) = self.pair(came)?;
        if !self.may_talk(station, pair.controller) {
            return Err(DropReason::Denied);
        }
        self.note_ip(came, station, pair.controller, ip.source)?;
        self.check_destination(end, station, pair, ip.destination)?;
        let ports = (udp.source_port, udp.destination_port);
        let rpc = match Rpc::parse(udp.payload) {
            Ok(rpc) => rpc,
            Err(error) if ports.0 == PNIO_CM_PORT || ports.1 == PNIO_CM_PORT => {
                return Err(self.malformed(came, &error));
            }
            // Another protocol of the two.
            Err(_) => return Err(DropReason::NoCall),
        };
        let exchange = Exchange {
            now,
            from: end,
            station,
            pair,
            call: rpc.call(),
            object: rpc.object,
        };
        // The calls keep what came in pieces while the rest of the bridge looks at it.
        let mut calls = std::mem::take(&mut self.calls);
        let about = calls.about(pair, &rpc.activity);
        let known = self.check_interface(came, &rpc);
        let placed = known.map(|()| calls.handle(now, pair, end, ports, &rpc));
        let judged = match placed {
            Err(refusal) => Err(refusal),
            Ok(Ok(Part::Request(body))) => {
                let judged = self.judge_request(came, &exchange, (&rpc, body));
                match judged {
                    Ok(about) => calls.allow(pair, &rpc.activity, about),
                    Err(_) => calls.refuse(pair, &rpc.activity),
                }
                judged.map(drop)
            }
            Ok(Ok(Part::Response(body))) => {
                let judged = self.follow(came, &exchange, about, (&rpc, body));
                let judged = judged.map(|ports| {
                    for port in ports {
                        calls.learn_port(pair, end, port);
                    }
                });
                if judged.is_err() {
                    calls.refuse(pair, &rpc.activity);
                }
                judged
            }
            Ok(Ok(Part::Piece | Part::Signal | Part::Failure)) => Ok(()),
            // What is out of place, as behind a piece that was lost, says nothing of its call.
            Ok(Err(_)) => Err(DropReason::NoCall.into()),
        };
        self.calls = calls;
        match judged {
            Ok(()) => self.forward(ingress, (station, pair.controller), bytes),
            Err(refusal) => {
                if let Some(told) = refusal.told {
                    let way = Way {
                        src: (frame.src, ip.source, udp.source_port),
                        dst: (frame.dst, ip.destination, udp.destination_port),
                        tag: frame.tag,
                    };
                    self.answer(ingress, &exchange, &way, &rpc, told);
                }
                Err(refusal.drop)
            }
        }
    }

    /// Only what is called by an interface that is known is read at all: an operation's number says
    /// nothing without it.
    fn check_interface(&mut self, came: &Received<'_>, rpc: &Rpc<'_>) -> Result<(), Refusal> {
        let Interface::Other(interface) = rpc.interface else {
            return Ok(());
        };
        if rpc.ptype != PacketType::Request {
            return Err(DropReason::NoCall.into());
        }
        let reason = format!("RPC interface {interface}, which is none of PROFINET");
        self.not_understood(came, &reason);
        Err(Refusal::no_interface(DropReason::NotCarried))
    }

    /// Judges a request; the AR that it is about, if any.
    fn judge_request(
        &mut self,
        came: &Received<'_>,
        exchange: &Exchange,
        (rpc, body): (&Rpc<'_>, &[u8]),
    ) -> Result<Option<Uuid>, Refusal> {
        if rpc.interface == Interface::EndpointMapper {
            self.lookup(came, exchange, (rpc, body))?;
            return Ok(None);
        }
        let message = Message::parse(rpc, body);
        let message = message.map_err(|error| self.malformed(came, &error))?;
        self.request(came, exchange, &message)
    }

    /// Asking the endpoint mapper is asking what the station is, as DCP Get does.
    fn lookup(
        &mut self,
        came: &Received<'_>,
        exchange: &Exchange,
        (rpc, body): (&Rpc<'_>, &[u8]),
    ) -> Result<(), Refusal> {
        if exchange.from == End::Device {
            return Err(DropReason::Unasked.into());
        }
        let message = epm::Message::parse(rpc, body);
        let message = message.map_err(|error| self.malformed(came, &error));
        message.map_err(Refusal::no_interface)?;
        let call = Call::Service(Service::Get);
        let judged = self.judge(exchange.pair.controller, exchange.station, &call);
        judged.map_err(Refusal::no_interface)?;
        Ok(())
    }

    /// Reads an answer, and follows what it means; the ports at which the station says that it is
    /// called from here on.
    fn follow(
        &mut self,
        came: &Received<'_>,
        exchange: &Exchange,
        about: Option<Uuid>,
        (rpc, body): (&Rpc<'_>, &[u8]),
    ) -> Result<Vec<u16>, Refusal> {
        if rpc.interface == Interface::EndpointMapper {
            let message = epm::Message::parse(rpc, body);
            let message = message.map_err(|error| self.malformed(came, &error))?;
            return Ok(match message {
                epm::Message::Found(found) => found.ports().collect(),
                _ => Vec::new(),
            });
        }
        let message = Message::parse(rpc, body);
        let message = message.map_err(|error| self.malformed(came, &error))?;
        self.response(exchange, about, &message)?;
        Ok(Vec::new())
    }

    /// Judges a request of connection management.
    fn request(
        &mut self,
        came: &Received<'_>,
        exchange: &Exchange,
        message: &Message<'_>,
    ) -> Result<Option<Uuid>, Refusal> {
        let Exchange { now, pair, .. } = *exchange;
        match (exchange.from, message) {
            (End::Controller, Message::ConnectRequest(connect)) => self.connect(exchange, connect),
            (End::Controller, Message::ReleaseRequest(release)) => {
                // A device may go by the UUID alone.
                if self.table.is_of_others(pair, release.ar_uuid) {
                    return Err(self.unknown(Refused::UnknownAr, RELEASE));
                }
                // One that is not known is not in the way either: the device says so.
                if let Some(id) = self.table.releasing(now, pair, release.ar_uuid) {
                    self.stop_flows(id);
                }
                Ok(Some(release.ar_uuid))
            }
            (_, Message::ControlRequest(control)) => {
                let known = self.table.touch(now, pair, control.ar_uuid);
                known.map_err(|refused| self.unknown(refused, CONTROL))?;
                Ok(Some(control.ar_uuid))
            }
            (End::Controller, Message::ReadRequest(access)) => {
                let known = self.table.touch(now, pair, access.ar_uuid);
                known.map_err(|refused| self.unknown(refused, READ))?;
                self.read(exchange, access)?;
                Ok(Some(access.ar_uuid))
            }
            (End::Controller, Message::ReadImplicitRequest(access)) => {
                self.read(exchange, access)?;
                Ok(None)
            }
            (End::Controller, Message::WriteRequest(write)) => self.write(came, exchange, write),
            _ => Err(DropReason::Unasked.into()),
        }
    }

    fn unknown(&self, refused: Refused, code: u8) -> Refusal {
        Refusal {
            drop: DropReason::NoAr,
            told: Some(Told::Status(refused.status(code))),
        }
    }

    /// A Connect has to be allowed with all that it opens.
    fn connect(
        &mut self,
        exchange: &Exchange,
        connect: &ConnectRequest<'_>,
    ) -> Result<Option<Uuid>, Refusal> {
        let Exchange {
            now,
            station,
            pair,
            call,
            object,
            ..
        } = *exchange;
        let ar = connect.ar();
        let fit = ar::check(connect, pair.controller);
        fit.map_err(|unfit| self.unfit(exchange, unfit.status(), &unfit))?;
        let cadence = self.check_cadence(station, pair, connect);
        cadence.map_err(|unfit| self.unfit(exchange, unfit.status(), &unfit))?;
        self.controller_named(pair.controller, ar.name());
        let (data, alarms) = (connect.iocrs().next(), connect.alarm_cr());
        for needed in opens(ar.ar_type, data.is_some(), alarms.is_some()) {
            let judged = self.judge(pair.controller, station, &needed);
            judged.map_err(Refusal::telling(NOT_ALLOWED))?;
        }
        if let Err(refused) = self.table.connect(now, pair, (call, object), connect) {
            let refusal = self.unfit(exchange, refused.status(CONNECT), &refused);
            return Err(Refusal {
                drop: DropReason::Overload,
                ..refusal
            });
        }
        Ok(Some(ar.ar_uuid))
    }

    fn read(&mut self, exchange: &Exchange, access: &RecordAccess) -> Result<(), Refusal> {
        let call = Call::Read {
            index: access.index,
            slot: access.slot,
            subslot: access.subslot,
        };
        let judged = self.judge(exchange.pair.controller, exchange.station, &call);
        judged.map_err(Refusal::telling(access_denied(READ)))?;
        Ok(())
    }

    /// A write of several records passes when each of them may.
    fn write(
        &mut self,
        came: &Received<'_>,
        exchange: &Exchange,
        write: &WriteRequest<'_>,
    ) -> Result<Option<Uuid>, Refusal> {
        let Exchange {
            now, station, pair, ..
        } = *exchange;
        let mut rules = Vec::new();
        let mut about = None;
        for item in write.items() {
            let item = item.map_err(|error| self.malformed(came, &error))?;
            let access = item.access;
            let known = self.table.touch(now, pair, access.ar_uuid);
            known.map_err(|refused| self.unknown(refused, WRITE))?;
            about = Some(access.ar_uuid);
            let call = Call::Write {
                index: access.index,
                slot: access.slot,
                subslot: access.subslot,
            };
            let judged = self.judge(pair.controller, station, &call);
            rules.push((
                access,
                judged.map_err(Refusal::telling(access_denied(WRITE)))?,
            ));
        }
        if !self.writable {
            return Err(Refusal::telling(access_denied(WRITE))(DropReason::NoAudit));
        }
        for (access, rule) in rules {
            self.output.event(Event::Changes {
                who: self.who(pair.controller),
                station: self.parties.stations[station].name().clone(),
                service: Service::Write,
                record: Some(place(&access)),
                value: None,
                rule,
            });
        }
        Ok(about)
    }

    /// Follows an answer; `about` is the AR that its request was about.
    fn response(
        &mut self,
        exchange: &Exchange,
        about: Option<Uuid>,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let Exchange {
            now,
            station,
            pair,
            call,
            ..
        } = *exchange;
        match (exchange.from, message, about) {
            (End::Device, Message::ConnectResponse(response), Some(uuid)) => {
                let changes = self.table.connected(now, pair, (call, uuid), response);
                let unfit = changes
                    .iter()
                    .any(|change| matches!(change, ar::Change::Ended(_, Ended::Unfit(_))));
                self.apply(now, changes);
                if unfit {
                    return Err(DropReason::Unfit.into());
                }
            }
            (End::Device, Message::ReleaseResponse(_), Some(uuid)) => {
                let change = self.table.released(now, pair, uuid);
                self.apply(now, change);
            }
            (End::Controller, Message::ControlResponse(response), Some(uuid))
                if response.status.is_ok() =>
            {
                let change = self.table.ready(now, pair, uuid);
                self.apply(now, change);
            }
            (End::Device, Message::ReadResponse(response), _) => {
                self.parties.stations[station].learn_record(response);
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells who asked that it is refused, as if the other station said so.
    fn answer(
        &mut self,
        ingress: Ingress,
        exchange: &Exchange,
        way: &Way,
        rpc: &Rpc<'_>,
        told: Told,
    ) {
        // A device that asks hears nothing: its request was none that a controller should see.
        if exchange.from == End::Device {
            return;
        }
        let payload = match told {
            Told::Status(status) => refuse::response(rpc, status),
            Told::NoInterface => refuse::no_interface(rpc),
        };
        let Some(payload) = payload else {
            return;
        };
        let put = |out: &mut Vec<u8>| put_answer(out, way, &payload);
        match ingress {
            Ingress::Wire => self.output.wire_with(put),
            Ingress::Tunnel { .. } => {
                if let Some(way) = self.way(exchange.station, exchange.pair.controller) {
                    self.output.station_with(way, put);
                }
            }
        }
    }

    /// A station that forwards what is not for itself would carry it past this policy.
    fn check_destination(
        &self,
        end: End,
        station: usize,
        pair: Pair,
        ip: Ipv4Addr,
    ) -> Result<(), DropReason> {
        let Parties {
            stations,
            controllers,
            ..
        } = &self.parties;
        let known = match end {
            End::Controller => stations[station].ip,
            End::Device => {
                let index = self.parties.controller_of(pair.controller);
                index.and_then(|index| controllers[index].ip)
            }
        };
        match known.is_none_or(|known| known == ip) {
            true => Ok(()),
            false => Err(DropReason::NotPaired),
        }
    }

    /// A Connect that can't be kept, which is no matter of policy: on record, with the reason.
    fn unfit(
        &mut self,
        exchange: &Exchange,
        status: PnioStatus,
        reason: &dyn fmt::Display,
    ) -> Refusal {
        self.output.event(Event::Refused {
            who: self.who(exchange.pair.controller),
            station: self.parties.stations[exchange.station].name().clone(),
            service: Service::Connect,
            record: None,
            rule: None,
            reason: reason.to_string().into(),
        });
        Refusal {
            drop: DropReason::Unfit,
            told: Some(Told::Status(status)),
        }
    }
}

fn place(access: &RecordAccess) -> RecordPlace {
    RecordPlace {
        index: access.index,
        slot: access.slot,
        subslot: access.subslot,
    }
}
