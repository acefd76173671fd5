//! What an agent goes by: its policy and whom it trusts, and how both are replaced while
//! it runs. A replacement that can't be used is refused, and the old one stays in force.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Record};
use fieldlock_enroll::AgentClock;
use fieldlock_pki::clock::{Reading, Skew};
use fieldlock_pki::{Role, StoreError, TrustList, store};
use fieldlock_policy::{Now, Phase, Policy, Strangers};
use fieldlock_transport::tls::Trust;
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::StartError;
use crate::disk;
use crate::ledger::{Alarm, Ledger};
use crate::settings::{AfterGrace, Trust as Settings};
use crate::source::{Bundled, Rules, Source};

#[derive(Debug)]
pub struct Posture {
    role: Role,
    /// As they were at the start.
    settings: Settings,
    policy: RefCell<Arc<Policy>>,
    /// Of the policy in force.
    phase: RefCell<Phase>,
    hash: Cell<[u8; 32]>,
    bundle: RefCell<Bundled>,
    trust: RefCell<Rc<Trust>>,
    clock: Arc<AgentClock>,
    /// When the time was written to the state directory last.
    time_kept: Cell<Option<Instant>>,
    /// A list that is in force and not on the disk yet.
    unsaved: RefCell<Option<TrustList>>,
    unsaved_came: Notify,
    /// Whoever reads or writes trust on the disk waits for it with this in hand, so that nobody reads what
    /// is about to be replaced.
    at_disk: Mutex<()>,
}

impl Posture {
    pub fn load(
        role: Role,
        source: &Source,
        state: &Path,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let clock = Arc::new(AgentClock::of_state(state));
        let trust = Trust::load(state, role, settings, &clock)?;
        let loaded = source.load(state, &trust.identity.name);
        let Rules {
            policy,
            hash,
            bundle,
        } = loaded.map_err(StartError::Policy)?;
        let phase = policy.phase(time(&clock));
        Ok(Self {
            role,
            settings,
            policy: RefCell::new(Arc::new(policy)),
            phase: RefCell::new(phase),
            hash: Cell::new(hash),
            bundle: RefCell::new(bundle),
            trust: RefCell::new(Rc::new(trust)),
            clock,
            time_kept: Cell::default(),
            unsaved: RefCell::default(),
            unsaved_came: Notify::new(),
            at_disk: Mutex::default(),
        })
    }

    pub fn clock(&self) -> &Arc<AgentClock> {
        &self.clock
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.policy.borrow().clone()
    }

    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Whether time windows have opened or closed since this was asked last, or it has become
    /// known or unknown what time it is.
    pub fn phase_changed(&self) -> bool {
        let now = time(&self.clock);
        if self.phase.borrow().holds(now) {
            return false;
        }
        let phase = self.policy().phase(now);
        let before = self.phase.replace(phase.clone());
        !phase.same_rules(&before)
    }

    /// Of what is in force: SHA-256 of the policy file, or see [`Source::load`].
    pub fn hash(&self) -> [u8; 32] {
        self.hash.get()
    }

    pub fn bundle(&self) -> Bundled {
        self.bundle.borrow().clone()
    }

    /// What time the rules go by.
    pub fn now(&self) -> Now {
        time(&self.clock)
    }

    pub fn trust(&self) -> Rc<Trust> {
        self.trust.borrow().clone()
    }

    /// Puts the policy of `source` in force; whether it is another than before.
    pub fn reload_policy(&self, source: &Source, state: &Path, ledger: &Ledger) -> bool {
        match source.load(state, &self.trust().identity.name) {
            Ok(rules) => {
                ledger.clear(Alarm::PolicyRefused, "");
                let changed = rules.hash != self.hash.get();
                let what = format!("{}{source}", rules.bundle);
                self.put_rules(rules, ledger);
                if changed {
                    reloaded(ledger, &what);
                }
                changed
            }
            Err(text) => {
                refused(ledger, &text);
                let text = format!("the old policy stays in force: {text}");
                ledger.raise(Alarm::PolicyRefused, "", &text);
                false
            }
        }
    }

