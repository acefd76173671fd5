//! A CA made with the product's own commands, and what it issued.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, DirBuilder, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use jiff::{SignedDuration, Timestamp};

use crate::SOON;
use crate::agent::Role;
use crate::binary::{self, run_ok};

/// A site with a CA. Commands on it run one after another.
#[derive(Debug)]
pub struct Site {
    directory: Directory,
    issued: Mutex<HashMap<String, PathBuf>>,
}

/// A running `ca serve`. Killed when dropped.
#[derive(Debug)]
pub struct CaServer {
    pub address: SocketAddr,
    pub process: Process,
    _directory: Directory,
}

static SHARED: Mutex<Option<Arc<Site>>> = Mutex::new(None);

impl Site {
    pub const NAME: &'static str = "plant1.example";

    /// The site that tests share: unlocking a CA's key takes a moment on purpose.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.get_or_insert_with(|| Arc::new(Self::new())).clone()
    }

    /// Removes the shared site from the disk; for the end of the test program.
    pub fn forget_shared() {
        SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Another CA, for the same site name.
    pub fn new() -> Self {
        let site = Self {
            directory: Directory::new().unwrap(),
            issued: Mutex::default(),
        };
        let passphrase = site
            .directory
            .write("passphrase", "only for tests\n")
            .unwrap();
        fs::set_permissions(&passphrase, Permissions::from_mode(0o600)).unwrap();
        run_ok(&[
            &"ca",
            &"init",
            &"--site",
            &Self::NAME,
            &"--dir",
            &site.ca(),
            &"--root-out",
            &site.directory.join("root"),
            &"--passphrase-file",
            &passphrase,
        ]);
        site
    }

    /// The CA's directory.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca")
    }

    pub fn passphrase_file(&self) -> PathBuf {
        self.directory.join("passphrase")
    }

    /// A state directory as `enroll install` leaves it, issued at the first call.
    /// Not to be run from: agents get a [copy](Self::install).
    pub fn identity(&self, role: Role, name: &str) -> PathBuf {
        self.issue(role, name, &format!("{role}-{name}"), "--state", &[])
    }

    /// As [`identity`](Self::identity), valid from and to so many minutes from now.
    pub fn identity_between(&self, role: Role, name: &str, from: i64, to: i64) -> PathBuf {
        self.between(role, name, from, to, "--state")
    }

    /// A directory with key.pem and bundle.pem, valid from and to so many minutes from now.
    /// No agent would install it.
    pub fn issued_between(&self, role: impl Display, name: &str, from: i64, to: i64) -> PathBuf {
        self.between(role, name, from, to, "--out")
    }

    /// A directory with key.pem and bundle.pem of `ROLE/NAME`, issued with these arguments more.
    pub fn issued(&self, role: &str, name: &str, more: &[&str]) -> PathBuf {
        let key = format!("out-{role}-{name}");
        self.issue(role, name, &key, "--out", more)
    }

    fn between(&self, role: impl Display, name: &str, from: i64, to: i64, into: &str) -> PathBuf {
        let now = Timestamp::now();
        let at = |minutes: i64| {
            let time = now.checked_add(SignedDuration::from_mins(minutes)).unwrap();
            Timestamp::from_second(time.as_second())
                .unwrap()
                .to_string()
        };
        let key = format!("{role}-{name}-{from}-{to}");
        let more = ["--not-before", &at(from), "--not-after", &at(to)];
        self.issue(role, name, &key, into, &more)
    }

    /// Issues once for each `key`, which names the directory.
    fn issue(
        &self,
        role: impl Display,
        name: &str,
        key: &str,
        into: &str,
        more: &[&str],
    ) -> PathBuf {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = issued.get(key) {
            return path.clone();
        }
        let path = self.directory.join(key);
        let (ca, passphrase) = (self.ca(), self.passphrase_file());
        let role = role.to_string();
        let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&"ca", &"issue", &"--dir", &ca];
        arguments.extend([&"--passphrase-file" as &dyn AsRef<OsStr>, &passphrase]);
        arguments.extend([&"--role" as &dyn AsRef<OsStr>, &role, &"--name", &name]);
        arguments.extend([&into as &dyn AsRef<OsStr>, &path]);
        arguments.extend(more.iter().map(|more| more as &dyn AsRef<OsStr>));
        run_ok(&arguments);
        issued.insert(key.to_owned(), path.clone());
        path
    }

    /// Copies an identity into the state directory of an agent.
    pub fn install(&self, role: Role, name: &str, state: &Path) {
        copy_state(&self.identity(role, name), state);
    }

    /// A file or folder of this site: `root` has the root's key.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `fieldlock ca ARGUMENTS` on this CA.
    pub fn ca_command(&self, arguments: &[&dyn AsRef<OsStr>]) -> String {
        run_ok(
            &[
                &[&"ca" as &dyn AsRef<OsStr>],
                arguments,
                &[&"--dir", &self.ca()],
            ]
            .concat(),
        )
    }

    /// The same for one that needs the passphrase.
    pub fn unlocked_command(&self, arguments: &[&dyn AsRef<OsStr>]) -> String {
        let passphrase = self.passphrase_file();
        let unlock: [&dyn AsRef<OsStr>; 2] = [&"--passphrase-file", &passphrase];
        self.ca_command(&[arguments, &unlock].concat())
    }

    /// `fieldlock ca root COMMAND ARGUMENTS` with the root in the folder `root`, offline.
    pub fn root_command(
        &self,
        command: &str,
        arguments: &[&dyn AsRef<OsStr>],
        root: &str,
    ) -> String {
        let (root, passphrase) = (self.path(root), self.passphrase_file());
        let start: [&dyn AsRef<OsStr>; 3] = [&"ca", &"root", &command];
        let end: [&dyn AsRef<OsStr>; 6] = [
            &"--root",
            &root,
            &"--site",
            &Self::NAME,
            &"--passphrase-file",
            &passphrase,
        ];
        run_ok(&[&start[..], arguments, &end].concat())
    }

    /// `ca serve` for this site, at a port of its own.
    pub fn serve(&self) -> CaServer {
        let address = free_address().unwrap();
        let directory = Directory::new().unwrap();
        let mut command = binary::command();
        command
            .args(["ca", "serve", "--dir"])
            .arg(self.ca())
            .arg("--passphrase-file")
            .arg(self.passphrase_file())
            .args(["--listen", &address.to_string()]);
        let mut process = Process::start("ca", &mut command, directory.path()).unwrap();
        if let Err(error) = process.wait_log("listening", SOON) {
            panic!("{error}");
        }
        CaServer {
            address,
            process,
            _directory: directory,
        }
    }

    /// A one-time token for `ROLE/NAME` that says `address`.
    pub fn token(&self, role: &str, name: &str, address: SocketAddr) -> String {
        let text = run_ok(&[
            &"ca",
            &"token",
            &"--dir",
            &self.ca(),
            &"--role",
            &role,
            &"--name",
            &name,
            &"--address",
            &address.to_string(),
        ]);
        text.trim().to_owned()
    }

    /// Revokes the certificates of `ROLE/NAME`; the CA's file with the current CRL. (A copy
    /// would soon be older than what other identities bring, and no agent goes back.)
    pub fn revoke(&self, role: impl Display, name: &str) -> PathBuf {
        let _one_at_a_time = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let crl = run_ok(&[
            &"ca",
            &"revoke",
            &format!("{role}/{name}"),
            &"--dir",
            &self.ca(),
            &"--passphrase-file",
            &self.passphrase_file(),
        ]);
        PathBuf::from(crl.trim())
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies what identity and trust are made of; folders stay private.
pub(crate) fn copy_state(from: &Path, to: &Path) {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to)
        .unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_state(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
