//! An edge or a headend as a child process.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use fieldlock_audit::{Kind, Record};
use fieldlock_testkit::process::Process;
use serde_json::Value;

use crate::{SOON, binary, site::copy_state, within};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Edge,
    Headend,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Headend => "headend",
        })
    }
}

/// One agent: its files, and its process while it runs. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    role: Role,
    name: String,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    under: Vec<String>,
    process: Option<Process>,
}

impl Agent {
    /// Prepares an agent in `directory`, which gets `NAME.toml`, `NAME.policy.toml`, the log
    /// `NAME.log` and the state directory `NAME` with the identity in `identity`. The text
    /// `config` is the configuration without `state` and `policy`.
    pub fn prepare(
        role: Role,
        name: &str,
        directory: &Path,
        identity: &Path,
        config: &str,
        policy: &str,
    ) -> Self {
        let agent = Self {
            role,
            name: name.to_owned(),
            directory: directory.to_owned(),
            environment: Vec::new(),
            under: Vec::new(),
            process: None,
        };
        copy_state(identity, &agent.state());
        agent.write_config(config);
        agent.write_policy(policy);
        agent
    }

    /// Sets a variable of the process' environment, from the next start on.
    pub fn set_environment(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// A command that starts the process and gives way to it (`exec`), from the next start on.
    pub fn run_under(&mut self, command: &[&str]) {
        self.under = command.iter().map(|word| (*word).to_owned()).collect();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    pub fn config_file(&self) -> PathBuf {
        self.directory.join(format!("{}.toml", self.name))
    }

    pub fn policy_file(&self) -> PathBuf {
        self.directory.join(format!("{}.policy.toml", self.name))
    }

    pub fn audit_file(&self) -> PathBuf {
        self.state().join("audit").join(fieldlock_audit::FILE_NAME)
    }

    /// Replaces the configuration; `state` and `policy` are put before `config`.
    pub fn write_config(&self, config: &str) {
        let text = format!(
            "state = {:?}\npolicy = {:?}\n{config}",
            self.state(),
            self.policy_file()
        );
        replace(&self.config_file(), &text);
    }

    pub fn write_policy(&self, policy: &str) {
        replace(&self.policy_file(), policy);
    }

    /// Installs revocation lists with `enroll crl`.
    pub fn install_crl(&self, crl: &Path) {
        binary::run_ok(&[&"enroll", &"crl", &crl, &"--state", &self.state()]);
    }

    /// Takes the lock of the state directory: to the agent that is a disk that does not answer.
    pub fn hold_disk(&self) -> File {
        let lock = File::open(self.state().join("install.lock")).unwrap();
        lock.lock().unwrap();
        lock
    }

    /// Starts the process; [`wait_ready`](Self::wait_ready) waits for it.
    pub fn start(&mut self) {
        let mut command = binary::command_under(&self.under);
        command
            .arg(self.role.to_string())
            .arg("--config")
            .arg(self.config_file())
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        self.process = None;
        self.process = Some(Process::start(&self.name, &mut command, &self.directory).unwrap());
    }

    /// Waits until the agent answers `status`.
    pub fn wait_ready(&mut self) {
        self.wait_that("its control socket", |agent| agent.try_status().is_some());
    }

    /// Waits for something that this agent brings about; fails at once when it ends.
    #[track_caller]
    pub fn wait_that(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut process = self.process.take().expect("not started");
        let waited = process.wait_that(what, SOON, |_| condition(self));
        self.process = Some(process);
        if let Err(error) = waited {
            panic!("{error}");
        }
    }

    /// `fieldlock ROLE --config FILE --check`.
    pub fn check(&self) -> std::process::Output {
        let mut command = binary::command();
        command
            .arg(self.role.to_string())
            .arg("--config")
            .arg(self.config_file())
            .arg("--check")
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.output().unwrap()
    }

    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("not started")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// All that the agent logged, over restarts.
    pub fn log(&self) -> String {
        let path = self.directory.join(format!("{}.log", self.name));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process().terminate();
        self.wait_exit()
    }

    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        match self.process().wait_exit(SOON) {
            Ok(status) => status,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.state().join("control.sock")
    }

    /// What `status --json` shows, over the control socket; `None` while there is none.
    pub fn try_status(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        // No request comes: it need not wait for one.
        stream.shutdown(Shutdown::Write).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.try_status()
            .unwrap_or_else(|| panic!("{}: no status", self.name))
    }

    /// Names of the alarms that last.
    #[track_caller]
    pub fn alarms(&self) -> Vec<String> {
        let status = self.status();
        let alarms = status["alarms"].as_array().unwrap();
        let name = |alarm: &Value| alarm["name"].as_str().unwrap_or_default().to_owned();
        alarms.iter().map(name).collect()
    }

    /// The audit log as it is on the disk now.
    pub fn audit(&self) -> Vec<Record> {
        let files = fieldlock_audit::log_files(&self.state().join("audit")).unwrap_or_default();
        files.iter().flat_map(|file| audit_of(file)).collect()
    }

    /// Records of one kind.
    pub fn audit_kind(&self, kind: Kind) -> Vec<Record> {
        let mut records = self.audit();
        records.retain(|record| record.kind == kind);
        records
    }

    /// Waits for a record; records that are not urgent reach the disk a little later.
    #[track_caller]
    pub fn wait_record(&self, what: &str, matches: impl Fn(&Record) -> bool) -> Record {
        let mut found = None;
        let look = || {
            found = self.audit().into_iter().find(|record| matches(record));
            found.is_some()
        };
        within(SOON, &format!("{}: record: {what}", self.name), look);
        found.unwrap()
    }
}

/// The records of an audit log; a last line that is still being written is left out.
pub fn audit_of(file: &Path) -> Vec<Record> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let parse = |line: &str| match serde_json::from_str(line) {
        Ok(record) => record,
        Err(error) => panic!("{}: {error}: {line}", file.display()),
    };
    text[..whole].lines().map(parse).collect()
}

/// Renames the new text into place, as editors and package managers do.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, file).unwrap();
}
