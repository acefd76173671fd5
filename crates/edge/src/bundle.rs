//! Policy bundles: whoever brings one, its signer, its scope and its version decide.

use fieldlock_pki::Name;
use fieldlock_pki::store::{self, NEXT_POLICY_BUNDLE, POLICY_BUNDLE, POLICY_FLOOR};
use fieldlock_policy::bundle::time_text;
use fieldlock_policy::{Bundle, Now, bundle};
use fieldlock_session::{Fate, state};
use fieldlock_transport::tunnel::Link;
use tracing::{info, warn};

use super::Edge;
use super::offers::Offer;
use crate::settings::File;
use fieldlock_agent::disk;
use fieldlock_agent::ledger::Alarm;
use fieldlock_agent::posture::{refused, reloaded};
use fieldlock_agent::runtime::{self, Settings as _};
use fieldlock_agent::source::{Bundled, Floor, read_bundle};

/// A bundle that has been judged and waits for its time.
#[derive(Debug, Clone)]
pub(super) struct Next {
    pub(super) bundle: Floor,
    /// Seconds since 1970-01-01 UTC.
    pub(super) not_before: i64,
}

/// What became of a bundle.
pub(super) struct Answer {
    pub(super) fate: Fate,
    /// For people, where it is not in force.
    pub(super) text: String,
}

impl Answer {
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self {
            fate: Fate::Refused,
            text: text.into(),
        }
    }
}

// What may be signed may be carried.
const _: () = assert!(bundle::MAX_BUNDLE == state::MAX_BUNDLE);

/// For those who only try a configuration: the bundle that it names.
pub(super) fn check_file(settings: &File, name: &Name) -> Result<(), String> {
    let Some(file) = &settings.bundle.file else {
        return Ok(());
    };
    let named = |error: String| format!("{}: {error}", file.display());
    let bundle = Bundle::parse(&read_bundle(file)?).map_err(|error| named(error.to_string()))?;
    settings.source().believe(&bundle, name).map_err(named)?;
    let compiled = bundle::compile(&bundle, &file.display().to_string());
    compiled.map_err(|errors| errors.to_string())?;
    Ok(())
}

impl Edge {
    /// What an earlier run left waiting, and what was put there since; to be called before anything can
    /// cross.
    pub(super) async fn start_bundles(&self) {
        let settings = self.runtime.settings();
        if settings.bundle.signers.is_empty() {
            return;
        }
        if let Bundled::InForce { bundle, .. } = self.runtime.posture.bundle()
            && Floor::read(&settings.state).as_ref() != Some(&bundle)
        {
            // The floor is written after the bundle: a crash may have come between.
            self.keep_floor(&bundle).await;
        }
        self.watch_bundle();
        if settings.state.join(NEXT_POLICY_BUNDLE).exists() {
            self.judge_next().await;
        }
        self.take_bundle_file().await;
    }

    /// Of a headend. One that is refused ends no tunnel: another headend of the site may carry a better
    /// one.
    pub(super) async fn take_offered_bundle(&self, link: &Link, octets: &[u8]) {
        let in_force = || self.runtime.posture.bundle().version().unwrap_or(0);
        let before = in_force();
        let answer = self.judge_bundle(octets).await.unwrap_or_else(|reason| {
            let headend = link.peer.identity.name.as_str();
            let text = format!("policy bundle of headend {headend} is refused: {reason}");
            warn!(headend, "policy bundle refused: {reason}");
            refused(&self.runtime.ledger, &text);
            Answer::refused(reason)
        });
        match in_force() {
            version if version == before => link.have_bundle(version, answer.fate, &answer.text),
            // The other headends hear of it too.
            _ => self.tell_bundle(&answer),
        }
    }

