//! Cyclic data and alarms of the ARs that are open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_profinet::alarm::{Body, Rta};
use fieldlock_profinet::ar::{Ar, ArId, Change, Cr, End, Pair, Phase};
use fieldlock_profinet::cm::ConnectRequest;
use fieldlock_profinet::cyclic::Cyclic;
use fieldlock_profinet::status::PnioStatus;
use fieldlock_profinet::{Frame, FrameId, Mac, Tag, eth};
use thiserror::Error;

use super::bridge::{Bridge, Tagging};
use super::cadence::{
    self, ConfigError, Header, Hold, Receiver, ReceiverConfig, Sender, SenderConfig, Stream, fits,
};
use super::dispatch::Received;
use super::drops::DropReason;
use super::event::{ArName, Event};
use super::output::{LinkId, OutputQueue};
use super::parties::StationSettings;
use super::shortfall::Shortfall;

/// Priority of real-time frames that came without a tag (IEC 61158-6-10: RT_CLASS_1 uses 6).
const PRIORITY: u8 = 6;

/// One direction of one AR, at this agent.
#[derive(Debug)]
pub struct Flow {
    pub pair: Pair,
    pub provider: End,
    pub frame_id: FrameId,
    /// IOCRTagHeader: beside VLAN 0 its frames may be in this one.
    pub tag: Tag,
    /// The agent at the other end.
    pub peer: Arc<str>,
    /// The tunnel on which it crosses, and the station's channel there.
    pub way: (LinkId, u16),
    /// When its provider was last heard, here or through the tunnel.
    pub heard: Option<Instant>,
    pub half: Half,
}

/// What this agent does with it.
#[derive(Debug)]
pub enum Half {
    /// Hears the provider on its wire.
    Send(Box<Sender>),
    /// Feeds the consumer on its wire.
    Receive(Box<Receiver>),
}

/// All of them, by AR and place of the CR in it.
#[derive(Debug, Default)]
pub(super) struct Flows(BTreeMap<(ArId, usize), Flow>);

impl Bridge {
    /// A provider was heard: its data leaves in a datagram.
    pub(super) fn cyclic_from_wire(
        &mut self,
        came: &Received<'_>,
        id: FrameId,
        pdu: &[u8],
    ) -> Result<(), DropReason> {
        let Received { now, frame, .. } = *came;
        let (ar, place) = self.table.cyclic(now, frame.src, frame.dst, id)?;
        let (id, cr) = (ar.id, &ar.crs[place]);
        check_vlan(frame.tag, cr.tag)?;
        let length = cr.data_length;
        let cyclic = Cyclic::parse(pdu, length);
        let cyclic = cyclic.map_err(|error| self.malformed(came, &error))?;
        if cyclic.transfer_status != 0 {
            return Err(DropReason::TransferStatus);
        }
        let flow = self
            .flows
            .0
            .get_mut(&(id, place))
            .ok_or(DropReason::NoTunnel)?;
        let Half::Send(sender) = &mut flow.half else {
            return Err(DropReason::ForeignSource);
        };
        flow.heard = Some(now);
        let heard = cadence::Frame {
            tag: frame.tag,
            cycle_counter: cyclic.cycle_counter,
            data_status: cyclic.data_status,
            data: cyclic.data,
        };
        sender.set_max_datagram(self.parties.max_datagram(flow.way.0));
        self.output.datagram_with(flow.way.0, |out| {
            match sender.handle_frame(now, &heard, out) {
                true => Ok(()),
                false => Err(DropReason::Old),
            }
        })
    }

    /// A datagram came through a tunnel.
    pub fn handle_datagram(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        if let Err(drop) = self.datagram(now, link, datagram) {
            self.drops.add(drop);
        }
    }

