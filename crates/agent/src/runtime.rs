//! An agent at work: what both ends have, and what both do alike from their start to their end.
//!
//! An end opens itself around a [`Runtime`], and [`run`] keeps it: it reads files again when they
//! change, follows time windows and dates, hears the manager's signals, and sees it off.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Head, Kind, Record};
use fieldlock_conduit::meter::Meter;
use fieldlock_pki::Role;
use fieldlock_policy::{Policy, Strangers};
use fieldlock_sandbox::{Needs, Sandbox};
use tokio::time::interval;
use tracing::{info, warn};

use crate::authority::{Member, Unproven, follow_list, keep_certificate};
use crate::checkpoint::PeerLogs;
use crate::control::{Control, Reports};
use crate::fieldbus::{Fieldbus, Opened};
use crate::ledger::{Alarm, Ledger};
use crate::manager::Manager;
use crate::monitor::{Monitor, Monitored};
use crate::posture::{
    Posture, WATCH_DATES, WATCH_PHASE, refused, reloaded, short_hex, tell_strangers,
};
use crate::reload::{Changed, Watch};
use crate::settings::audit::Audit;
use crate::settings::profinet::{Controller, Profinet, Station};
use crate::settings::{Configuration, Trust, load, monitor};
use crate::source::Source;
use crate::vitals::Vitals;
use crate::watcher::Watcher;
use crate::{Given, Prepared, StartError, random, stop_signal, trust_files};

/// The configuration of one end.
pub trait Settings: Configuration + PartialEq + 'static {
    const ROLE: Role;

    fn shared(&self) -> Shared<'_>;

    /// Where the policy comes from.
    fn source(&self) -> Source;

    /// Names of the policy that this end does not know.
    fn strangers(&self, policy: &Policy) -> Vec<Strangers>;

    /// Files, beside those that any agent has, that are read again when they change.
    fn watched(&self) -> Vec<PathBuf>;

    /// What the sandbox has to let it into.
    fn needs(&self, file: &Path) -> Needs;

    /// Keys that differ from `old` and take effect at the next start, beside those of [`Shared`].
    fn fixed(&self, old: &Self) -> Vec<&'static str>;
}

/// What both ends configure alike.
#[derive(Debug, PartialEq)]
pub struct Shared<'a> {
    pub state: &'a Path,
    pub policy: Option<&'a Path>,
    pub trust: Trust,
    pub audit: &'a Audit,
    pub profinet: Option<&'a Profinet>,
    pub stations: &'a [Station],
    pub controllers: &'a [Controller],
    pub monitor: Option<&'a monitor::Monitor>,
    pub sandbox: bool,
    pub observe: bool,
    pub drain: Duration,
}

/// What both ends have.
pub struct Runtime<S> {
    file: PathBuf,
    settings: RefCell<Rc<S>>,
    /// Key, certificate, lists, audit log; it stays what it was at the start.
    pub state: PathBuf,
    pub posture: Rc<Posture>,
    pub meter: RefCell<Meter>,
    pub ledger: Rc<Ledger>,
    pub sandbox: Sandbox,
    pub watcher: Watcher,
    pub vitals: Vitals,
    pub instance: [u8; 16],
    pub started: Instant,
    pub peer_logs: PeerLogs,
    pub unproven: Rc<Unproven>,
    /// Where PROFINET is configured.
    pub fieldbus: Option<Rc<Fieldbus>>,
    manager: Rc<Manager>,
    next_link: Cell<u32>,
}

impl<S> fmt::Debug for Runtime<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("file", &self.file)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// An agent of either end.
pub trait End: 'static {
    type Settings: Settings;

    fn runtime(&self) -> &Runtime<Self::Settings>;
}

/// What an end does at each turn of its life.
#[expect(
    async_fn_in_trait,
    reason = "agents run on one thread: nothing asks for Send"
)]
pub trait Life: Member + Monitored + Reports + Sized {
    fn open(runtime: Runtime<Self::Settings>) -> Result<Rc<Self>, StartError>;

