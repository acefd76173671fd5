//! Checkpoints of the audit log: signed with the agent's key, told to the other end of each
//! tunnel, and kept there. Whoever cuts the end off one log has the other against them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fieldlock_audit::{Hash, Head, Kind, Record};
use fieldlock_pki::Identity;
use fieldlock_session::Checkpoint;

use crate::ledger::{Alarm, Ledger};

/// So many checkpoints of a peer are kept in a minute: a hostile one could fill this log with its
/// own.
const MOST: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// What this agent knows of the logs at the other ends. One entry for each identity that ever
/// proved itself here, so the CA bounds it.
#[derive(Debug, Default)]
pub struct PeerLogs {
    known: RefCell<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    seq: u64,
    /// Kept since then.
    kept: u32,
    since: Instant,
}

impl PeerLogs {
    /// Puts what `peer` says of its log on record here. One that is shorter than it was is an
    /// alarm until this agent is started anew.
    pub fn take(&self, ledger: &Ledger, peer: &Identity, told: &Checkpoint, now: Instant) {
        let mut known = self.known.borrow_mut();
        let before = known.entry(peer.uri()).or_insert(Known {
            seq: 0,
            kept: 0,
            since: now,
        });
        if now.duration_since(before.since) >= MINUTE {
            (before.kept, before.since) = (0, now);
        }
        if told.seq == before.seq || before.kept >= MOST {
            return;
        }
        let name = peer.name.as_str();
        if told.seq < before.seq {
            let text = format!(
                "the audit log of {name} ends with record {}, and had {} before: its end was cut \
                 off, or it was started over; compare it by `fieldlock audit verify --against`",
                told.seq, before.seq
            );
            ledger.raise(Alarm::PeerLogCut, name, &text);
        }
        before.seq = before.seq.max(told.seq);
        before.kept += 1;
        drop(known);
        let signature = BASE64_STANDARD.encode(&told.signature);
        ledger.note(Record {
            tunnel: Some(peer.uri().into()),
            head: Some(Box::new(Head {
                agent: Some(name.into()),
                signature: (!signature.is_empty()).then(|| signature.into()),
                ..Head::new(told.seq, Hash::from_octets(&told.hash))
            })),
            ..Record::new(Kind::PeerCheckpoint)
        });
    }
}
