//! The agents: async shells around the cores.
//!
//! - [`headend`] and [`edge`]: the two ends; neither knows the other.
//! - [`tunnel`] and [`tls`]: what carries a session, and who is at its other end.
//! - [`ledger`], [`posture`], [`source`], [`bundle`], [`authority`], [`control`], [`reload`]: what every agent has.
//! - [`socket`] and [`sealed`]: connections of Modbus clients and devices, plain or with TLS.
//! - [`settings`]: configuration files.
//!
//! An agent runs on one thread. At a few thousand requests a second system calls are the
//! cost, and a second worker only adds wake-ups across cores; the audit log has a thread
//! of its own, since it waits for the disk.

mod authority;
pub mod bundle;
mod checkpoint;
mod control;
mod counter;
mod edge;
mod headend;
mod ledger;
mod posture;
mod quota;
mod reload;
mod sealed;
pub mod settings;
mod socket;
mod source;
mod status;
mod tls;
mod tunnel;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fieldlock_audit::JournalError;
use fieldlock_pki::store;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

pub use control::SOCKET;
pub use ledger::FOLDER as AUDIT;
use settings::SettingsError;
pub use tls::TrustError;

/// Which agent to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    Edge,
    Headend,
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
    #[error("the system gives no random numbers")]
    Random,
}

impl StartError {
    /// Whether the operator has to change the configuration.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Policy(_))
    }
}

/// Reads configuration and policy, tries key and certificates; opens and dials nothing.
pub fn check(agent: Agent, file: &Path) -> Result<String, StartError> {
    match agent {
        Agent::Edge => edge::check(file),
        Agent::Headend => headend::check(file),
    }
}

/// Runs an agent until SIGTERM or SIGINT.
pub fn run(agent: Agent, file: &Path) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, async {
        match agent {
            Agent::Edge => edge::run(file).await,
            Agent::Headend => headend::run(file).await,
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Waits for SIGTERM or SIGINT; a second one ends the process at once.
async fn stop_signal() -> Result<(), StartError> {
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

/// Random octets: an instance id, a token.
fn random() -> Result<[u8; 16], StartError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}

/// Files under `state` whose change means another certificate or revocation list.
fn trust_files(state: &Path) -> Vec<PathBuf> {
    [store::KEY, store::CHAIN, store::TRUST]
        .map(|file| state.join(file))
        .to_vec()
}
