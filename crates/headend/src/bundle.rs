//! Carries policy bundles to edges. Who signed them is for the edges to judge.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Record};
use fieldlock_policy::Bundle;
use fieldlock_session::{Close, Fate};
use fieldlock_status::headend;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Headend;
use super::tunnel::EdgeTunnel;
use fieldlock_agent::ledger::Alarm;
use fieldlock_agent::posture::refused;
use fieldlock_agent::quota::Quota;
use fieldlock_agent::source::read_bundle;

/// How long an edge has to take all of one; then it is offered none on this tunnel any more.
const CARRY: Duration = Duration::from_secs(120);

/// What an edge may say of bundles in a minute.
const MAX_WORDS: u32 = 64;

/// What the configured files hold.
#[derive(Debug, Default)]
pub(super) struct Bundles(Vec<Rc<Bundle>>);

impl Bundles {
    /// For those who only try a configuration.
    pub(super) fn check(files: &[PathBuf]) -> Result<(), String> {
        match Self::read(files) {
            (_, errors) if errors.is_empty() => Ok(()),
            (_, errors) => Err(errors.join("\n")),
        }
    }

    /// What can be read, and why the rest can't.
    fn read(files: &[PathBuf]) -> (Self, Vec<String>) {
        let (mut bundles, mut errors) = (Vec::new(), Vec::new());
        for file in files {
            let read = read_bundle(file).and_then(|octets| {
                Bundle::parse(&octets).map_err(|error| format!("{}: {error}", file.display()))
            });
            match read {
                Ok(bundle) => bundles.push(Rc::new(bundle)),
                Err(error) => errors.push(error),
            }
        }
        (Self(bundles), errors)
    }

    /// The one with the highest version of those for `edge`.
    fn newest_for(&self, edge: &str) -> Option<Rc<Bundle>> {
        let own = self.0.iter().filter(|b| b.header.edges.includes(edge));
        own.max_by_key(|bundle| bundle.header.version).cloned()
    }
}

/// What an edge has of bundles, as far as its tunnel has told.
#[derive(Debug)]
pub(crate) struct Carried {
    /// In force; 0 for none, nothing for an edge that takes none.
    version: Cell<Option<u64>>,
    /// What it said of the last that it did not put in force, with that one's version.
    pending: RefCell<Option<(u64, Fate, String)>>,
    /// The last that was offered here.
    offered: RefCell<Option<Rc<Bundle>>>,
    under_way: Cell<bool>,
    /// What it says of bundles: each is a record.
    words: Quota,
}

impl Carried {
    pub(super) fn new(version: Option<u64>) -> Self {
        Self {
            version: Cell::new(version),
            pending: RefCell::default(),
            offered: RefCell::default(),
            under_way: Cell::new(false),
            words: Quota::per_minute(MAX_WORDS),
        }
    }

    pub(super) fn status(&self) -> Option<headend::Bundle> {
        let pending = self.pending.borrow();
        let of = |wanted: Fate| {
            let found = pending.as_ref().filter(|(_, fate, _)| *fate == wanted);
            found.map(|(version, _, text)| headend::PendingBundle {
                version: *version,
                text: text.clone(),
            })
        };
        Some(headend::Bundle {
            version: self.version.get()?,
            waiting: of(Fate::Waits),
            refused: of(Fate::Refused),
        })
    }

    /// Whether it has refused the last that was offered, and that is this one.
    fn refuses(&self, bundle: &Rc<Bundle>) -> bool {
        let pending = self.pending.borrow();
        let refused = pending
            .as_ref()
            .is_some_and(|(_, fate, _)| *fate == Fate::Refused);
        refused && self.has_been_offered(bundle)
    }

    fn has_been_offered(&self, bundle: &Rc<Bundle>) -> bool {
        self.offered.borrow().as_ref().is_some_and(|o| o == bundle)
    }
}

