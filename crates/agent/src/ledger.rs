//! What an agent puts on record: the audit log as its other parts use it, and alarms.

mod alarm;
mod describe;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{
    Budget, Class, Clock, Decision, DenialFilter, Head, Journal, JournalError, Kind, Options,
    Party, ReadFilter, Reads, Record, Recovered, Sign, Stamp, State, Ticket, Unavailable,
};
use fieldlock_enroll::AgentClock;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tracing::{info, warn};

pub use self::alarm::{Alarm, Lasting};
pub use self::describe::{answered, describe, describe_read};
use crate::recent::{Recent, Seen};
use crate::settings;

/// The audit log, seen from the data path's thread.
pub struct Ledger {
    journal: Journal,
    denials: RefCell<DenialFilter>,
    shares: RefCell<Shares>,
    /// Records that were left out, since the start.
    left_out: Cell<u64>,
    reads: RefCell<ReadFilter>,
    /// SHA-256 of the policy in force, as records carry it.
    policy: RefCell<Arc<str>>,
    /// The journal's thread has something to tell.
    progress: Arc<Notify>,
    /// A refusal is held back: the timer must be set.
    held_back: Notify,
    /// Who wants to hear that records became durable, or can't.
    listeners: RefCell<Vec<Rc<Notify>>>,
    alarms: RefCell<BTreeMap<(Alarm, String), Lasting>>,
    not_recorded: Cell<u64>,
    /// The last record that was taken; one that may not be on the disk yet, and since when.
    last: Cell<Ticket>,
    waiting: Cell<Option<(Ticket, Instant)>>,
    /// The last checkpoint of the log.
    checkpoint: RefCell<Option<Head>>,
    new_checkpoint: Notify,
    clock: Arc<AgentClock>,
    /// The last records that were taken.
    recent: Recent,
    /// Devices that the last run left writes to without an outcome.
    unfinished: RefCell<HashSet<Arc<str>>>,
}

/// What is left of the log for those who can cause records at will.
#[derive(Debug)]
struct Shares([(Class, Budget); 2]);

impl Shares {
    fn new(log_bytes: u64) -> Self {
        let now = Instant::now();
        let share = |class| (class, Budget::new(log_bytes, now));
        Self([Class::Identified, Class::Stranger].map(share))
    }

    /// None of a class that has no bounds.
    fn of(&mut self, class: Class) -> Option<&mut Budget> {
        let share = self.0.iter_mut().find(|(of, _)| *of == class);
        share.map(|(_, budget)| budget)
    }

    /// Says of each class how many records were left out of which it was not said yet.
    fn told(&mut self, take: impl Fn(&mut Budget) -> Option<u64>) -> Vec<Record> {
        let told = self.0.iter_mut().filter_map(|(class, budget)| {
            let count = take(budget)?;
            Some(left_out_of(*class, count))
        });
        told.collect()
    }
}

/// The agent's own reckoning of the time.
#[derive(Debug)]
struct Reckoned(Arc<AgentClock>);

impl Clock for Reckoned {
    fn stamp(&self) -> Stamp {
        let (time, system) = self.0.date();
        Stamp { time, system }
    }
}