    fn datagram(&mut self, now: Instant, link: LinkId, datagram: &[u8]) -> Result<(), DropReason> {
        let header = Header::peek(datagram).map_err(|_| DropReason::Malformed)?;
        let Stream {
            channel,
            ar,
            frame_id,
        } = header.stream;
        let station = self
            .parties
            .link(link)
            .and_then(|link| link.station(channel));
        let station = station.ok_or(DropReason::NotPaired)?;
        let device = self.parties.stations[station].mac.ok_or(DropReason::NoAr)?;
        let provider = self.settings.role.end().other();
        let is = |known: &&Ar| known.pair.device == device && known.tag() == ar;
        let ar = self.table.iter().find(is).ok_or(DropReason::NoAr)?;
        let carries = |cr: &Cr| cr.provider == provider && cr.frame_id == Some(frame_id);
        let place = ar.crs.iter().position(carries).ok_or(DropReason::NoAr)?;
        let (src, dst) = (ar.pair.mac(provider), ar.pair.mac(provider.other()));
        let key = (ar.id, place);
        let flow = self.flows.0.get_mut(&key).ok_or(DropReason::NoAr)?;
        let Half::Receive(receiver) = &mut flow.half else {
            return Err(DropReason::NoAr);
        };
        // Another agent can't speak for this one; another tunnel of it may, while they change.
        if self
            .parties
            .link(link)
            .is_none_or(|link| link.peer != flow.peer)
        {
            return Err(DropReason::ForeignSource);
        }
        receiver
            .handle_datagram(now, datagram)
            .map_err(|_| DropReason::Malformed)?;
        flow.heard = Some(now);
        emit(
            receiver,
            now,
            (src, dst, frame_id, flow.tag),
            self.settings.tagging,
            &mut self.output,
        );
        // What passes keeps the AR alive here too.
        let _ = self.table.cyclic(now, src, dst, frame_id);
        Ok(())
    }
}

impl Bridge {
    /// Alarms, their acknowledgements, and aborts.
    pub(super) fn alarm(
        &mut self,
        came: &Received<'_>,
        high: bool,
        alarm: &Rta<'_>,
    ) -> Result<(), DropReason> {
        let Received {
            now,
            end,
            ingress,
            frame,
            bytes,
        } = *came;
        let (station, pair) = self.pair(came)?;
        let found = self
            .table
            .alarm(now, pair, end, alarm.destination, alarm.source);
        let id = found?;
        if let Some(refs) = self.table.get(id).and_then(|ar| ar.alarms) {
            check_vlan(frame.tag, if high { refs.high } else { refs.low })?;
        }
        let forwarded = self.forward(ingress, (station, pair.controller), bytes);
        if let Body::Err { status, .. } = alarm.body {
            let status = PnioStatus::from_octets(status);
            let change = self.table.aborted(now, id, end, status);
            self.apply(now, change);
        }
        forwarded
    }

    /// Does what is due: frames that leave at their instant, data that is held, what is forgotten.
    pub fn handle_timeout(&mut self, now: Instant) {
        let tagging = self.settings.tagging;
        for flow in self.flows.0.values_mut() {
            if let Half::Receive(receiver) = &mut flow.half {
                let to = (
                    flow.pair.mac(flow.provider),
                    flow.pair.mac(flow.provider.other()),
                    flow.frame_id,
                    flow.tag,
                );
                emit(receiver, now, to, tagging, &mut self.output);
            }
        }
        self.calls.handle_timeout(now);
        let changes = self.table.handle_timeout(now);
        self.apply(now, changes);
    }