impl Headend {
    /// Reads the files again, and carries what is new. What can't be read is left out.
    pub(super) fn reload_bundles(self: &Rc<Self>) {
        let (bundles, errors) = Bundles::read(&self.runtime.settings().bundle.files);
        *self.bundles.borrow_mut() = bundles;
        if errors.is_empty() {
            self.runtime.ledger.clear(Alarm::PolicyBundleRefused, "");
        } else {
            let text = format!("not carried to any edge: {}", errors.join("; "));
            refused(&self.runtime.ledger, &text);
            self.runtime
                .ledger
                .raise(Alarm::PolicyBundleRefused, "", &text);
        }
        let tunnels = self.registry.tunnels();
        for tunnel in tunnels {
            self.carry_bundle(&tunnel);
        }
    }

    /// Offers the edge what is newer than what it has, one after the other.
    pub(super) fn carry_bundle(self: &Rc<Self>, tunnel: &Rc<EdgeTunnel>) {
        let edge = tunnel.link.peer.identity.name.as_str();
        let newest = self.bundles.borrow().newest_for(edge);
        if !newest.is_some_and(|newest| tunnel.carried.refuses(&newest)) {
            self.runtime.ledger.clear(Alarm::PolicyBundleRefused, edge);
        }
        if tunnel.carried.under_way.replace(true) {
            return;
        }
        let (headend, tunnel) = (self.clone(), tunnel.clone());
        tokio::task::spawn_local(async move {
            while let Some(bundle) = headend.to_offer(&tunnel) {
                *tunnel.carried.offered.borrow_mut() = Some(bundle.clone());
                let text = bundle.to_string();
                if timeout(CARRY, tunnel.link.offer_bundle(text.as_bytes()))
                    .await
                    .is_err()
                {
                    let edge = tunnel.link.peer.identity.name.as_str();
                    warn!(edge, "a policy bundle did not get through");
                    return;
                }
            }
            tunnel.carried.under_way.set(false);
        });
    }

    fn to_offer(&self, tunnel: &EdgeTunnel) -> Option<Rc<Bundle>> {
        let carried = &tunnel.carried;
        let has = carried.version.get()?;
        let edge = tunnel.link.peer.identity.name.as_str();
        let newest = self.bundles.borrow().newest_for(edge)?;
        let wanted = newest.header.version > has && !carried.has_been_offered(&newest);
        wanted.then_some(newest)
    }

    /// The edge has said what it did with a bundle.
    pub(super) fn bundle_fate(&self, tunnel: &EdgeTunnel, version: u64, fate: Fate, text: String) {
        let identity = &tunnel.link.peer.identity;
        let edge = identity.name.as_str();
        let carried = &tunnel.carried;
        if !carried.words.take(Instant::now()) {
            let text = "says more of policy bundles than there are";
            return tunnel.link.close(Close::Protocol, text);
        }
        let Some(before) = carried.version.get() else {
            // It had not said that it takes any.
            return;
        };
        carried.version.set(Some(version));
        let record = |kind, reason: String| {
            self.runtime.ledger.note(Record {
                tunnel: Some(identity.uri().into()),
                reason: Some(reason.into()),
                ..Record::new(kind)
            });
        };
        if version != before {
            let what = format!("edge {edge} has policy bundle {version} in force");
            info!(edge, version, "policy bundle in force");
            record(Kind::Reload, what);
        }
        if fate == Fate::InForce {
            carried.pending.take();
            return self.runtime.ledger.clear(Alarm::PolicyBundleRefused, edge);
        }
        let offered = carried.offered.borrow().as_ref().map(|b| b.header.version);
        let offered = offered.unwrap_or(0);
        if fate == Fate::Waits {
            self.runtime.ledger.clear(Alarm::PolicyBundleRefused, edge);
        } else {
            let what = format!("edge {edge} refuses policy bundle {offered}: {text}");
            record(Kind::ReloadRefused, what.clone());
            self.runtime
                .ledger
                .raise(Alarm::PolicyBundleRefused, edge, &what);
        }
        *carried.pending.borrow_mut() = Some((offered, fate, text));
    }
}
