//! What both agents are made of: async shells around the cores. The ends themselves are
//! `fieldlock-edge` and `fieldlock-headend`; neither knows the other, and what joins them is
//! `fieldlock-transport`.
//!
//! - [`fieldbus`]: the wire of PROFINET stations, at either end.
//! - [`runtime`]: what both ends have and do alike, from their start to their end.
//! - [`ledger`], [`posture`], [`source`], [`authority`], [`disk`], [`control`], [`reload`]: what every agent has.
//! - [`recent`]: the last events, for [`control`].
//! - [`monitor`], [`manager`], [`vitals`]: who asks whether it is well, and how that is known.
//! - [`sandbox`]: what the process may do at all.
//! - [`settings`]: configuration files.
//!
//! An agent runs on one thread. At a few thousand requests a second system calls are the
//! cost, and a second worker only adds wake-ups across cores; the audit log has a thread
//! of its own, since it waits for the disk.

pub mod authority;
pub mod checkpoint;
pub mod control;
pub mod disk;
pub mod fates;
pub mod fieldbus;
pub mod ledger;
pub mod library;
pub mod manager;
pub mod monitor;
pub mod posture;
pub mod quota;
pub mod recent;
pub mod reload;
pub mod runtime;
pub mod sandbox;
pub mod settings;
pub mod source;
pub mod status;
pub mod vitals;
pub mod watcher;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use fieldlock_audit::JournalError;
use fieldlock_pki::store;
use fieldlock_rawsock::OpenError;
use fieldlock_rawsock::privileges::{DropError, drop_raw};
use fieldlock_sandbox::{Needs, Sandbox};
use fieldlock_transport::tls::TrustError;
use thiserror::Error;
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};

pub use control::SOCKET;
use fieldbus::Opened;
pub use ledger::FOLDER as AUDIT;
use manager::Manager;
use settings::SettingsError;
use settings::profinet::Profinet;

/// One of the two agents, to be checked or run. What a program does not name is not in it: an edge
/// can do without the headend's code.
#[derive(Debug)]
pub struct Agent {
    /// Where its configuration is, unless it is said.
    pub configuration: &'static str,
    pub check: fn(&Path) -> Result<String, StartError>,
    pub dial: fn(PathBuf) -> Dialling,
    pub prepare: fn(&Path) -> Result<Prepared, StartError>,
}

pub type Dialling = Pin<Box<dyn Future<Output = Result<Vec<Dialled>, StartError>>>>;
pub type Running = Pin<Box<dyn Future<Output = Result<(), StartError>>>>;

/// What came of dialling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialled {
    /// A device, headend or CA, and its address.
    pub what: String,
    /// What it said, or why there was nothing.
    pub outcome: Result<String, String>,
}

/// An agent that has read its configuration, and what it needs of the system before it runs.
pub struct Prepared {
    pub profinet: Option<Profinet>,
    /// `None`: it is not to be confined.
    pub needs: Option<Needs>,
    pub run: Box<dyn FnOnce(Given) -> Running>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("profinet", &self.profinet)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

/// Why an agent does not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{0}")]
    Policy(String),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("can't listen on {address}: {source}")]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("control socket {path}: {source}", path = path.display())]
    Control {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{address}` can't be resolved: {source}")]
    Resolve {
        address: String,
        source: std::io::Error,
    },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Fieldbus(#[from] OpenError),
    #[error(transparent)]
    Privileges(#[from] DropError),
    #[error("the system gives no random numbers")]
    Random,
}

impl StartError {
    /// Whether the operator has to change the configuration.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Policy(_))
    }
}

impl Agent {
    /// Reads configuration and policy, tries key and certificates; opens and dials nothing.
    pub fn check(&self, file: &Path) -> Result<String, StartError> {
        (self.check)(file)
    }

    /// Dials what the configuration names, says what became of it, and hangs up.
    pub fn dial(&self, file: &Path) -> Result<Vec<Dialled>, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        let dialled = runtime.block_on((self.dial)(file.to_owned()));
        runtime.shutdown_background();
        dialled
    }

    /// Runs until SIGTERM or SIGINT.
    pub fn run(&self, file: &Path) -> Result<(), StartError> {
        let Prepared {
            profinet,
            needs,
            run,
        } = (self.prepare)(file)?;
        // Both before there is a second thread.
        let given = Given {
            manager: Manager::of_environment().into(),
            fieldbus: open_fieldbus(profinet.as_ref())?,
            sandbox: needs.as_ref().map(Sandbox::enter).unwrap_or_default(),
        };
        // A `LocalSet` on another runtime would make quinn's tasks and ours wake each other across
        // a border, which costs a look at the sockets each time.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        let outcome = runtime.block_on(run(given));
        runtime.shutdown_background();
        outcome
    }
}

/// What an agent is given that was opened before its runtime.
#[derive(Debug)]
pub struct Given {
    pub manager: Rc<Manager>,
    pub fieldbus: Option<Opened>,
    pub sandbox: Sandbox,
}

/// Opens the PROFINET interface, where one is configured, and gives up the right to open any: a
/// second thread would keep it.
fn open_fieldbus(profinet: Option<&Profinet>) -> Result<Option<Opened>, StartError> {
    let opened = profinet.map(Opened::open).transpose()?;
    if opened.is_some() {
        drop_raw()?;
    }
    Ok(opened)
}

/// Waits for SIGTERM or SIGINT; a second one ends the process at once.
pub async fn stop_signal() -> Result<(), StartError> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tokio::task::spawn_local(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(1);
    });
    Ok(())
}

/// Random octets: an instance id, a token, a seed.
pub fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}

/// Files under `state` whose change means another certificate or revocation list.
pub fn trust_files(state: &Path) -> Vec<PathBuf> {
    [store::KEY, store::CHAIN, store::TRUST]
        .map(|file| state.join(file))
        .to_vec()
}