    /// When [`Bridge::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |flow: &Flow| match &flow.half {
            Half::Send(_) => None,
            Half::Receive(receiver) => receiver.poll_timeout(),
        };
        let flows = self.flows.0.values().filter_map(due).min();
        let calls = self.calls.poll_timeout();
        [flows, calls, self.table.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// A round trip of a tunnel was measured; ages are judged by it.
    pub fn set_round_trip(&mut self, link: LinkId, round_trip: Duration) {
        self.parties.set_round_trip(link, round_trip);
        for flow in self.flows.0.values_mut() {
            if let (true, Half::Receive(receiver)) = (flow.way.0 == link, &mut flow.half) {
                receiver.set_round_trip(round_trip);
            }
        }
    }

    /// What the cyclic data of an AR would need of the tunnel and of the operator's limit.
    pub(super) fn check_cadence(
        &self,
        station: usize,
        pair: Pair,
        connect: &ConnectRequest<'_>,
    ) -> Result<(), Uncarried> {
        let settings = &self.parties.stations[station].settings;
        let way = self.way(station, pair.controller);
        let room = way.map(|(link, _)| self.parties.max_datagram(link));
        for iocr in connect.iocrs() {
            let (reference, length) = (iocr.reference, iocr.data_length);
            // 0: there is no way for datagrams at the moment.
            if let Some(room) = room.filter(|room| *room > 0 && !fits(length, *room)) {
                return Err(Uncarried::Datagram {
                    reference,
                    length,
                    room,
                });
            }
            let cr = Cr::of(&iocr);
            let stream = Stream {
                channel: 0,
                ar: 0,
                frame_id: iocr.frame_id,
            };
            let config = receiver_config(settings, &cr, stream);
            let receiver = Receiver::new(config, self.epoch);
            receiver.map_err(|error| Uncarried::Cadence { reference, error })?;
        }
        Ok(())
    }

    /// Acts on what became of ARs.
    pub(super) fn apply(&mut self, now: Instant, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Opened(id) => {
                    self.rebuild_flows(now);
                    if let Some(ar) = self.table.get(id) {
                        let event = Event::ArUp {
                            fail_safe: self.fail_safe(ar),
                            shortfall: self.shortfall(ar),
                            ar: self.ar_name(ar),
                        };
                        self.output.event(event);
                    }
                }
                Change::Running(_) => {}
                Change::Ended(ar, why) => {
                    self.stop_flows(ar.id);
                    let event = Event::ArDown {
                        lasted: now.saturating_duration_since(ar.since),
                        ar: self.ar_name(&ar),
                        why,
                    };
                    self.output.event(event);
                }
            }
        }
    }

    /// After its provider is gone, how long an AR's data may stay in force: with hold its age limit
    /// and the watchdog, of the slower direction. `None` where nothing is held.
    pub fn fail_safe(&self, ar: &Ar) -> Option<Duration> {
        let station = self.parties.station_of(ar.pair.device)?;
        let hold = self.parties.stations[station].settings.hold?;
        let watchdog = ar.crs.iter().map(|cr| cr.watchdog).max()?;
        Some(hold + watchdog)
    }

    /// Whether the watchdog of a direction that this agent feeds is one that the way can't be
    /// relied on to keep; of several the one that falls shortest.
    pub fn shortfall(&self, ar: &Ar) -> Option<Shortfall> {
        let station = self.parties.station_of(ar.pair.device)?;
        let (link, _) = self.way(station, ar.pair.controller)?;
        let round_trip = self.parties.link(link)?.round_trip.unwrap_or_default();
        let settings = &self.parties.stations[station].settings;
        let fed = ar.crs.iter();
        let fed = fed.filter(|cr| cr.provider != self.settings.role.end());
        let short = fed.filter_map(|cr| Shortfall::of(cr, settings, round_trip));
        short.max_by_key(|short| short.needed.saturating_sub(short.watchdog))
    }

    fn ar_name(&self, ar: &Ar) -> Box<ArName> {
        let station = self.parties.station_of(ar.pair.device);
        let longest = |of: fn(&Cr) -> Duration| ar.crs.iter().map(of).max().unwrap_or_default();
        Box::new(ArName {
            uuid: ar.uuid,
            kind: ar.kind,
            controller: self.who(ar.pair.controller),
            station: station.map(|index| self.parties.stations[index].name().clone()),
            cycle: longest(|cr| cr.cycle),
            watchdog: longest(|cr| cr.watchdog),
        })
    }

    /// Nothing of this AR is sent or repeated any more.
    pub(super) fn stop_flows(&mut self, id: ArId) {
        self.flows.0.retain(|(ar, _), _| *ar != id);
    }

    /// Brings the flows in line with ARs and tunnels: what has another agent than before at its end
    /// begins anew, what has no way ends.
    pub(super) fn rebuild_flows(&mut self, now: Instant) {
        let mut kept = std::mem::take(&mut self.flows.0);
        for ar in self.table.iter() {
            if !matches!(ar.phase, Phase::Connected | Phase::Running) {
                continue;
            }
            let Some(station) = self.parties.station_of(ar.pair.device) else {
                continue;
            };
            let Some(way) = self.way(station, ar.pair.controller) else {
                continue;
            };
            let Some(peer) = self.parties.link(way.0).map(|link| link.peer.clone()) else {
                continue;
            };
            for (place, cr) in ar.crs.iter().enumerate() {
                let Some(frame_id) = cr.frame_id else {
                    continue;
                };
                let key = (ar.id, place);
                let stream = Stream {
                    channel: way.1,
                    ar: ar.tag(),
                    frame_id,
                };
                // Another tunnel of the same agent goes on with what the one before began.
                let same = |flow: &Flow| flow.peer == peer && flow.way.1 == way.1;
                let known = kept.remove(&key).filter(same);
                let known = known.map(|flow| Flow { way, ..flow });
                let flow = known.or_else(|| {
                    Some(Flow {
                        pair: ar.pair,
                        provider: cr.provider,
                        frame_id,
                        tag: cr.tag,
                        peer: peer.clone(),
                        way,
                        heard: None,
                        half: self.half(
                            now,
                            station,
                            cr,
                            stream,
                            self.parties.max_datagram(way.0),
                        )?,
                    })
                });
                self.flows.0.extend(flow.map(|flow| (key, flow)));
            }
        }
    }

    /// `None` for what [`Bridge::check_cadence`] would not have let pass.
    fn half(
        &self,
        now: Instant,
        station: usize,
        cr: &Cr,
        stream: Stream,
        max_datagram: usize,
    ) -> Option<Half> {
        let settings = &self.parties.stations[station].settings;
        if cr.provider != self.settings.role.end() {
            let receiver = Receiver::new(receiver_config(settings, cr, stream), now);
            return Some(Half::Receive(Box::new(receiver.ok()?)));
        }
        let since = now.saturating_duration_since(self.epoch).as_micros() as u64;
        let config = SenderConfig {
            stream,
            data_length: cr.data_length,
            counter_step: cr.counter_step,
            redundancy: settings.redundancy,
            spread: settings.spread,
            max_datagram,
            first_sequence: first_sequence(self.settings.seed ^ since),
        };
        Some(Half::Send(Box::new(Sender::new(config, now))))
    }

    /// The directions of an AR, for `status`.
    pub fn flows(&self, id: ArId) -> impl Iterator<Item = (usize, &Flow)> {
        let all = self.flows.0.range((id, 0)..=(id, usize::MAX));
        all.map(|((_, place), flow)| (*place, flow))
    }
}