    pub fn put_rules(&self, rules: Rules, ledger: &Ledger) {
        *self.bundle.borrow_mut() = rules.bundle;
        if rules.hash == self.hash.get() {
            return;
        }
        *self.phase.borrow_mut() = rules.policy.phase(time(&self.clock));
        *self.policy.borrow_mut() = Arc::new(rules.policy);
        self.hash.set(rules.hash);
        ledger.set_policy(&short_hex(&rules.hash));
    }

    /// Puts what `state` holds of key, certificate and CRLs in force, and returns what was so before;
    /// `None`: that stays.
    pub async fn reload_trust(&self, state: &Path, ledger: &Ledger) -> Option<Rc<Trust>> {
        let _turn = self.at_disk.lock().await;
        loop {
            let saved = self.write_unsaved(state).await;
            let before = self.trust();
            let (role, settings) = (self.role, self.settings);
            let (path, clock) = (state.to_owned(), self.clock.clone());
            let load = move || {
                saved?;
                Trust::load(&path, role, settings, &clock)
            };
            let loaded = disk::apart(load).await;
            // A list came while this was read, which is older.
            if !Rc::ptr_eq(&before, &self.trust()) {
                continue;
            }
            match loaded {
                Ok(trust) => {
                    self.put_trust(trust, state, ledger);
                    return Some(before);
                }
                Err(error) => {
                    let text = format!("the old certificate and lists stay in force: {error}");
                    refused(ledger, &text);
                    ledger.raise(Alarm::TrustRefused, "", &text);
                    return None;
                }
            }
        }
    }

    fn put_trust(&self, trust: Trust, state: &Path, ledger: &Ledger) {
        ledger.set_signer(trust.signer.clone());
        *self.trust.borrow_mut() = Rc::new(trust);
        ledger.clear(Alarm::TrustRefused, "");
        reloaded(ledger, "certificate and revocation lists");
        self.watch_dates(state, ledger);
    }

    /// Takes from an offered trust list what is vouched for and newer, and puts it in force at once; to
    /// the disk it goes as [`Posture::save_lists`] gets to it. Whether it changed anything. `whole`: it
    /// came from the CA itself, so what it leaves out is dropped.
    pub fn take_trust(
        &self,
        state: &Path,
        offered: &TrustList,
        whole: bool,
        ledger: &Ledger,
    ) -> Result<bool, String> {
        let mut list = self.trust().list.clone();
        let site = &self.trust().identity.site;
        let merged = match whole {
            true => list.replace(offered, site),
            false => list.merge(offered, site),
        };
        let merged = merged.map_err(|error| error.to_string())?;
        if merged.news.is_empty() {
            return Ok(false);
        }
        let trust = self.trust().with_list(list.clone());
        let trust = trust.map_err(|error| error.to_string())?;
        self.clock.witness_list(&list);
        for news in &merged.news {
            reloaded(ledger, &format!("trust list: {news}"));
        }
        self.unsaved.replace(Some(list));
        self.unsaved_came.notify_one();
        self.put_trust(trust, state, ledger);
        Ok(true)
    }

    /// Writes lists that were taken to the disk, for as long as the agent runs.
    pub async fn save_lists(&self, state: &Path) {
        loop {
            self.unsaved_came.notified().await;
            while let Err(error) = self.save_list(state).await {
                warn!("the trust list in force can't be kept for the next start: {error}");
                sleep(SAVE_AGAIN).await;
            }
        }
    }

    /// Returns when the list in force is on the disk.
    pub async fn save_list(&self, state: &Path) -> Result<(), StoreError> {
        let _turn = self.at_disk.lock().await;
        self.write_unsaved(state).await
    }

    /// For whoever has the turn at the disk.
    async fn write_unsaved(&self, state: &Path) -> Result<(), StoreError> {
        loop {
            let Some(list) = self.unsaved.borrow().clone() else {
                return Ok(());
            };
            let (path, new) = (state.to_owned(), list.clone());
            disk::apart(move || store::install_trust(&path, &new)).await?;
            // Another may have come meanwhile.
            self.unsaved.borrow_mut().take_if(|newest| *newest == list);
        }
    }

    /// Live tunnels are to end as well when a CRL is past its grace.
    pub fn cuts_stale(&self) -> bool {
        let trust = self.trust();
        let now = self.clock.steady();
        let dates = trust.list.crl_dates();
        self.settings.after_grace == AfterGrace::Cut
            && dates
                .iter()
                .any(|crl| crl.next_update + trust.grace() < now)
    }

