//! What an agent puts on record: the audit log as its other parts use it, and alarms.

mod describe;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{
    Decision, DenialFilter, Head, Journal, JournalError, Kind, Options, Party, ReadFilter, Reads,
    Record, Recovered, Sign, State, Ticket, Unavailable,
};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tracing::{info, warn};

pub(crate) use self::describe::{answered, describe, describe_read};
use crate::settings;

/// Names of the conditions that are alarms while they last.
pub(crate) mod alarm {
    pub(crate) const AUDIT: &str = "audit-log-unwritable";
    pub(crate) const POLICY: &str = "policy-refused";
    pub(crate) const BUNDLE_MISSING: &str = "policy-bundle-missing";
    pub(crate) const BUNDLE: &str = "policy-bundle-refused";
    pub(crate) const CONFIGURATION: &str = "configuration-refused";
    pub(crate) const TRUST: &str = "trust-refused";
    pub(crate) const CRL: &str = "crl-expired";
    pub(crate) const ROOT_CRL: &str = "root-crl-expires";
    pub(crate) const CERTIFICATE: &str = "certificate-expires";
    pub(crate) const REVOKED: &str = "certificate-revoked";
    pub(crate) const RENEWAL: &str = "renewal-failed";
    pub(crate) const AUTHORITY: &str = "ca-unreachable";
    pub(crate) const CLOCK: &str = "clock-wrong";
    pub(crate) const DUPLICATE: &str = "duplicate-identity";
    pub(crate) const PEER_LOG: &str = "peer-log-cut";
    pub(crate) const FIELDBUS: &str = "profinet-interface-down";
    pub(crate) const CHAIN: &str = "audit-log-changed";
    pub(crate) const FALLBACK: &str = "fallback-transport";

    pub(crate) const ALL: &[&str] = &[
        AUDIT,
        POLICY,
        BUNDLE_MISSING,
        BUNDLE,
        CONFIGURATION,
        TRUST,
        CRL,
        ROOT_CRL,
        CERTIFICATE,
        REVOKED,
        RENEWAL,
        AUTHORITY,
        CLOCK,
        DUPLICATE,
        PEER_LOG,
        FIELDBUS,
        CHAIN,
        FALLBACK,
    ];
}

/// The audit log, seen from the data path's thread.
pub(crate) struct Ledger {
    journal: Journal,
    denials: RefCell<DenialFilter>,
    reads: RefCell<ReadFilter>,
    /// SHA-256 of the policy in force, as records carry it.
    policy: RefCell<Arc<str>>,
    /// The journal's thread has something to tell.
    progress: Arc<Notify>,
    /// A refusal is held back: the timer must be set.
    held_back: Notify,
    /// Who wants to hear that records became durable, or can't.
    listeners: RefCell<Vec<Rc<Notify>>>,
    alarms: RefCell<BTreeMap<String, Alarm>>,
    not_recorded: Cell<u64>,
    /// The last record that was taken; one that may not be on the disk yet, and since when.
    last: Cell<Ticket>,
    waiting: Cell<Option<(Ticket, Instant)>>,
    /// The last checkpoint of the log.
    checkpoint: RefCell<Option<Head>>,
    new_checkpoint: Notify,
}

/// Folder of the audit log in the state directory.
pub const FOLDER: &str = "audit";

/// A condition that lasts.
#[derive(Debug, Clone)]
pub(crate) struct Alarm {
    pub(crate) text: String,
    pub(crate) since: Instant,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the log under `state` and settles what an earlier run left open.
    pub(crate) fn open(
        state: &Path,
        agent: &str,
        settings: &settings::audit::Audit,
    ) -> Result<Rc<Self>, JournalError> {
        let progress = Arc::new(Notify::new());
        let notify = {
            let progress = progress.clone();
            move |_| progress.notify_one()
        };
        let options = Options {
            limits: settings.limits(),
            ..Options::new(state.join(FOLDER), agent)
        };
        let (journal, recovered) = Journal::open(options, notify)?;
        let ledger = Rc::new(Self {
            journal,
            denials: RefCell::default(),
            reads: RefCell::new(ReadFilter::new(settings.reads())),
            policy: RefCell::new("".into()),
            progress,
            held_back: Notify::new(),
            listeners: RefCell::default(),
            alarms: RefCell::default(),
            not_recorded: Cell::new(0),
            last: Cell::new(0),
            waiting: Cell::new(None),
            checkpoint: RefCell::default(),
            new_checkpoint: Notify::new(),
        });
        ledger.settle(recovered);
        Ok(ledger)
    }