/// Folder of the audit log in the state directory.
pub const FOLDER: &str = "audit";

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the log under `state` and settles what an earlier run left open.
    pub fn open(
        state: &Path,
        agent: &str,
        settings: &settings::audit::Audit,
        clock: &Arc<AgentClock>,
    ) -> Result<Rc<Self>, JournalError> {
        let progress = Arc::new(Notify::new());
        let notify = {
            let progress = progress.clone();
            move |_| progress.notify_one()
        };
        let options = Options {
            limits: settings.limits(),
            clock: Arc::new(Reckoned(clock.clone())),
            ..Options::new(state.join(FOLDER), agent)
        };
        let (journal, recovered) = Journal::open(options, notify)?;
        let ledger = Rc::new(Self {
            journal,
            denials: RefCell::default(),
            shares: RefCell::new(Shares::new(settings.limits().max_bytes)),
            left_out: Cell::new(0),
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
            clock: clock.clone(),
            recent: Recent::default(),
            unfinished: RefCell::default(),
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
            self.raise(Alarm::AuditLogChanged, "", &text);
        }
        if !recovered.unfinished.is_empty() {
            warn!(
                writes = recovered.unfinished.len(),
                "writes of the last run have no recorded outcome: unknown"
            );
        }
        for intent in &recovered.unfinished {
            self.note(intent.unknown_outcome());
            self.unfinished.borrow_mut().extend(intent.device.clone());
        }
        let unknown = recovered.unknown.iter().map(|device| Arc::from(&**device));
        self.unfinished.borrow_mut().extend(unknown);
    }

    /// Whether earlier runs left writes to this device that it may still carry out. Says so once.
    pub fn take_unfinished(&self, device: &Arc<str>) -> bool {
        self.unfinished.borrow_mut().remove(device)
    }

    pub fn set_policy(&self, hash: &str) {
        *self.policy.borrow_mut() = hash.into();
    }

    /// Who signs the log's checkpoints from now on.
    pub fn set_signer(&self, signer: Option<Arc<dyn Sign>>) {
        if let Some(signer) = signer {
            self.journal.set_signer(signer);
        }
    }

    /// The last checkpoint of the log, to be told to the other end of a tunnel.
    pub fn checkpoint(&self) -> Option<Head> {
        self.checkpoint.borrow().clone()
    }

    /// Returns when there is a new one.
    pub async fn new_checkpoint(&self) {
        self.new_checkpoint.notified().await;
    }

    /// Wakes `listener` whenever records became durable, or the log failed or recovered.
    pub fn listen(&self, listener: Rc<Notify>) {
        self.listeners.borrow_mut().push(listener);
    }

    /// Puts `record` on record. When the log can't take it that is counted, and said; so is
    /// what people outside the policy cause beyond their share of it.
    pub fn note(&self, record: Record) {
        if !self.is_within_share(&record) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        // Why it was not taken is the journal's own alarm; the count is for `status`.
        if self.append(record).is_err() {
            self.not_recorded.set(self.not_recorded.get() + 1);
        }
    }

    fn is_within_share(&self, record: &Record) -> bool {
        let class = Class::of(record);
        let mut shares = self.shares.borrow_mut();
        let Some(budget) = shares.of(class) else {
            return true;
        };
        if !self.takes_outsiders() {
            budget.leave_out();
            return false;
        }
        let now = Instant::now();
        let left_out = budget.poll_left_out(now);
        let fits = budget.handle_record(now, record);
        let used_up = budget.is_used_up();
        drop(shares);
        if let Some(count) = left_out {
            self.note(left_out_of(class, count));
        }
        if used_up {
            self.raise(Alarm::AuditShareUsedUp, "", SHARE_USED_UP);
        }
        fits
    }

    fn takes_outsiders(&self) -> bool {
        !self.journal.is_filling() && self.is_writable()
    }

    /// Looks after the shares of those outside the policy; to be called now and then.
    pub fn watch_shares(&self) {
        let now = Instant::now();
        let mut shares = self.shares.borrow_mut();
        let is_strained = shares
            .0
            .iter_mut()
            .any(|(_, budget)| budget.is_strained(now));
        let told = match self.takes_outsiders() {
            true => shares.told(|budget| budget.poll_left_out(now)),
            false => Vec::new(),
        };
        drop(shares);
        told.into_iter().for_each(|record| self.note(record));
        if !is_strained {
            self.clear(Alarm::AuditShareUsedUp, "");
        }
    }

    /// Records of people outside the policy that were left out, since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out.get()
    }

    /// The intent of a write: must be durable before the write leaves.
    pub fn intent(&self, record: Record) -> Result<Ticket, Unavailable> {
        self.append(record)
    }

    fn append(&self, mut record: Record) -> Result<Ticket, Unavailable> {
        if record.policy.is_none() && record.decision.is_some() {
            record.policy = Some(self.policy.borrow().clone());
        }
        let seen = Seen::of(&record, self.clock.date().0);
        let ticket = self.journal.append(record)?;
        self.recent.note(seen, ticket);
        self.last.set(ticket);
        if self.waited_for().is_none() {
            self.waiting.set(Some((ticket, Instant::now())));
        }
        Ok(ticket)
    }

    /// The last records that were taken, since the start.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Since when the record that was noted as waiting does so, if it still does.
    fn waited_for(&self) -> Option<Instant> {
        let (ticket, since) = self.waiting.get()?;
        (ticket > self.durable()).then_some(since)
    }

    /// How many records are not on the disk yet, and how long one of them has waited at least.
    pub fn backlog(&self) -> (u64, Duration) {
        let waiting = self.last.get().saturating_sub(self.durable());
        let since = self
            .waited_for()
            .map_or(Duration::ZERO, |since| since.elapsed());
        (waiting, since)
    }

    /// Whether the thread that writes the log runs.
    pub fn is_alive(&self) -> bool {
        self.journal.is_alive()
    }

    /// Which reads go on record from now on.
    pub fn set_reads(&self, reads: Reads) {
        if self.reads.borrow().reads() != reads {
            self.reads.replace(ReadFilter::new(reads));
        }
    }

    /// Whether reads go on record at all.
    pub fn records_reads(&self) -> bool {
        self.reads.borrow().reads() != Reads::Off
    }

    /// Puts a read with its answer on record where it is one of those; `key` is what makes it
    /// alike to others.
    pub fn read(&self, key: impl Hash, answer: &[u8], record: impl FnOnce() -> Record) {
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

    /// Puts a refusal or a lost read on record; repeats are joined and counted. Whether it was
    /// the first of its kind.
    pub fn repeated(&self, record: Record) -> bool {
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

    /// Puts the beginning of a connection on record; those of strangers are counted like
    /// refusals. Whether it stands there by itself, so that its end belongs there too.
    pub fn opened(&self, record: Record) -> bool {
        if Class::of(&record) != Class::Plant {
            return self.repeated(record);
        }
        self.note(record);
        true
    }

    /// All records up to this ticket are on the disk.
    pub fn durable(&self) -> Ticket {
        self.journal.durable()
    }

    pub fn is_writable(&self) -> bool {
        self.journal.state() == State::Ok
    }

    /// Records that the log could not take since the start.
    pub fn not_recorded(&self) -> u64 {
        self.not_recorded.get()
    }

    /// An alarm begins; saying so again changes only its text. `key`: what it is about, where there may
    /// be several.
    pub fn raise(&self, alarm: Alarm, key: &str, text: &str) {
        let mut alarms = self.alarms.borrow_mut();
        let entry = match alarms.entry((alarm, key.to_owned())) {
            Entry::Occupied(mut known) => {
                text.clone_into(&mut known.get_mut().text);
                return;
            }
            Entry::Vacant(entry) => entry,
        };
        let lasting = entry.insert(Lasting {
            alarm,
            key: key.to_owned(),
            text: text.to_owned(),
            since: Instant::now(),
        });
        let label = lasting.to_string();
        drop(alarms);
        warn!(alarm = label, "{text}");
        self.note(Record {
            alarm: Some(Cow::Owned(label)),
            reason: Some(Cow::Owned(text.to_owned())),
            ..Record::new(Kind::AlarmStart)
        });
    }

    /// An alarm is over, if it lasted.
    pub fn clear(&self, alarm: Alarm, key: &str) {
        let over = self.alarms.borrow_mut().remove(&(alarm, key.to_owned()));
        if let Some(over) = over {
            let label = over.to_string();
            info!(alarm = label, "alarm is over");
            self.note(Record {
                alarm: Some(Cow::Owned(label)),
                ..Record::new(Kind::AlarmEnd)
            });
        }
    }

    /// By name, but first the clock, from which others may follow.
    pub fn alarms(&self) -> Vec<Lasting> {
        let mut all: Vec<_> = self.alarms.borrow().values().cloned().collect();
        all.sort_by_key(|lasting| (lasting.alarm != Alarm::ClockWrong, lasting.to_string()));
        all
    }

    /// Passes on what the journal's thread tells and releases held-back refusals.
    pub async fn run(&self) {
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
            State::Ok => self.clear(Alarm::AuditLogUnwritable, ""),
            State::Failed { error, .. } => {
                self.raise(
                    Alarm::AuditLogUnwritable,
                    "",
                    &format!("{error}: writes are refused"),
                );
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
    pub fn close(&self) {
        let held: Vec<_> = self.denials.borrow_mut().drain().collect();
        for record in held {
            self.note(record);
        }
        let told = self.shares.borrow_mut().told(Budget::take_left_out);
        told.into_iter().for_each(|record| self.note(record));
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

const SHARE_USED_UP: &str = "people outside the policy have used up their share of the audit \
    log: what they do beyond it is counted, and told once there is room again; the last \
    `client-open`, `client-refused` and `tunnel-refused` records say where they come from";

fn left_out_of(class: Class, count: u64) -> Record {
    let reason = match class {
        Class::Plant | Class::Stranger => "of strangers, beyond their share of the log",
        Class::Identified => "of identities that are refused, beyond their share of the log",
    };
    Record {
        reason: Some(reason.into()),
        count: Some(count),
        ..Record::new(Kind::LeftOut)
    }
}

/// A record of a refusal.
pub fn denial(kind: Kind, client: &Arc<Party>, reason: impl fmt::Display) -> Record {
    Record {
        client: Some(client.clone()),
        decision: Some(Decision::Deny),
        reason: Some(Cow::Owned(reason.to_string())),
        ..Record::new(kind)
    }
}
