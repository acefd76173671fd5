//! The table of application relations.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::check::{ASSIGNED_BY_DEVICE, MAX_CRS, Unfit};
use super::{AlarmRefs, Ar, ArId, Cr, End, Ended, Pair, Phase};
use crate::cm::{ConnectRequest, ConnectResponse};
use crate::frame_id::{FrameId, Kind};
use crate::mac::Mac;
use crate::rpc::{CallId, Uuid};
use crate::status::PnioStatus;

/// A Connect without an answer for this long is forgotten; controllers give up sooner.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// An AR with data that is silent in both directions: its watchdog, 1.92 s at most, is long over.
const DATA_PATIENCE: Duration = Duration::from_secs(10);
/// An AR of records only may pause; its own activity time-out counts where it is longer.
const RECORD_PATIENCE: Duration = Duration::from_secs(120);
/// For how long frames of an AR that is over are known as such: its ends go on until they notice.
pub(super) const AFTER: Duration = Duration::from_secs(5);
/// ARs that are over and known as such.
const MAX_PAST: usize = 64;

/// Something that does not fit the ARs that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("{0} ARs are open, no more are allowed")]
    TooMany(usize),
    #[error("no such AR is open between the two stations")]
    UnknownAr,
    #[error("another AR is open under the same UUID")]
    SameUuid,
    #[error("FrameID of no AR that is open between the two stations")]
    UnknownFrameId,
    #[error("alarm of no AR that is open between the two stations")]
    UnknownAlarm,
    #[error("data of an AR whose Connect the device has not answered yet")]
    Early,
    #[error("data or alarm of an AR that is over")]
    Over,
}

impl Refused {
    /// CMRPC errors: 4 "out of AR resources", 5 "AR UUID unknown".
    pub fn status(self, code: u8) -> PnioStatus {
        let code2 = match self {
            Self::TooMany(_) => 4,
            Self::UnknownAr
            | Self::UnknownFrameId
            | Self::UnknownAlarm
            | Self::Early
            | Self::Over => 5,
            Self::SameUuid => 6,
        };
        PnioStatus {
            code,
            decode: 0x81,
            code1: 0x40,
            code2,
        }
    }
}

/// What became of an AR.
#[derive(Debug, Clone)]
pub enum Change {
    /// The device accepted: its data may flow.
    Opened(ArId),
    /// Its application is ready.
    Running(ArId),
    /// It is over, and no more in the table.
    Ended(Box<Ar>, Ended),
}

/// Where a cyclic frame belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    ar: ArId,
    cr: usize,
}

/// What the ends of an AR that is over may still send.
#[derive(Debug)]
struct Past {
    until: Instant,
    pair: Pair,
    /// By their providers.
    frames: Vec<(End, FrameId)>,
    alarms: Option<AlarmRefs>,
}

/// All ARs that an agent carries.
///
/// The calls follow the messages that were let through: [`Table::connect`] and so on. The order of
/// a message and its effect is the order of the wire. `now` never decreases.
#[derive(Debug)]
pub struct Table {
    max: usize,
    next: u32,
    ars: Vec<Ar>,
    /// (provider, consumer, FrameID).
    frames: HashMap<(Mac, Mac, FrameId), Place>,
    /// Oldest first.
    past: VecDeque<Past>,
}