    fn settle(&self, recovered: Recovered) {
        if let Some(torn) = recovered.torn {
            warn!(
                bytes = torn.bytes,
                "the audit log ended inside a record; the rest of it was cut"
            );
        }
        if recovered.damaged > 0 {
            warn!(
                lines = recovered.damaged,
                "the audit log holds lines that are not records"
            );
        }
        if let Some(seq) = recovered.broken {
            let text = format!(
                "record {seq} is not as it was written, or what came before it: keep the log as \
                 evidence, and see `fieldlock audit verify`"
            );
            self.raise(alarm::CHAIN, "", &text);
        }
        if !recovered.unfinished.is_empty() {
            warn!(
                writes = recovered.unfinished.len(),
                "writes of the last run have no recorded outcome: unknown"
            );
        }
        for intent in &recovered.unfinished {
            self.note(intent.unknown_outcome());
        }
    }

    pub(crate) fn set_policy(&self, hash: &str) {
        *self.policy.borrow_mut() = hash.into();
    }

    /// Who signs the log's checkpoints from now on.
    pub(crate) fn set_signer(&self, signer: Option<Arc<dyn Sign>>) {
        if let Some(signer) = signer {
            self.journal.set_signer(signer);
        }
    }

    /// The last checkpoint of the log, to be told to the other end of a tunnel.
    pub(crate) fn checkpoint(&self) -> Option<Head> {
        self.checkpoint.borrow().clone()
    }

    /// Returns when there is a new one.
    pub(crate) async fn new_checkpoint(&self) {
        self.new_checkpoint.notified().await;
    }

    /// Wakes `listener` whenever records became durable, or the log failed or recovered.
    pub(crate) fn listen(&self, listener: Rc<Notify>) {
        self.listeners.borrow_mut().push(listener);
    }

    /// Puts `record` on record. When the log can't take it that is counted, and said.
    pub(crate) fn note(&self, record: Record) {
        // Why it was not taken is the journal's own alarm; the count is for `status`.
        if self.append(record).is_err() {
            self.not_recorded.set(self.not_recorded.get() + 1);
        }
    }

    /// The intent of a write: must be durable before the write leaves.
    pub(crate) fn intent(&self, record: Record) -> Result<Ticket, Unavailable> {
        self.append(record)
    }

    fn append(&self, mut record: Record) -> Result<Ticket, Unavailable> {
        if record.policy.is_none() && record.decision.is_some() {
            record.policy = Some(self.policy.borrow().clone());
        }
        let ticket = self.journal.append(record)?;
        self.last.set(ticket);
        if self.waited_for().is_none() {
            self.waiting.set(Some((ticket, Instant::now())));
        }
        Ok(ticket)
    }

    /// Since when the record that was noted as waiting does so, if it still does.
    fn waited_for(&self) -> Option<Instant> {
        let (ticket, since) = self.waiting.get()?;
        (ticket > self.durable()).then_some(since)
    }

    /// How many records are not on the disk yet, and how long one of them has waited at least.
    pub(crate) fn backlog(&self) -> (u64, Duration) {
        let waiting = self.last.get().saturating_sub(self.durable());
        let since = self
            .waited_for()
            .map_or(Duration::ZERO, |since| since.elapsed());
        (waiting, since)
    }

