//! What an agent gets from its CA by itself: a certificate in time, and the trust list.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fieldlock_enroll::Client;
use fieldlock_pki::{Installed, Name, Serial, Summary, TrustList, store};
use fieldlock_session::Backoff;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::disk;
use crate::ledger::Alarm;
use crate::posture::reloaded;
use crate::runtime::End;

/// An agent, seen from its CA.
pub trait Member: End {
    /// Where the CA is, and the NAME in its certificate; `None` where none is configured.
    fn authority(&self) -> Option<(Vec<String>, Name)>;
    /// A whole list of the CA itself.
    fn take_list(&self, list: &TrustList) -> Result<(), String>;
    /// Another key and certificate are installed.
    fn identity_changed(&self) -> impl Future<Output = ()>;
    /// Whether a tunnel is up: then the network is not to blame for one that is not.
    fn is_connected(&self) -> bool;
}

/// A renewed pair that has not worked yet.
#[derive(Debug)]
pub struct Unproven(Cell<bool>);

impl Unproven {
    /// What an earlier run of the agent left to be proven.
    pub fn at_start(state: &std::path::Path) -> Rc<Self> {
        Rc::new(Self(Cell::new(state.join(store::PREVIOUS).exists())))
    }

    /// A tunnel has come up: if it was with the renewed pair, the earlier one can go.
    pub fn proven(&self, state: &std::path::Path) {
        if !self.0.take() {
            return;
        }
        let state = state.to_owned();
        spawn_blocking(move || {
            if let Err(error) = store::confirm(&state) {
                warn!("the certificate before the renewal stays on the disk: {error}");
            }
        });
    }

    pub fn renewed(&self) {
        self.0.set(true);
    }

    fn is_pending(&self) -> bool {
        self.0.get()
    }
}

/// How often the time is compared with what is due; another certificate may be there by then.
const LOOK: Duration = Duration::from_secs(5);
/// How often an edge looks whether it has to ask for the lists.
const LOOK_AT_LISTS: Duration = Duration::from_secs(10);
/// How often an agent without a clock asks the CA for the time.
const ASK_TIME: Duration = Duration::from_secs(3600);
/// And one without a tunnel for the list.
const ASK_ALONE: Duration = Duration::from_secs(60);
/// A renewed pair must have worked by then.
const PROOF: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LAST: Duration = Duration::from_secs(3600);
/// Of the trust list: an outage of the CA must not delay a revocation for long.
const FETCH_LAST: Duration = Duration::from_secs(30);
const LONG_POLL: Duration = Duration::from_secs(50);

/// When a certificate is to be renewed, in seconds since 1970: after two thirds of its life, a
/// tenth more or less by `seed`, so that boxes that were enrolled together don't come together.
pub fn renewal_due(leaf: &Summary, seed: u64) -> i64 {
    let life = leaf.not_after - leaf.not_before;
    // 0.60 to 0.73 of the life, in thousandths.
    let share = 600 + i64::try_from(seed % 134).unwrap_or(0);
    leaf.not_before + (life / 1000) * share + (life % 1000) * share / 1000
}

/// Renews the certificate for as long as the agent runs.
pub async fn keep_certificate<M: Member>(member: Rc<M>) {
    let runtime = member.runtime();
    let unproven = &runtime.unproven;
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST, runtime.seed());
    // A certificate of ours, and until when it is not renewed again.
    let mut fresh: Option<(Serial, Instant)> = None;
    loop {
        let trust = runtime.posture.trust();
        let due = renewal_due(&trust.leaf, runtime.seed());
        let Some((addresses, ca)) = member.authority() else {
            sleep(LOOK).await;
            continue;
        };
        let left = due - runtime.posture.clock().now();
        let is_fresh = |(serial, until): &(Serial, Instant)| {
            *serial == trust.leaf.serial && Instant::now() < *until
        };
        if left > 0 || fresh.as_ref().is_some_and(is_fresh) {
            sleep(LOOK.min(Duration::from_secs(left.max(1).unsigned_abs()))).await;
            continue;
        }
        drop(trust);
        match renew(&*member, addresses, &ca).await {
            Ok(leaf) => {
                info!(serial = %leaf.serial, "certificate renewed");
                reloaded(
                    &runtime.ledger,
                    &format!("certificate {} by renewal", leaf.serial),
                );
                runtime.ledger.clear(Alarm::RenewalFailed, "");
                unproven.renewed();
                // By a clock that is far ahead the next one would be due at once.
                let life = (leaf.not_after - leaf.not_before).unsigned_abs();
                let rest = Duration::from_secs(life / 3);
                fresh = Some((leaf.serial, Instant::now() + rest));
                member.identity_changed().await;
                if prove(&*member, unproven).await {
                    backoff.reset();
                } else {
                    sleep(backoff.delay()).await;
                }
            }
            Err(reason) => {
                let text = format!("the certificate can't be renewed: {reason}");
                let posture = &runtime.posture;
                posture.raise_for_authority(&runtime.ledger, Alarm::RenewalFailed, &text);
                sleep(backoff.delay()).await;
            }
        }
    }
}