impl Table {
    /// `max` bounds the ARs, those that are being connected included, but for one that is connected
    /// anew in the place of an older; one costs about 1 KiB.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            next: 0,
            ars: Vec::new(),
            frames: HashMap::new(),
            past: VecDeque::new(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Ar> {
        self.ars.iter()
    }

    pub fn get(&self, id: ArId) -> Option<&Ar> {
        self.ars.iter().find(|ar| ar.id == id)
    }

    pub fn find(&self, pair: Pair, uuid: Uuid) -> Option<&Ar> {
        let index = self.index(pair, uuid)?;
        self.ars.get(index)
    }

    pub fn len(&self) -> usize {
        self.ars.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ars.is_empty()
    }

    /// A Connect that [`check`](super::check()) has passed goes to the device, as `call` of `object`.
    /// The same call for the same is a repetition of the RPC layer. Any other begins an AR, also
    /// under a UUID and a session key that are known: many controllers keep both when they start
    /// anew. The old one stays until the device has answered.
    pub fn connect(
        &mut self,
        now: Instant,
        pair: Pair,
        (call, object): (CallId, Uuid),
        request: &ConnectRequest<'_>,
    ) -> Result<(), Refused> {
        let ar = asked(now, ArId(self.next), pair, (call, object), request);
        if self.is_of_others(pair, ar.uuid) {
            return Err(Refused::SameUuid);
        }
        let mut known = self.ars.iter_mut();
        if let Some(known) = known.find(|known| known.is_repeated_by(&ar)) {
            known.last = now;
            return Ok(());
        }
        // Nobody waits for the answer to an earlier one any more.
        self.ars
            .retain(|known| !ar.replaces(known) || known.phase != Phase::Connecting);
        // Datagrams tell ARs of one device apart by the tag.
        let clash = |known: &Ar| {
            known.uuid != ar.uuid && known.pair.device == pair.device && known.tag() == ar.tag()
        };
        if self.ars.iter().any(clash) {
            return Err(Refused::SameUuid);
        }
        // What this one replaces does not count, up to once more as many in all.
        let others = self.ars.iter().filter(|known| !ar.replaces(known));
        if others.count() >= self.max || self.ars.len() >= 2 * self.max {
            return Err(Refused::TooMany(self.max));
        }
        self.ars.push(ar);
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// The answer to the Connect that was `call` goes to the controller. With it the FrameIDs are
    /// known, and data may follow at once.
    pub fn connected(
        &mut self,
        now: Instant,
        pair: Pair,
        (call, uuid): (CallId, Uuid),
        response: &ConnectResponse<'_>,
    ) -> Vec<Change> {
        let of_call = |ar: &Ar| (ar.pair, ar.uuid, ar.call) == (pair, uuid, call);
        let awaited = |ar: &Ar| of_call(ar) && ar.phase == Phase::Connecting;
        let index = match self.ars.iter().position(awaited) {
            Some(index) => index,
            // A device that has started anew may answer a repetition otherwise than the first time.
            None => match self.ars.iter().position(of_call) {
                Some(index) if self.ars[index].is_answered_otherwise(response) => {
                    self.begin_anew(now, index)
                }
                _ => return Vec::new(),
            },
        };
        let status = response.status;
        if !status.is_ok() {
            return vec![self.remove(now, index, Ended::Refused(status))];
        }
        if let Err(unfit) = self.adopt(index, response) {
            return vec![self.remove(now, index, Ended::Unfit(unfit))];
        }
        let ar = &mut self.ars[index];
        ar.phase = Phase::Connected;
        ar.last = now;
        let new = ar.clone();
        for (place, cr) in new.crs.iter().enumerate() {
            let Some(frame_id) = cr.frame_id else {
                continue;
            };
            let (provider, consumer) = (pair.mac(cr.provider), pair.mac(cr.provider.other()));
            let place = Place {
                ar: new.id,
                cr: place,
            };
            self.frames.insert((provider, consumer, frame_id), place);
        }
        let replaced = |other: &Ar| new.replaces(other).then_some(Ended::Replaced);
        let mut changes = self.remove_where(now, replaced);
        changes.push(Change::Opened(new.id));
        changes
    }

    /// Another AR beside the one at `index`, as that one was asked for.
    fn begin_anew(&mut self, now: Instant, index: usize) -> usize {
        let ar = Ar {
            id: ArId(self.next),
            phase: Phase::Connecting,
            since: now,
            ..self.ars[index].clone()
        };
        self.next = self.next.wrapping_add(1);
        self.ars.push(ar);
        self.ars.len() - 1
    }

    /// Takes over what the device assigned.
    fn adopt(&mut self, index: usize, response: &ConnectResponse<'_>) -> Result<(), Unfit> {
        let (pair, uuid) = (self.ars[index].pair, self.ars[index].uuid);
        if response.ar().is_none_or(|answer| answer.ar_uuid != uuid) {
            return Err(Unfit::OtherAr);
        }
        for answer in response.iocrs() {
            let ar = &mut self.ars[index];
            let cr = ar
                .crs
                .iter_mut()
                .find(|cr| cr.reference == answer.reference);
            let Some(cr) = cr else { continue };
            // Only what it consumes itself is the device's to name.
            if cr.provider == End::Controller {
                cr.frame_id = Some(answer.frame_id);
            }
        }
        if let (Some(refs), Some(answer)) =
            (&mut self.ars[index].alarms, response.alarm_reference())
        {
            refs.device = Some(answer);
        }
        let ar = &self.ars[index];
        for (place, cr) in ar.crs.iter().enumerate() {
            let reference = cr.reference;
            let frame_id = cr.frame_id.unwrap_or(ASSIGNED_BY_DEVICE);
            if frame_id.kind() != Kind::Cyclic {
                return Err(Unfit::FrameId {
                    reference,
                    frame_id,
                });
            }
            let key = (
                pair.mac(cr.provider),
                pair.mac(cr.provider.other()),
                frame_id,
            );
            let taken = self.frames.get(&key).and_then(|taken| self.get(taken.ar));
            // An older AR may be about to be replaced.
            if taken.is_some_and(|taken| !ar.replaces(taken)) {
                return Err(Unfit::TakenFrameId {
                    reference,
                    frame_id,
                });
            }
            let twice = ar.crs[..place]
                .iter()
                .any(|earlier| earlier.provider == cr.provider && earlier.frame_id == cr.frame_id);
            if twice {
                return Err(Unfit::SameIocr);
            }
        }
        Ok(())
    }

    /// Whether an AR under this UUID is one of other stations.
    pub fn is_of_others(&self, pair: Pair, uuid: Uuid) -> bool {
        let of_others = |ar: &Ar| ar.uuid == uuid && ar.pair != pair;
        self.ars.iter().any(of_others)
    }

    /// Something about an AR passes, from either end.
    pub fn touch(&mut self, now: Instant, pair: Pair, uuid: Uuid) -> Result<ArId, Refused> {
        let index = self.index(pair, uuid).ok_or(Refused::UnknownAr)?;
        let ar = &mut self.ars[index];
        ar.last = now;
        Ok(ar.id)
    }

    /// The controller has taken the device's ApplicationReady.
    pub fn ready(&mut self, now: Instant, pair: Pair, uuid: Uuid) -> Option<Change> {
        let index = self.index(pair, uuid)?;
        let ar = &mut self.ars[index];
        ar.last = now;
        (ar.phase == Phase::Connected).then(|| {
            ar.phase = Phase::Running;
            Change::Running(ar.id)
        })
    }

    /// The controller asks for the release; what is cyclic ends here, the AR with the answer.
    pub fn releasing(&mut self, now: Instant, pair: Pair, uuid: Uuid) -> Option<ArId> {
        let index = self.index(pair, uuid)?;
        let ar = &mut self.ars[index];
        ar.phase = Phase::Releasing;
        ar.last = now;
        let id = ar.id;
        self.frames.retain(|_, place| place.ar != id);
        Some(id)
    }

    /// The device answered the release.
    pub fn released(&mut self, now: Instant, pair: Pair, uuid: Uuid) -> Option<Change> {
        let index = self.index(pair, uuid)?;
        let releasing = self.ars[index].phase == Phase::Releasing;
        releasing.then(|| self.remove(now, index, Ended::Released))
    }

    /// One end aborted an AR. Some devices do so on the way to answering its release.
    pub fn aborted(
        &mut self,
        now: Instant,
        id: ArId,
        by: End,
        status: PnioStatus,
    ) -> Option<Change> {
        let why = match self.get(id)?.phase {
            Phase::Releasing => Ended::Released,
            _ => Ended::Aborted { by, status },
        };
        self.end(now, id, why)
    }

    /// Whose cyclic frame is this?
    pub fn cyclic(
        &mut self,
        now: Instant,
        src: Mac,
        dst: Mac,
        id: FrameId,
    ) -> Result<(&Ar, usize), Refused> {
        let Some(place) = self.frames.get(&(src, dst, id)).copied() else {
            return Err(self.stray(now, src, dst, id));
        };
        let ar = self.ars.iter_mut().find(|ar| ar.id == place.ar);
        let ar = ar.ok_or(Refused::UnknownFrameId)?;
        ar.last = now;
        Ok((ar, place.cr))
    }

    /// Whose alarm is this? `to` and `from_ref` are the endpoint references of its header.
    pub fn alarm(
        &mut self,
        now: Instant,
        pair: Pair,
        from: End,
        to: u16,
        from_ref: u16,
    ) -> Result<ArId, Refused> {
        let belongs = |of: Pair, refs: Option<AlarmRefs>| {
            let refs = refs.and_then(|refs| Some((refs.controller, refs.device?)));
            let ends = match from {
                End::Controller => (from_ref, to),
                End::Device => (to, from_ref),
            };
            of == pair && refs == Some(ends)
        };
        let mut ars = self.ars.iter_mut();
        if let Some(ar) = ars.find(|ar| belongs(ar.pair, ar.alarms)) {
            ar.last = now;
            return Ok(ar.id);
        }
        let mut past = self.past.iter().filter(|past| past.until > now);
        match past.any(|past| belongs(past.pair, past.alarms)) {
            true => Err(Refused::Over),
            false => Err(Refused::UnknownAlarm),
        }
    }

    /// Ends an AR: the agent withdraws it.
    pub fn end(&mut self, now: Instant, id: ArId, why: Ended) -> Option<Change> {
        let index = self.ars.iter().position(|ar| ar.id == id)?;
        Some(self.remove(now, index, why))
    }

    /// Forgets what is silent.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        self.remove_where(now, |ar| {
            let silence = now.saturating_duration_since(ar.last);
            (silence >= patience(ar)).then_some(Ended::Silent(silence))
        })
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ars.iter().map(|ar| ar.last + patience(ar)).min()
    }

    /// The newest under this UUID.
    fn index(&self, pair: Pair, uuid: Uuid) -> Option<usize> {
        let is = |ar: &Ar| ar.pair == pair && ar.uuid == uuid;
        self.ars.iter().rposition(is)
    }

    /// Why a cyclic frame is of no AR that has data.
    fn stray(&self, now: Instant, src: Mac, dst: Mac, id: FrameId) -> Refused {
        let between = |pair: Pair, provider: End| {
            (pair.mac(provider), pair.mac(provider.other())) == (src, dst)
        };
        let of = |phase: Phase| {
            let carries = |ar: &Ar, cr: &Cr| {
                cr.frame_id == Some(id) && between(ar.pair, cr.provider) && ar.phase == phase
            };
            let mut ars = self.ars.iter();
            ars.any(|ar| ar.crs.iter().any(|cr| carries(ar, cr)))
        };
        let mut past = self.past.iter().filter(|past| past.until > now);
        let of_past = |past: &Past| {
            let mut frames = past.frames.iter();
            frames.any(|(provider, known)| *known == id && between(past.pair, *provider))
        };
        if of(Phase::Connecting) {
            Refused::Early
        } else if of(Phase::Releasing) || past.any(of_past) {
            Refused::Over
        } else {
            Refused::UnknownFrameId
        }
    }

    fn remove_where(&mut self, now: Instant, why: impl Fn(&Ar) -> Option<Ended>) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut index = 0;
        while let Some(ar) = self.ars.get(index) {
            match why(ar) {
                Some(why) => changes.push(self.remove(now, index, why)),
                None => index += 1,
            }
        }
        changes
    }

    fn remove(&mut self, now: Instant, index: usize, why: Ended) -> Change {
        let ar = self.ars.remove(index);
        self.frames.retain(|_, place| place.ar != ar.id);
        if ar.phase != Phase::Connecting {
            if self.past.len() == MAX_PAST {
                self.past.pop_front();
            }
            let frames = ar.crs.iter();
            let frames = frames.filter_map(|cr| Some((cr.provider, cr.frame_id?)));
            self.past.push_back(Past {
                until: now + AFTER,
                pair: ar.pair,
                frames: frames.collect(),
                alarms: ar.alarms,
            });
        }
        Change::Ended(Box::new(ar), why)
    }
}

