//! When the chain is signed, and how.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chain::Hash;
use crate::record::{Head, Kind, Record, Ticket};

/// How long a record may stay without a signed checkpoint after it.
const WITHIN: Duration = Duration::from_secs(60);

/// How many records may.
const RECORDS: u64 = 4096;

/// Signs checkpoints with the agent's key. Called on the journal's thread.
pub trait Sign: Send + Sync {
    /// The certificate of the key, DER in base64.
    fn certificate(&self) -> Box<str>;
    /// The signature over `text`, in base64; none where the key does not sign.
    fn sign(&self, text: &str) -> Option<Box<str>>;
}

/// What a checkpoint's signature is over: the log of `agent` up to the record `seq`.
pub fn signed_text(agent: &str, seq: Ticket, hash: &Hash) -> String {
    format!("fieldlock-audit-checkpoint-1\n{agent}\n{seq}\n{hash}\n")
}

pub(super) struct Checkpoints {
    due: Option<Instant>,
    /// Made and not yet on the disk.
    pub(super) made: Option<Head>,
    /// Records since the last one that are worth a signature. Checkpoints are not, be they ours
    /// or of the other end, or two idle agents would go on to sign what each says of the other.
    unsigned: u64,
    signer: Option<Arc<dyn Sign>>,
    /// Whose certificate the current file has.
    shown: Option<Arc<dyn Sign>>,
}

impl Checkpoints {
    /// The first is due with the first record, so that the other end hears early of a log that
    /// was cut while the agent did not run.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: Some(now),
            made: None,
            unsigned: 0,
            signer: None,
            shown: None,
        }
    }

    /// When the next is to be made.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.unsigned > 0)
    }

    pub(super) fn count(&mut self, kind: Kind) {
        if !matches!(kind, Kind::Checkpoint | Kind::PeerCheckpoint) {
            self.unsigned += 1;
        }
    }

    /// After records were counted.
    pub(super) fn plan(&mut self, now: Instant) {
        if self.unsigned >= RECORDS {
            self.due = Some(now);
        } else if self.unsigned > 0 {
            self.due.get_or_insert(now + WITHIN);
        }
    }

    /// The record to write, if it is time or `at_once`, and there is anything to sign and
    /// anybody who signs.
    pub(super) fn make(
        &mut self,
        now: Instant,
        at_once: bool,
        signer: impl FnOnce() -> Option<Arc<dyn Sign>>,
    ) -> Option<Record> {
        if self.unsigned == 0 || !at_once && self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        self.signer = signer();
        if self.signer.is_none() {
            self.due = Some(now + WITHIN);
            return None;
        }
        Some(Record::new(Kind::Checkpoint))
    }

    /// What the checkpoint says that follows the record `seq` with this hash.
    pub(super) fn sign(&mut self, agent: &str, seq: Ticket, hash: Hash) -> Box<Head> {
        self.unsigned = 0;
        let mut head = Head::new(seq, hash);
        if let Some(signer) = &self.signer {
            head.signature = signer.sign(&signed_text(agent, seq, &hash));
            self.made = Some(head.clone());
            let shown = self.shown.as_ref();
            if shown.is_none_or(|shown| !Arc::ptr_eq(shown, signer)) {
                head.certificate = Some(signer.certificate());
                self.shown = Some(Arc::clone(signer));
            }
        }
        Box::new(head)
    }

    /// Each file can be checked by itself.
    pub(super) fn begin_file(&mut self) {
        self.shown = None;
    }
}