    /// Begins to serve. It is on record by now that it starts.
    async fn start(self: &Rc<Self>) -> Result<(), StartError>;

    /// Brings it in line with other settings.
    async fn apply_settings(self: &Rc<Self>) -> Result<(), StartError>;

    /// Another policy is in force.
    fn rules_changed(&self);

    /// Whoever is connected is judged by the rules in force from the next request on.
    fn judge_anew(&self);

    /// Other files have changed than those that any agent has.
    async fn reload(self: &Rc<Self>, before: &Self::Settings, changed: &Changed);

    /// Looks at time windows, which [`Life::judge_anew`] follows, and what else waits for its time.
    fn watch_windows(&self);

    /// Looks what has run out.
    fn watch_dates(&self);

    /// Ends what is connected with a certificate that this trust does not accept any more.
    fn sweep(&self);

    /// Tells the other ends where the audit log of this one stands.
    fn tell_checkpoint(&self, head: &Head);

    /// Lets go of what is connected; what is under way has until the end of `drain`.
    async fn stop(&self, drain: Duration);
}

impl<S: Settings> Runtime<S> {
    fn open(file: PathBuf, settings: S, given: Given) -> Result<Self, StartError> {
        let shared = settings.shared();
        let state = shared.state.to_owned();
        let posture = Rc::new(posture_of(&settings)?);
        tell_strangers(&settings.strangers(&posture.policy()));
        let name = posture.trust().identity.name.to_string();
        let ledger = Ledger::open(&state, &name, shared.audit, posture.clock())?;
        ledger.set_signer(posture.trust().signer.clone());
        ledger.set_policy(&short_hex(&posture.hash()));
        let fieldbus = match (given.fieldbus, shared.profinet) {
            (Some(opened), Some(profinet)) => Some(start_fieldbus::<S>(
                opened, profinet, &shared, &posture, &ledger,
            )?),
            _ => None,
        };
        Ok(Self {
            unproven: Unproven::at_start(&state),
            settings: RefCell::new(Rc::new(settings)),
            file,
            state,
            posture,
            meter: RefCell::default(),
            ledger,
            sandbox: given.sandbox,
            watcher: Watcher::default(),
            vitals: Vitals::default(),
            instance: random()?,
            started: Instant::now(),
            peer_logs: PeerLogs::default(),
            fieldbus,
            manager: given.manager,
            next_link: Cell::new(0),
        })
    }

    /// Those in force.
    pub fn settings(&self) -> Rc<S> {
        self.settings.borrow().clone()
    }

    pub fn strangers(&self) -> Vec<Strangers> {
        self.settings().strangers(&self.posture.policy())
    }

    /// The number of a new tunnel, or of an attempt at one, from 1.
    pub fn next_link(&self) -> u32 {
        self.next_link.set(self.last_link() + 1);
        self.last_link()
    }

    pub fn last_link(&self) -> u32 {
        self.next_link.get()
    }

    /// Differs between agents, and between their runs.
    pub fn seed(&self) -> u64 {
        u64::from_be_bytes(self.instance[..8].try_into().unwrap_or_default())
    }

    /// What is read again when it changes.
    fn files(&self) -> Vec<PathBuf> {
        let settings = self.settings();
        let mut files = trust_files(&self.state);
        files.push(self.file.clone());
        files.extend(settings.shared().policy.map(Path::to_owned));
        files.extend(settings.watched());
        files
    }

    /// The stations and controllers of the settings in force.
    fn reconfigure_fieldbus(&self) {
        let settings = self.settings();
        let shared = settings.shared();
        if let (Some(fieldbus), Some(profinet)) = (&self.fieldbus, shared.profinet) {
            fieldbus.reconfigure(profinet, shared.stations, shared.controllers);
        }
    }
}

fn start_fieldbus<S: Settings>(
    opened: Opened,
    profinet: &Profinet,
    shared: &Shared<'_>,
    posture: &Posture,
    ledger: &Rc<Ledger>,
) -> Result<Rc<Fieldbus>, StartError> {
    let (stations, controllers) = (shared.stations, shared.controllers);
    Fieldbus::start(
        S::ROLE,
        opened,
        profinet,
        (stations, controllers),
        posture,
        ledger,
    )
}