fn patience(ar: &Ar) -> Duration {
    match ar.phase {
        Phase::Connecting => CONNECT_PATIENCE,
        Phase::Releasing => DATA_PATIENCE,
        Phase::Connected | Phase::Running => ar.patience,
    }
}

/// The AR that a Connect asks for.
fn asked(
    now: Instant,
    id: ArId,
    pair: Pair,
    (call, object): (CallId, Uuid),
    request: &ConnectRequest<'_>,
) -> Ar {
    let ar = request.ar();
    let iocrs = request.iocrs().take(MAX_CRS);
    let crs: Vec<Cr> = iocrs.map(|iocr| Cr::of(&iocr)).collect();
    let own = Duration::from_millis(100) * u32::from(ar.activity_timeout_100ms);
    Ar {
        id,
        uuid: ar.ar_uuid,
        session_key: ar.session_key,
        call,
        object,
        pair,
        kind: ar.ar_type,
        device_access: ar.properties.device_access(),
        controller_name: ar.name(),
        phase: Phase::Connecting,
        patience: match crs.is_empty() {
            true => own.max(RECORD_PATIENCE),
            false => DATA_PATIENCE,
        },
        crs,
        alarms: request.alarm_cr().map(|alarm| AlarmRefs::of(&alarm)),
        since: now,
        last: now,
    }
}