async fn renew(member: &impl Member, addresses: Vec<String>, ca: &Name) -> Result<Summary, String> {
    let state = member.runtime().state.clone();
    let clock = member.runtime().posture.clock();
    let client = |installed: &Installed| {
        Client::installed(addresses.clone(), installed, ca, clock)
            .map_err(|error| error.to_string())
    };
    // The new certificate may come from a CA that is not known here yet.
    let fetched = client(&load(member).await?)?;
    let fetched = fetched.trust(None, Duration::ZERO).await;
    if let Some(fetched) = fetched.map_err(|error| error.to_string())? {
        member.take_list(&fetched.list)?;
    }
    let installed = load(member).await?;
    let renewed = client(&installed)?.reenroll(&installed).await;
    let renewed = renewed.map_err(|error| error.to_string())?;
    let leaf = Summary::of(&renewed.leaf).map_err(|error| error.to_string())?;
    let stored = disk::apart(move || {
        store::renew(&state, &renewed.key_pem, &renewed.leaf, &renewed.issuing)
    });
    stored.await.map_err(|error| error.to_string())?;
    Ok(leaf)
}

/// What is installed, the list in force with it.
async fn load(member: &impl Member) -> Result<Installed, String> {
    let state = member.runtime().state.clone();
    let saved = member.runtime().posture.save_list(&state).await;
    saved.map_err(|error| error.to_string())?;
    let loaded = disk::apart(move || Installed::load(&state)).await;
    loaded.map_err(|error| error.to_string())
}

/// Goes back to the earlier pair if the new one does not work where the earlier still does;
/// whether the new one stays.
async fn prove(member: &impl Member, unproven: &Unproven) -> bool {
    sleep(PROOF).await;
    if !unproven.is_pending() || !member.is_connected() {
        return true;
    }
    unproven.0.set(false);
    let text = "no tunnel came up with the renewed certificate: the earlier one is in force again";
    let runtime = member.runtime();
    runtime.ledger.raise(Alarm::RenewalFailed, "", text);
    let state = runtime.state.clone();
    match disk::apart(move || store::revert(&state)).await {
        Ok(()) => member.identity_changed().await,
        Err(error) => warn!("going back to the earlier certificate failed: {error}"),
    }
    false
}

/// Follows the CA's trust list: `always` by a long poll, otherwise only while a CRL is past its
/// date, where only the CA can say what time it is, and while no headend is to be had: theirs may be
/// certificates of a CA that this agent has not heard of.
pub async fn follow_list<M: Member>(member: Rc<M>, always: bool) {
    let runtime = member.runtime();
    let mut backoff = Backoff::new(RETRY_FIRST, FETCH_LAST, runtime.seed());
    let mut asked = None;
    let mut was_alone = false;
    loop {
        let Some((addresses, ca)) = member.authority() else {
            sleep(LOOK_AT_LISTS).await;
            continue;
        };
        let not_asked_for = |time| asked.is_none_or(|at: Instant| at.elapsed() >= time);
        let needs_time = runtime.posture.has_no_clock() && not_asked_for(ASK_TIME);
        let must = always || runtime.posture.has_stale_crl();
        let is_alone = !member.is_connected();
        let stays_alone = std::mem::replace(&mut was_alone, is_alone) && is_alone;
        if !(must || needs_time || stays_alone && not_asked_for(ASK_ALONE)) {
            sleep(LOOK_AT_LISTS).await;
            continue;
        }
        match fetch(&*member, addresses, &ca, always).await {
            Ok(()) => {
                backoff.reset();
                asked = Some(Instant::now());
                runtime.ledger.clear(Alarm::CaUnreachable, "");
                if !always {
                    sleep(LOOK_AT_LISTS).await;
                }
            }
            Err(reason) => {
                debug!("trust list: {reason}");
                asked = Some(Instant::now());
                // The rest is a try: there are plants without a CA on the network.
                if must {
                    let text = format!("no trust list from the CA: {reason}");
                    let posture = &runtime.posture;
                    posture.raise_for_authority(&runtime.ledger, Alarm::CaUnreachable, &text);
                    sleep(backoff.delay()).await;
                }
            }
        }
    }
}

async fn fetch(
    member: &impl Member,
    addresses: Vec<String>,
    ca: &Name,
    wait: bool,
) -> Result<(), String> {
    let installed = load(member).await?;
    let clock = member.runtime().posture.clock();
    let client = Client::installed(addresses, &installed, ca, clock);
    let client = client.map_err(|error| error.to_string())?;
    let hash = member.runtime().posture.trust().list.hash();
    let digits: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
    let wait = if wait { LONG_POLL } else { Duration::ZERO };
    let fetched = client.trust(Some(&format!("\"{digits}\"")), wait).await;
    match fetched.map_err(|error| error.to_string())? {
        Some(fetched) => member.take_list(&fetched.list),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_around_two_thirds_of_any_life() {
        for life in [600, 86_400, 90 * 86_400, 30 * 365 * 86_400_i64] {
            let leaf = Summary {
                subject: String::new(),
                issuer: String::new(),
                serial: "1".parse().unwrap(),
                not_before: 1000,
                not_after: 1000 + life,
                identity: None,
                modbus_role: None,
                fingerprint: String::new(),
                key_hash: String::new(),
                is_ca: false,
            };
            let dues: Vec<i64> = (0..1000).map(|seed| renewal_due(&leaf, seed)).collect();
            let (first, last) = (dues.iter().min().unwrap(), dues.iter().max().unwrap());
            assert!(*first >= 1000 + life * 59 / 100, "{first}");
            assert!(*last <= 1000 + life * 74 / 100, "{last}");
            assert!(last - first > life / 10);
        }
    }
}