    /// Of the file in the configuration. One that is older than what headends brought is no fault.
    pub(super) async fn take_bundle_file(&self) {
        let settings = self.runtime.settings();
        let Some(file) = &settings.bundle.file else {
            return self.runtime.ledger.clear(Alarm::PolicyBundleRefused, "");
        };
        let octets = read_bundle(file);
        let version = octets.as_ref().ok().and_then(|octets| {
            let bundle = Bundle::parse(octets).ok()?;
            Some(bundle.header.version)
        });
        let floor = self.floor().map(|floor| floor.version);
        if version.is_some() && version < floor {
            info!(file = %file.display(), "the policy bundle in the file is older than the last in force");
            return self.runtime.ledger.clear(Alarm::PolicyBundleRefused, "");
        }
        let judged = match octets {
            Ok(octets) => self.judge_bundle(&octets).await,
            Err(error) => Err(error),
        };
        match judged {
            Ok(answer) => {
                self.runtime.ledger.clear(Alarm::PolicyBundleRefused, "");
                self.tell_bundle(&answer);
            }
            Err(reason) => {
                let text = format!("policy bundle {} is refused: {reason}", file.display());
                refused(&self.runtime.ledger, &text);
                self.runtime
                    .ledger
                    .raise(Alarm::PolicyBundleRefused, "", &text);
            }
        }
    }

    /// The bundle that waited, if its time has come.
    pub(super) fn apply_due_bundle(&self) {
        let not_before = self.next_bundle.borrow().as_ref().map(|n| n.not_before);
        if not_before.is_some_and(|time| self.is_due(time)) {
            self.offers.put(Offer::Due);
        }
    }

    /// Judges what waits on the disk as if it came now.
    pub(super) async fn judge_next(&self) -> Answer {
        self.next_bundle.take();
        let state = &self.runtime.state;
        let judged = match read_bundle(&state.join(NEXT_POLICY_BUNDLE)) {
            Ok(octets) => self.judge_bundle(&octets).await,
            Err(error) => Err(error),
        };
        let answer = judged.unwrap_or_else(|reason| {
            let text = format!("the policy bundle that waited is refused: {reason}");
            warn!("{text}");
            refused(&self.runtime.ledger, &text);
            Answer::refused(reason)
        });
        if answer.fate != Fate::Waits
            && let Err(error) = self.keep(NEXT_POLICY_BUNDLE, None).await
        {
            warn!("the policy bundle that waited can't be removed: {error}");
        }
        answer
    }

    /// Raises and clears the alarm about having none.
    pub(super) fn watch_bundle(&self) {
        match self.runtime.posture.bundle() {
            Bundled::Missing(reason) => {
                let text = format!("no policy bundle is in force, nothing crosses: {reason}");
                self.runtime
                    .ledger
                    .raise(Alarm::PolicyBundleMissing, "", &text);
            }
            Bundled::Plain | Bundled::InForce { .. } => {
                self.runtime.ledger.clear(Alarm::PolicyBundleMissing, "");
            }
        }
    }

