//! The table of application relations.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::check::{ASSIGNED_BY_DEVICE, MAX_CRS, Unfit};
use super::{AlarmRefs, Ar, ArId, Cr, End, Ended, Pair, Phase, tag_of};
use crate::cm::{ConnectRequest, ConnectResponse};
use crate::frame_id::{FrameId, Kind};
use crate::mac::Mac;
use crate::rpc::Uuid;
use crate::status::PnioStatus;

/// A Connect without an answer for this long is forgotten; controllers give up sooner.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// An AR with data that is silent in both directions: its watchdog, 1.92 s at most, is long over.
const DATA_PATIENCE: Duration = Duration::from_secs(10);
/// ARs of one pair of stations: one or two are common, and a few for records.
const MAX_OF_PAIR: usize = 8;
/// An AR of records only may pause; its own activity time-out counts where it is longer.
const RECORD_PATIENCE: Duration = Duration::from_secs(120);

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
}

impl Refused {
    /// CMRPC errors: 4 "out of AR resources", 5 "AR UUID unknown".
    pub fn status(self, code: u8) -> PnioStatus {
        let code2 = match self {
            Self::TooMany(_) => 4,
            Self::UnknownAr | Self::UnknownFrameId | Self::UnknownAlarm => 5,
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

    /// A Connect that [`check`](super::check()) has passed goes to the device. The same one again
    /// is a repetition of the RPC layer; one with another session key begins the AR anew, and the
    /// old one stays until the device has answered.
    pub fn connect(
        &mut self,
        now: Instant,
        pair: Pair,
        request: &ConnectRequest<'_>,
    ) -> Result<(), Refused> {
        let ar = request.ar();
        let uuid = ar.ar_uuid;
        if self.is_of_others(pair, uuid) {
            return Err(Refused::SameUuid);
        }
        let again = |known: &&mut Ar| {
            let session = known.session_key == ar.session_key;
            known.uuid == uuid && session && known.phase != Phase::Releasing
        };
        if let Some(known) = self.ars.iter_mut().find(again) {
            known.last = now;
            return Ok(());
        }
        let access = ar.properties.device_access();
        let replaces = |known: &Ar| {
            let same = known.kind == ar.ar_type && !access && !known.device_access;
            known.pair == pair && (known.uuid == uuid || same)
        };
        // Nobody waits for the answer to an earlier one any more.
        self.ars
            .retain(|known| !replaces(known) || known.phase != Phase::Connecting);
        // Datagrams tell ARs of one device apart by the tag.
        let tag = tag_of(&uuid);
        let clash = |known: &Ar| {
            known.uuid != uuid && known.pair.device == pair.device && known.tag() == tag
        };
        if self.ars.iter().any(clash) {
            return Err(Refused::SameUuid);
        }
        // What this one replaces does not count.
        let others = self.ars.iter().filter(|known| !replaces(known));
        if others.clone().count() >= self.max {
            return Err(Refused::TooMany(self.max));
        }
        if others.filter(|known| known.pair == pair).count() >= MAX_OF_PAIR {
            return Err(Refused::TooMany(MAX_OF_PAIR));
        }
        let crs: Vec<Cr> = request
            .iocrs()
            .take(MAX_CRS)
            .map(|iocr| Cr::of(&iocr))
            .collect();
        let own = Duration::from_millis(100) * u32::from(ar.activity_timeout_100ms);
        self.ars.push(Ar {
            id: ArId(self.next),
            uuid,
            session_key: ar.session_key,
            pair,
            kind: ar.ar_type,
            device_access: access,
            controller_name: ar.name(),
            phase: Phase::Connecting,
            patience: match crs.is_empty() {
                true => own.max(RECORD_PATIENCE),
                false => DATA_PATIENCE,
            },
            crs,
            alarms: request.alarm_cr().map(|alarm| AlarmRefs {
                controller: alarm.local_reference,
                device: None,
            }),
            since: now,
            last: now,
        });
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// The answer to a Connect goes to the controller. With it the FrameIDs are known, and data
    /// may follow at once.
    pub fn connected(
        &mut self,
        now: Instant,
        pair: Pair,
        uuid: Uuid,
        response: &ConnectResponse<'_>,
    ) -> Vec<Change> {
        let awaited = |ar: &Ar| ar.pair == pair && ar.uuid == uuid && ar.phase == Phase::Connecting;
        let Some(index) = self.ars.iter().position(awaited) else {
            return Vec::new();
        };
        let status = response.status;
        if !status.is_ok() {
            return vec![self.remove(index, Ended::Refused(status))];
        }
        if let Err(unfit) = self.adopt(index, response) {
            return vec![self.remove(index, Ended::Unfit(unfit))];
        }
        let ar = &mut self.ars[index];
        ar.phase = Phase::Connected;
        ar.last = now;
        let (id, kind, access) = (ar.id, ar.kind, ar.device_access);
        for (place, cr) in ar.crs.iter().enumerate() {
            let Some(frame_id) = cr.frame_id else {
                continue;
            };
            let (provider, consumer) = (pair.mac(cr.provider), pair.mac(cr.provider.other()));
            let place = Place { ar: id, cr: place };
            self.frames.insert((provider, consumer, frame_id), place);
        }
        // A device has one AR of a kind with a controller: this one took the place of an older.
        let replaced = |other: &Ar| {
            let same = other.uuid == uuid || (other.kind == kind && !access);
            other.id != id && other.pair == pair && same
        };
        let mut changes = self.remove_where(|ar| replaced(ar).then_some(Ended::Replaced));
        changes.push(Change::Opened(id));
        changes
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
            // An older AR of the same two stations is about to be replaced.
            let other = taken.is_some_and(|taken| {
                taken.uuid != uuid && (taken.kind != ar.kind || ar.device_access)
            });
            let twice = ar.crs[..place]
                .iter()
                .any(|earlier| earlier.provider == cr.provider && earlier.frame_id == cr.frame_id);
            if other || twice {
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
    pub fn released(&mut self, pair: Pair, uuid: Uuid) -> Option<Change> {
        let index = self.index(pair, uuid)?;
        (self.ars[index].phase == Phase::Releasing).then(|| self.remove(index, Ended::Released))
    }

    /// Whose cyclic frame is this?
    pub fn cyclic(
        &mut self,
        now: Instant,
        src: Mac,
        dst: Mac,
        id: FrameId,
    ) -> Result<(&Ar, usize), Refused> {
        let place = self.frames.get(&(src, dst, id)).copied();
        let place = place.ok_or(Refused::UnknownFrameId)?;
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
        let belongs = |ar: &&mut Ar| {
            let Some(refs) = ar.alarms else { return false };
            let Some(device) = refs.device else {
                return false;
            };
            let (source, destination) = match from {
                End::Controller => (refs.controller, device),
                End::Device => (device, refs.controller),
            };
            ar.pair == pair && destination == to && source == from_ref
        };
        let ar = self.ars.iter_mut().find(belongs);
        let ar = ar.ok_or(Refused::UnknownAlarm)?;
        ar.last = now;
        Ok(ar.id)
    }

    /// Ends an AR: an abort has passed, or the agent withdraws it.
    pub fn end(&mut self, id: ArId, why: Ended) -> Option<Change> {
        let index = self.ars.iter().position(|ar| ar.id == id)?;
        Some(self.remove(index, why))
    }

    /// Forgets what is silent.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        self.remove_where(|ar| {
            let silence = now.saturating_duration_since(ar.last);
            (silence >= patience(ar)).then_some(Ended::Silent(silence))
        })
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ars.iter().map(|ar| ar.last + patience(ar)).min()
    }

    fn index(&self, pair: Pair, uuid: Uuid) -> Option<usize> {
        self.ars
            .iter()
            .position(|ar| ar.pair == pair && ar.uuid == uuid)
    }

    fn remove_where(&mut self, why: impl Fn(&Ar) -> Option<Ended>) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut index = 0;
        while let Some(ar) = self.ars.get(index) {
            match why(ar) {
                Some(why) => changes.push(self.remove(index, why)),
                None => index += 1,
            }
        }
        changes
    }

    fn remove(&mut self, index: usize, why: Ended) -> Change {
        let ar = self.ars.remove(index);
        self.frames.retain(|_, place| place.ar != ar.id);
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
