//! What can go wrong in a demo, and waiting that ends.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use thiserror::Error;

const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("`fieldlock {command}` failed ({status}): {output}")]
    Command {
        command: String,
        status: ExitStatus,
        output: String,
    },
    #[error("{name} ended by itself ({status})")]
    Ended {
        name: &'static str,
        status: ExitStatus,
    },
    #[error("waited {within:?} in vain for {what}")]
    InVain { what: String, within: Duration },
    #[error("{what}: {source}")]
    Modbus {
        what: String,
        source: tokio_modbus::Error,
    },
    #[error("expected {expected}, got {got}")]
    Unexpected { expected: String, got: String },
}

impl Trouble {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Fails unless the two are the same.
pub(super) fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: T,
    got: T,
) -> Result<(), Trouble> {
    if got == expected {
        return Ok(());
    }
    Err(Trouble::Unexpected {
        expected: format!("{what} {expected:?}"),
        got: format!("{got:?}"),
    })
}

/// Looks again and again until there is something, or fails after `within`.
pub(super) async fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Trouble>,
) -> Result<T, Trouble> {
    let deadline = Instant::now() + within;
    loop {
        let late = Instant::now() >= deadline;
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if late {
            let what = what.to_owned();
            return Err(Trouble::InVain { what, within });
        }
        tokio::time::sleep(POLL).await;
    }
}