    /// A CRL of the list is past its next update.
    pub fn has_stale_crl(&self) -> bool {
        let now = self.clock.now();
        let dates = self.trust().list.crl_dates();
        dates.iter().any(|crl| crl.next_update < now)
    }

    /// Raises and clears the alarms about what runs out, and keeps the time.
    pub fn watch_dates(&self, state: &Path, ledger: &Ledger) {
        let reading = self.watch_clock(ledger);
        let kept = self.time_kept.get();
        if kept.is_some_and(|at| at.elapsed() >= KEEP_TIME) {
            self.keep_time(state);
        }
        // A jump of the clock that nothing has proven makes nothing run out: it is one alarm, and
        // what follows from it is said there.
        let now = reading.steady;
        let trust = self.trust();
        for crl in trust.list.crl_dates() {
            let name = &crl.authority;
            let left = crl.next_update - now;
            if left < 0 {
                let until = crl.next_update + trust.grace();
                let then = match (until < now, self.settings.after_grace) {
                    (false, _) => "it stays in force for the grace period",
                    (true, AfterGrace::Keep) => "no new tunnel is accepted",
                    (true, AfterGrace::Cut) => "no tunnel is accepted",
                };
                let text = format!(
                    "the CRL of {name:?} is past its next update: what was revoked since \
                     is not known; {then}; install a fresh one with `fieldlock enroll crl`"
                );
                ledger.raise(Alarm::CrlExpired, name, &text);
            } else {
                ledger.clear(Alarm::CrlExpired, name);
            }
            // Only a person can renew a root's, so there is a warning long before.
            let life = crl.next_update - crl.this_update;
            if crl.is_root && left >= 0 && left < life / 3 {
                let share = if left < life / 6 { "sixth" } else { "third" };
                let text = format!(
                    "less than a {share} of the life of the CRL of {name:?} is left: \
                     issue it with `fieldlock ca root crl`"
                );
                ledger.raise(Alarm::RootCrlExpires, name, &text);
            } else {
                ledger.clear(Alarm::RootCrlExpires, name);
            }
        }
        if trust.revoked {
            let text = "this agent's certificate is revoked: no tunnel accepts it; enroll again";
            ledger.raise(Alarm::CertificateRevoked, "", text);
        } else {
            ledger.clear(Alarm::CertificateRevoked, "");
        }
        let (from, to) = (trust.leaf.not_before, trust.leaf.not_after);
        if to - now < (to - from) / 6 {
            let days = (to - now) / 86_400;
            let text = if to < now {
                "this agent's certificate has expired: no tunnel accepts it".to_owned()
            } else {
                format!("this agent's certificate expires in {days} days: enroll again")
            };
            ledger.raise(Alarm::CertificateExpires, "", &text);
        } else {
            ledger.clear(Alarm::CertificateExpires, "");
        }
    }

    /// The system clock is behind what has certainly passed.
    pub fn has_no_clock(&self) -> bool {
        matches!(self.clock.read().skew, Skew::Behind(_))
    }

    /// The system clock is so far ahead that what fails may fail for this alone.
    fn has_jumped_ahead(&self) -> bool {
        matches!(self.clock.read().skew, Skew::Ahead(_))
    }

    /// Raises an alarm about something that the CA did not do, unless the clock explains it: then
    /// that is the alarm.
    pub fn raise_for_authority(&self, ledger: &Ledger, alarm: Alarm, text: &str) {
        if self.has_jumped_ahead() {
            debug!("{text}; the clock may be why");
        } else {
            ledger.raise(alarm, "", text);
        }
    }

    /// What would have run out by `now` and has not by what is known of the time.
    fn run_out_by(&self, now: i64, known: i64) -> String {
        let trust = self.trust();
        let has = |date: i64| (known..now).contains(&date);
        let crls = trust.list.crl_dates();
        let lists = crls.iter().filter(|crl| has(crl.next_update)).count();
        let mut parts = Vec::new();
        if has(trust.leaf.not_after) {
            parts.push("this agent's certificate has expired".to_owned());
        }
        match lists {
            0 => {}
            1 => parts.push("a revocation list is out of date".to_owned()),
            _ => parts.push(format!("{lists} revocation lists are out of date")),
        }
        match parts.is_empty() {
            true => String::new(),
            false => format!("by it {}; ", parts.join(" and ")),
        }
    }