    /// Takes a bundle, or says why not; then nothing has changed in what is in force.
    async fn judge_bundle(&self, octets: &[u8]) -> Result<Answer, String> {
        let source = self.runtime.settings().source();
        if source.signers.is_empty() {
            return Err("this edge pins no signer of bundles".to_owned());
        }
        let bundle = Bundle::parse(octets).map_err(|error| error.to_string())?;
        // What it says is believed from here on, and not before.
        source.believe(&bundle, &self.runtime.posture.trust().identity.name)?;
        let version = bundle.header.version;
        let own = Floor::of(&bundle);
        let next = self.next_bundle.borrow().clone();
        let floor = self.floor();
        if let Some(floor) = floor.filter(|floor| !floor.admits(&bundle)) {
            let last = floor.version;
            return Err(match version == last {
                true => format!("it is another version {version} than the one that was in force"),
                false => format!("its version {version} is not above {last}, the last in force"),
            });
        }
        if self.runtime.posture.bundle().version() == Some(version) {
            return Ok(Answer {
                fate: Fate::InForce,
                text: String::new(),
            });
        }
        let due = bundle
            .header
            .not_before
            .is_none_or(|time| self.is_due(time));
        if let Some(next) = &next {
            let waiting = next.bundle.version;
            if waiting == version && next.bundle != own {
                let reason = format!("it is another version {version} than the one that waits");
                return Err(reason);
            }
            if waiting > version && !due {
                return Err(format!("version {waiting} waits already"));
            }
        }
        let name = format!("policy bundle {version}");
        let policy = bundle::compile(&bundle, &name).map_err(|errors| errors.to_string())?;
        source.check_file()?;
        if let Some(not_before) = bundle.header.not_before.filter(|_| !due) {
            let until = time_text(not_before);
            if next.is_none_or(|next| next.bundle != own) {
                self.keep(NEXT_POLICY_BUNDLE, Some(octets)).await?;
                let what = format!("policy bundle {version} waits until {until}");
                reloaded(&self.runtime.ledger, &what);
                let bundle = own;
                *self.next_bundle.borrow_mut() = Some(Next { bundle, not_before });
            }
            return Ok(Answer {
                fate: Fate::Waits,
                text: format!("version {version} waits until {until}"),
            });
        }
        self.keep(POLICY_BUNDLE, Some(octets)).await?;
        self.keep_floor(&own).await;
        if next.is_none_or(|next| next.bundle.version <= version) {
            self.next_bundle.take();
            // What is left of it is refused as too old.
            let _ = self.keep(NEXT_POLICY_BUNDLE, None).await;
        }
        // Who is pinned, and what narrows it, may have changed while this waited for the disk.
        let source = self.runtime.settings().source();
        source.believe(&bundle, &self.runtime.posture.trust().identity.name)?;
        let rules = source.rules_of(&bundle, policy)?;
        let what = format!("{} is in force", rules.bundle);
        self.runtime.posture.put_rules(rules, &self.runtime.ledger);
        reloaded(&self.runtime.ledger, &what);
        runtime::rules_changed(self);
        self.watch_bundle();
        Ok(Answer {
            fate: Fate::InForce,
            text: String::new(),
        })
    }

    /// As the disk has it, or this run knows.
    fn floor(&self) -> Option<Floor> {
        let known = match self.runtime.posture.bundle() {
            Bundled::InForce { bundle, .. } => Some(bundle),
            Bundled::Plain | Bundled::Missing(_) => None,
        };
        Floor::higher(Floor::read(&self.runtime.state), known)
    }

    /// A clock that is known to be wrong, either way, brings nothing into force.
    fn is_due(&self, not_before: i64) -> bool {
        matches!(self.runtime.posture.now(), Now::At(now) if now >= not_before)
    }

    /// Without it the bundle itself still is the floor, as long as it is there.
    async fn keep_floor(&self, floor: &Floor) {
        let text = floor.text();
        if let Err(error) = self.keep(POLICY_FLOOR, Some(text.as_bytes())).await {
            warn!("the version of the policy bundle can't be kept: {error}");
        }
    }

    async fn keep(&self, file: &'static str, content: Option<&[u8]>) -> Result<(), String> {
        let state = self.runtime.state.clone();
        let content = content.map(<[u8]>::to_vec);
        let kept = disk::apart(move || store::keep_policy(&state, file, content.as_deref()));
        kept.await.map_err(|error| error.to_string())
    }

    /// Headends hear of what did not come through them.
    pub(super) fn tell_bundle(&self, answer: &Answer) {
        let version = self.runtime.posture.bundle().version().unwrap_or(0);
        for (link, handler) in self.tunnels.borrow().values() {
            // An older build takes no word of bundles.
            if handler.hello().is_none_or(|hello| hello.bundle.is_none()) {
                continue;
            }
            link.have_bundle(version, answer.fate, &answer.text);
        }
    }
}
