//! The clock of an agent: the system's, held against what the state directory knows of the time.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fieldlock_pki::clock::{Clock, Reading, Skew};
use fieldlock_pki::{Installed, Summary, TrustList, store};

/// Shared by all that judge certificates. Times are seconds since 1970-01-01 UTC.
#[derive(Debug)]
pub struct AgentClock(Mutex<Clock>);

impl AgentClock {
    /// Goes by what is installed in `state`, if anything is, and by the time kept there.
    pub fn of_state(state: &Path) -> Self {
        let kept = store::kept_time(state).unwrap_or(0);
        let installed = Installed::load(state).ok();
        let leaf = installed.as_ref().map(|own| Summary::of(own.leaf()));
        let leaf = leaf.and_then(Result::ok);
        let lists = installed.as_ref().and_then(|own| latest_crl(&own.trust));
        let signed = leaf.as_ref().map(|leaf| leaf.not_before);
        let passed = [lists, signed].into_iter().flatten().fold(kept, i64::max);
        let plausible = leaf.map_or(i64::MAX, |leaf| leaf.not_after);
        Self(Mutex::new(Clock::new(
            passed,
            plausible,
            system(),
            Instant::now(),
        )))
    }

    pub fn read(&self) -> Reading {
        self.with(|clock, now| clock.read(system(), now))
    }

    /// To judge what is new.
    pub fn now(&self) -> i64 {
        self.read().now
    }

    /// To judge what lives: does not follow a jump of the system clock that nothing has proven.
    pub fn steady(&self) -> i64 {
        self.read().steady
    }

    /// What to date records by, and what the system clock says where it is known to be wrong.
    pub fn date(&self) -> (SystemTime, Option<SystemTime>) {
        self.with(|clock, now| clock.date(SystemTime::now(), now))
    }

    /// The site's CA signed this time.
    pub fn witness(&self, time: i64) {
        self.with(|clock, now| clock.witness(time, system(), now));
    }

    /// So are the dates of its CRLs.
    pub fn witness_list(&self, list: &TrustList) {
        if let Some(time) = latest_crl(list) {
            self.witness(time);
        }
    }

    /// The time to judge `leaf` (DER) by. What a CA of `list` has signed is not from the future, so
    /// the date at which it begins is a witness; what a CA that was taken out of service signed is none.
    pub fn now_for(&self, leaf: &[u8], list: &TrustList) -> i64 {
        if self.read().skew != Skew::None
            && list
                .issuer_of(leaf)
                .and_then(|ca| list.root_of(ca))
                .is_some()
            && !list.revokes(leaf)
            && let Ok(leaf) = Summary::of(leaf)
        {
            self.witness(leaf.not_before);
        }
        self.now()
    }

    /// A handshake with both certificates came through; the first of them ends at `until`.
    pub fn confirm(&self, until: i64) {
        self.with(|clock, now| clock.confirm(until, system(), now));
    }

    /// What may be kept for the next start.
    pub fn to_keep(&self) -> Option<i64> {
        self.with(|clock, now| clock.to_keep(now))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Clock, Instant) -> T) -> T {
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut clock, Instant::now())
    }
}

/// When the latest CRL was signed.
fn latest_crl(list: &TrustList) -> Option<i64> {
    list.crl_dates().iter().map(|crl| crl.this_update).max()
}

fn system() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