    fn watch_clock(&self, ledger: &Ledger) -> Reading {
        let reading = self.clock.read();
        let text = match reading.skew {
            Skew::None => {
                ledger.clear(Alarm::ClockWrong, "");
                return reading;
            }
            Skew::Behind(_) => format!(
                "the system clock is behind a time that has certainly passed: certificates are judged \
                 by {}, which runs on; rules with time windows are closed; set the clock",
                crate::status::time(reading.now),
            ),
            Skew::Ahead(_) => format!(
                "the system clock is ahead of all that is known: new tunnels are judged by {}, live \
                 ones by {} until a handshake has come through, and rules with time windows are closed; {}is \
                 the clock right?",
                crate::status::time(reading.now),
                crate::status::time(reading.steady),
                self.run_out_by(reading.now, reading.steady),
            ),
        };
        ledger.raise(Alarm::ClockWrong, "", &text);
        reading
    }

    /// A handshake with a peer whose certificate ends at `until` came through: it is the time we
    /// took it for.
    pub fn time_proven(&self, state: &Path, until: i64) {
        self.clock.confirm(until.min(self.trust().leaf.not_after));
        if self.time_kept.get().is_none() {
            self.keep_time(state);
        }
    }

    /// Writes down what time it is, for a start without a clock; the task ends when it is on the disk.
    fn keep_time(&self, state: &Path) -> Option<JoinHandle<()>> {
        let time = self.clock.to_keep()?;
        self.time_kept.set(Some(Instant::now()));
        let state = state.to_owned();
        Some(spawn_blocking(move || {
            if let Err(error) = store::keep_time(&state, time) {
                warn!("the time can't be kept for the next start: {error}");
            }
        }))
    }

    /// Leaves on the disk what the next start is to find there.
    pub async fn leave(&self, state: &Path) {
        let time = self.keep_time(state);
        if let Err(error) = self.save_list(state).await {
            warn!("the trust list in force can't be kept for the next start: {error}");
        }
        if let Some(time) = time {
            // It has told what went wrong.
            let _ = time.await;
        }
    }
}

/// When a list that could not be written is written again.
const SAVE_AGAIN: Duration = Duration::from_secs(60);
/// How often an agent looks at what runs out, and at the clock.
pub const WATCH_DATES: Duration = Duration::from_secs(10);
/// How often an agent looks whether time windows have opened or closed; also how long it takes to
/// notice that the clock was set.
pub const WATCH_PHASE: Duration = Duration::from_millis(500);
/// How often the time is written to the disk while an agent runs.
const KEEP_TIME: Duration = Duration::from_secs(3600);

/// What the rules go by. A clock that is known to be wrong, either way, opens nothing.
fn time(clock: &AgentClock) -> Now {
    let reading = clock.read();
    match reading.skew {
        Skew::None => Now::At(reading.now),
        Skew::Behind(_) | Skew::Ahead(_) => Now::Unknown,
    }
}

/// Told once when a policy or a configuration is loaded. One policy may serve several agents, so it may
/// well be as it should.
pub fn tell_strangers(strangers: &[Strangers]) {
    for names in strangers {
        warn!("{names}");
    }
}

/// The same below the summary of a check.
pub fn with_strangers(summary: String, strangers: &[Strangers]) -> String {
    let lines = strangers.iter().map(|names| format!("\nwarning: {names}"));
    summary + &lines.collect::<String>()
}

/// A change that took effect.
pub fn reloaded(ledger: &Ledger, what: &str) {
    info!("reloaded: {what}");
    ledger.note(Record {
        reason: Some(Cow::Owned(what.to_owned())),
        ..Record::new(Kind::Reload)
    });
}

/// A change that was turned down.
pub fn refused(ledger: &Ledger, text: &str) {
    ledger.note(Record {
        reason: Some(Cow::Owned(text.to_owned())),
        ..Record::new(Kind::ReloadRefused)
    });
}

/// The first 8 octets of a hash: enough to tell policies apart.
pub fn short_hex(hash: &[u8; 32]) -> String {
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