/// Why an AR's data can't be carried as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Uncarried {
    #[error(
        "IOCR {reference}: {length} octets of data do not fit into a datagram of this tunnel, \
         which takes {room}"
    )]
    Datagram {
        reference: u16,
        length: u16,
        room: usize,
    },
    #[error("IOCR {reference}: {error}")]
    Cadence { reference: u16, error: ConfigError },
}

impl Uncarried {
    /// A faulty IOCRBlockReq: its DataLength, or its WatchdogFactor.
    pub(super) fn status(&self) -> PnioStatus {
        PnioStatus {
            code: 0xdb,
            decode: 0x81,
            code1: 2,
            code2: match self {
                Self::Datagram { .. } => 8,
                Self::Cadence { .. } => 15,
            },
        }
    }
}

fn receiver_config(settings: &StationSettings, cr: &Cr, stream: Stream) -> ReceiverConfig {
    let play_out = cr.cycle * u32::from(settings.play_out);
    ReceiverConfig {
        stream,
        data_length: cr.data_length,
        cycle: cr.cycle,
        watchdog: cr.watchdog,
        play_out: (settings.play_out > 0).then_some(play_out),
        hold: settings.hold.map(|age_limit| Hold {
            age_limit,
            fail_safe_limit: settings.fail_safe_limit.unwrap_or(Duration::MAX),
        }),
    }
}

/// Tags carry a priority, and VLAN 0 or the one that the AR's own tag header names.
fn check_vlan(tag: Option<Tag>, named: Tag) -> Result<(), DropReason> {
    match tag.map_or(0, Tag::vlan) {
        0 => Ok(()),
        vlan if vlan == named.vlan() => Ok(()),
        _ => Err(DropReason::Vlan),
    }
}

/// Spreads a seed over 32 bits (the finaliser of splitmix64).
fn first_sequence(seed: u64) -> u32 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}

/// Puts on the wire what is due.
fn emit(
    receiver: &mut Receiver,
    now: Instant,
    (src, dst, frame_id, named): (Mac, Mac, FrameId, Tag),
    tagging: Tagging,
    output: &mut OutputQueue,
) {
    while let Some(due) = receiver.poll_frame(now) {
        let cadence::Frame {
            tag,
            cycle_counter,
            data_status,
            data,
        } = due.frame;
        // The other agent has no say in what VLAN a frame gets into on this wire.
        let tag = tag.filter(|_| check_vlan(tag, named).is_ok());
        let added = (tagging == Tagging::Priority).then(|| Tag::priority_only(PRIORITY));
        let header = Frame {
            dst,
            src,
            tag: tag.or(added),
            ethertype: eth::PROFINET,
            payload: &[],
        };
        output.wire_with(|out| {
            let start = out.len();
            header.put_header(out);
            out.extend_from_slice(&frame_id.0.to_be_bytes());
            out.extend_from_slice(data);
            out.extend_from_slice(&cycle_counter.to_be_bytes());
            // TransferStatus is 0: nothing else crosses.
            out.extend_from_slice(&[data_status.0, 0]);
            eth::pad(out, start);
        });
    }
}