    /// Whether the thread that writes the log runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.journal.is_alive()
    }

    /// Which reads go on record from now on.
    pub(crate) fn set_reads(&self, reads: Reads) {
        if self.reads.borrow().reads() != reads {
            self.reads.replace(ReadFilter::new(reads));
        }
    }

    /// Whether reads go on record at all.
    pub(crate) fn records_reads(&self) -> bool {
        self.reads.borrow().reads() != Reads::Off
    }

    /// Puts a read with its answer on record where it is one of those; `key` is what makes it
    /// alike to others.
    pub(crate) fn read(&self, key: impl Hash, answer: &[u8], record: impl FnOnce() -> Record) {
        let mut reads = self.reads.borrow_mut();
        let count = reads.handle_read(Instant::now(), key, answer);
        drop(reads);
        if let Some(count) = count {
            self.note(Record {
                decision: Some(Decision::Allow),
                count: (count > 1).then_some(count),
                ..record()
            });
        }
    }

    /// Puts a refusal or a lost read on record; repeats within a second are counted. Whether
    /// it was the first of its kind.
    pub(crate) fn repeated(&self, record: Record) -> bool {
        let mut denials = self.denials.borrow_mut();
        let idle = denials.poll_timeout().is_none();
        let first = denials.handle_denial(Instant::now(), record);
        drop(denials);
        let is_first = first.is_some();
        if let Some(record) = first {
            self.note(record);
        }
        if idle {
            self.held_back.notify_one();
        }
        is_first
    }

    /// All records up to this ticket are on the disk.
    pub(crate) fn durable(&self) -> Ticket {
        self.journal.durable()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.journal.state() == State::Ok
    }

    /// Records that the log could not take since the start.
    pub(crate) fn not_recorded(&self) -> u64 {
        self.not_recorded.get()
    }

    /// A condition begins; saying so again changes only its text.
    pub(crate) fn raise(&self, name: &'static str, subject: &str, text: &str) {
        let key = alarm_key(name, subject);
        let alarm = Alarm {
            text: text.to_owned(),
            since: Instant::now(),
        };
        let mut alarms = self.alarms.borrow_mut();
        if let Some(known) = alarms.get_mut(&key) {
            known.text = alarm.text;
            return;
        }
        alarms.insert(key.clone(), alarm);
        drop(alarms);
        warn!(alarm = key, "{text}");
        self.note(Record {
            alarm: Some(Cow::Owned(key)),
            reason: Some(Cow::Owned(text.to_owned())),
            ..Record::new(Kind::AlarmStart)
        });
    }

    /// A condition is over, if it lasted.
    pub(crate) fn clear(&self, name: &'static str, subject: &str) {
        let key = alarm_key(name, subject);
        if self.alarms.borrow_mut().remove(&key).is_some() {
            info!(alarm = key, "alarm is over");
            self.note(Record {
                alarm: Some(Cow::Owned(key)),
                ..Record::new(Kind::AlarmEnd)
            });
        }
    }

    pub(crate) fn alarms(&self) -> Vec<(String, Alarm)> {
        let alarms = self.alarms.borrow();
        alarms.iter().map(|(k, a)| (k.clone(), a.clone())).collect()
    }

    /// Passes on what the journal's thread tells and releases held-back refusals.
    pub(crate) async fn run(&self) {
        loop {
            let due = self.denials.borrow().poll_timeout();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => self.held_back.notified().await,
                }
            };
            tokio::select! {
                () = self.progress.notified() => self.on_progress(),
                () = timer => self.release(),
            }
        }
    }

    fn on_progress(&self) {
        match self.journal.state() {
            State::Ok => self.clear(alarm::AUDIT, ""),
            State::Failed { error, .. } => {
                self.raise(alarm::AUDIT, "", &format!("{error}: writes are refused"));
            }
        }
        let known = self.checkpoint.borrow().as_ref().map_or(0, |head| head.seq);
        if let Some(head) = self.journal.checkpoint_after(known) {
            *self.checkpoint.borrow_mut() = Some(head);
            self.new_checkpoint.notify_one();
        }
        for listener in self.listeners.borrow().iter() {
            listener.notify_one();
        }
    }

    fn release(&self) {
        let now = Instant::now();
        loop {
            let Some(record) = self.denials.borrow_mut().poll_record(now) else {
                break;
            };
            self.note(record);
        }
    }

    /// Writes what is left, last of all `stop`.
    pub(crate) fn close(&self) {
        let held: Vec<_> = self.denials.borrow_mut().drain().collect();
        for record in held {
            self.note(record);
        }
        self.note(Record {
            durable: true,
            ..Record::new(Kind::Stop)
        });
        match self.journal.close(Duration::from_secs(3)) {
            Ok(()) => info!("stopped"),
            Err(error) => warn!("{error}"),
        }
    }
}

fn alarm_key(name: &str, subject: &str) -> String {
    if subject.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {subject}")
    }
}

/// A record of a refusal.
pub(crate) fn denial(kind: Kind, client: &Arc<Party>, reason: impl fmt::Display) -> Record {
    Record {
        client: Some(client.clone()),
        decision: Some(Decision::Deny),
        reason: Some(Cow::Owned(reason.to_string())),
        ..Record::new(kind)
    }
}
