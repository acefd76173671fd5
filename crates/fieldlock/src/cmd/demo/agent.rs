//! An agent of the demo: a process of its own, with its log in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use fieldlock_status::Status;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::task::spawn_blocking;

use super::launch;
use super::trouble::{Trouble, wait_for};
use crate::cmd::status;

/// Starting takes a tenth of a second; this is for a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct Agent {
    role: &'static str,
    child: Child,
    directory: PathBuf,
}

impl Agent {
    /// Starts `fieldlock ROLE --config DIRECTORY/ROLE.toml`. A restart goes on in the same log.
    pub(super) fn start(
        role: &'static str,
        program: &Path,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let start = || Trouble::io(format!("start the {role}"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path(directory, role))
            .map_err(start())?;
        let mut command = launch::command(program);
        command
            .arg(role)
            .arg("--config")
            .arg(directory.join(role).with_extension("toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(start())?)
            .stderr(log);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FIELDLOCK") {
                command.env_remove(variable);
            }
        }
        Ok(Self {
            role,
            child: command.spawn().map_err(start())?,
            directory: directory.to_owned(),
        })
    }

    pub(super) fn state(&self) -> PathBuf {
        self.directory.join(self.role)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.state().join(fieldlock_agent::SOCKET)
    }

    pub(super) fn log(&self) -> PathBuf {
        log_path(&self.directory, self.role)
    }

    /// Waits until `find` finds what it looks for in the agent's status.
    pub(super) async fn wait_status<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut(&Status) -> Option<T>,
    ) -> Result<T, Trouble> {
        wait_for(what, PATIENCE, async || {
            if let Some(status) = self.ended()? {
                let name = self.role;
                return Err(Trouble::Ended { name, status });
            }
            let socket = self.socket();
            // Not there yet, or not answering yet: asked again.
            let asked = spawn_blocking(move || status::ask(&socket)).await;
            Ok(asked.ok().and_then(Result::ok).as_ref().and_then(&mut find))
        })
        .await
    }

    /// How it ended, where it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, Trouble> {
        let looked = self.child.try_wait();
        looked.map_err(Trouble::io(format!("look after the {}", self.role)))
    }

    /// Returns when it ends by itself.
    pub(super) async fn end(&mut self) -> Trouble {
        match self.child.wait().await {
            Ok(status) => Trouble::Ended {
                name: self.role,
                status,
            },
            Err(error) => Trouble::io(format!("look after the {}", self.role))(error),
        }
    }

    /// `kill -9`.
    pub(super) async fn kill(&mut self) -> Result<(), Trouble> {
        let killed = self.child.kill().await;
        killed.map_err(Trouble::io(format!("kill the {}", self.role)))
    }

    /// SIGHUP: asks it to read its files again.
    pub(super) fn reload(&self) -> Result<(), Trouble> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return Ok(());
        };
        let sent = kill_process(pid, Signal::HUP);
        sent.map_err(|error| Trouble::io(format!("signal the {}", self.role))(error.into()))
    }
}

pub(super) fn log_path(directory: &Path, role: &str) -> PathBuf {
    directory.join(role).with_extension("log")
}

/// The last lines of an agent's log under a heading; nothing where there is none.
pub(super) fn log_tail(directory: &Path, role: &str) -> String {
    const LINES: usize = 25;
    let log = fs::read(log_path(directory, role)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let tail = &lines[lines.len().saturating_sub(LINES)..];
    format!("\n--- log of the {role}\n{}\n", tail.join("\n"))
}