/// The policy and trust that a configuration names.
pub fn posture_of<S: Settings>(settings: &S) -> Result<Posture, StartError> {
    let shared = settings.shared();
    Posture::load(S::ROLE, &settings.source(), shared.state, shared.trust)
}

/// Reads what an agent needs before it runs.
pub fn prepare<E: Life>(file: &Path) -> Result<Prepared, StartError> {
    let settings: E::Settings = load(file)?;
    let shared = settings.shared();
    let file = file.to_owned();
    Ok(Prepared {
        profinet: shared.profinet.cloned(),
        needs: shared.sandbox.then(|| settings.needs(&file)),
        run: Box::new(|given| Box::pin(run::<E>(file, settings, given))),
    })
}

/// Runs an agent until it is told to stop.
async fn run<E: Life>(
    file: PathBuf,
    settings: E::Settings,
    given: Given,
) -> Result<(), StartError> {
    let runtime = Runtime::open(file, settings, given)?;
    let monitor = match runtime.settings().shared().monitor {
        Some(monitor) => Some(Monitor::bind(monitor).await?),
        None => None,
    };
    let control = Control::bind(&runtime.state)?;
    let end = E::open(runtime)?;
    let runtime = end.runtime();
    runtime.ledger.note(Record {
        reason: Some(concat!("fieldlock ", env!("CARGO_PKG_VERSION")).into()),
        ..Record::new(Kind::Start)
    });
    runtime.posture.watch_dates(&runtime.state, &runtime.ledger);
    runtime
        .ledger
        .set_reads(runtime.settings().shared().audit.reads());
    runtime.watcher.turn(runtime.settings().shared().observe);
    end.start().await?;
    watch(&end);
    tokio::task::spawn_local(control.serve(end.clone()));
    if let Some(monitor) = monitor {
        tokio::task::spawn_local(monitor.serve(end.clone()));
    }
    let manager = &runtime.manager;
    tokio::task::spawn_local(manager.clone().inform(end.clone()));
    info!(identity = %runtime.posture.trust().identity.uri(), "{} runs", E::Settings::ROLE);
    manager.ready();
    stop_signal().await?;
    manager.stopping();
    runtime.vitals.stop();
    runtime.posture.leave(&runtime.state).await;
    let drain = runtime.settings().shared().drain;
    info!("stopping: requests under way may finish within {drain:?}");
    end.stop(drain).await;
    runtime.ledger.close();
    Ok(())
}

/// Starts what looks after an agent for as long as it runs.
fn watch<E: Life>(end: &Rc<E>) {
    let runtime = end.runtime();
    let ledger = runtime.ledger.clone();
    let vitals = &runtime.vitals;
    vitals.spawn("records", async move { ledger.run().await });
    vitals.spawn("checkpoints", tell_checkpoints(end.clone()));
    vitals.spawn("dates", watch_dates(end.clone()));
    vitals.spawn("windows", watch_windows(end.clone()));
    vitals.spawn("lists", save_lists(end.clone()));
    tokio::task::spawn_local(watch_files(end.clone()));
    tokio::task::spawn_local(keep_certificate(end.clone()));
    let always = E::Settings::ROLE == Role::Headend;
    tokio::task::spawn_local(follow_list(end.clone(), always));
}

async fn tell_checkpoints<E: Life>(end: Rc<E>) {
    let ledger = &end.runtime().ledger;
    loop {
        ledger.new_checkpoint().await;
        if let Some(head) = ledger.checkpoint() {
            end.tell_checkpoint(&head);
        }
    }
}

async fn watch_dates<E: Life>(end: Rc<E>) {
    let runtime = end.runtime();
    let mut look = interval(WATCH_DATES);
    loop {
        look.tick().await;
        runtime.posture.watch_dates(&runtime.state, &runtime.ledger);
        runtime.ledger.watch_shares();
        if runtime.posture.cuts_stale() {
            end.sweep();
        }
        end.watch_dates();
    }
}

async fn watch_windows<E: Life>(end: Rc<E>) {
    let mut look = interval(WATCH_PHASE);
    loop {
        look.tick().await;
        if end.runtime().posture.phase_changed() {
            judge_anew(&*end);
        }
        end.watch_windows();
    }
}

async fn save_lists<E: Life>(end: Rc<E>) {
    let runtime = end.runtime();
    runtime.posture.save_lists(&runtime.state).await;
}

async fn watch_files<E: Life>(end: Rc<E>) {
    let runtime = end.runtime();
    let mut watch = match Watch::new(runtime.files()) {
        Ok(watch) => watch,
        Err(error) => {
            warn!(%error, "files and SIGHUP are not watched");
            return;
        }
    };
    loop {
        let changed = watch.changed().await;
        runtime.manager.reloading();
        reload(&end, &changed).await;
        runtime.manager.ready();
        watch.follow(runtime.files());
    }
}

async fn reload<E: Life>(end: &Rc<E>, changed: &Changed) {
    let runtime = end.runtime();
    let before = runtime.settings();
    if changed.includes(&runtime.file) {
        reload_settings(end).await;
    }
    let settings = runtime.settings();
    let source = settings.source();
    let is_other = settings
        .shared()
        .policy
        .is_some_and(|file| changed.includes(file));
    if source != before.source() || is_other {
        let (posture, ledger) = (&runtime.posture, &runtime.ledger);
        if posture.reload_policy(&source, &runtime.state, ledger) {
            rules_changed(&**end);
        }
    }
    if changed.includes(&runtime.state) {
        end.identity_changed().await;
    }
    end.reload(&before, changed).await;
}

async fn reload_settings<E: Life>(end: &Rc<E>) {
    let runtime = end.runtime();
    let ledger = &runtime.ledger;
    let settings: E::Settings = match load(&runtime.file) {
        Ok(settings) => settings,
        Err(error) => {
            let text = format!("the old configuration stays in force: {error}");
            refused(ledger, &text);
            ledger.raise(Alarm::ConfigurationRefused, "", &text);
            return;
        }
    };
    let old = runtime.settings();
    if settings == *old {
        ledger.clear(Alarm::ConfigurationRefused, "");
        return;
    }
    for key in fixed(&settings, &old) {
        warn!("{key} takes effect at the next start");
    }
    ledger.set_reads(settings.shared().audit.reads());
    *runtime.settings.borrow_mut() = Rc::new(settings);
    runtime.watcher.turn(runtime.settings().shared().observe);
    runtime.reconfigure_fieldbus();
    tell_strangers(&runtime.strangers());
    match end.apply_settings().await {
        Ok(()) => {
            ledger.clear(Alarm::ConfigurationRefused, "");
            reloaded(ledger, &format!("configuration {}", runtime.file.display()));
        }
        Err(error) => {
            let text = format!("the new configuration is in force only in part: {error}");
            ledger.raise(Alarm::ConfigurationRefused, "", &text);
        }
    }
}

/// The keys that differ and take effect at the next start.
fn fixed<S: Settings>(settings: &S, old: &S) -> Vec<&'static str> {
    let (new, was) = (settings.shared(), old.shared());
    let differing = [
        ("`state`", new.state != was.state),
        ("[monitor]", new.monitor != was.monitor),
        ("`sandbox`", new.sandbox != was.sandbox),
    ];
    let shared = differing.into_iter().filter(|(_, differs)| *differs);
    let own = settings.fixed(old);
    shared.map(|(key, _)| key).chain(own).collect()
}

/// Another policy is in force.
pub fn rules_changed<E: Life>(end: &E) {
    let runtime = end.runtime();
    tell_strangers(&runtime.strangers());
    runtime.meter.borrow_mut().clear();
    end.rules_changed();
    judge_anew(end);
}

fn judge_anew<E: Life>(end: &E) {
    let runtime = end.runtime();
    if let Some(fieldbus) = &runtime.fieldbus {
        fieldbus.judge_anew(&runtime.posture);
    }
    end.judge_anew();
}
