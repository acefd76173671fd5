//! Foreign programs that the tests run against: found, or named as missing.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name, the Debian package that brings it, and where else to look.
const KNOWN: [(&str, &str); 22] = [
    ("openssl", "openssl"),
    ("mbpoll", "mbpoll"),
    ("haproxy", "haproxy"),
    ("stunnel4", "stunnel4"),
    ("socat", "socat"),
    ("tshark", "tshark"),
    ("curl", "curl"),
    ("faketime", "faketime"),
    ("softhsm2-util", "softhsm2"),
    ("pkcs11-tool", "opensc"),
    ("rsyslogd", "rsyslog rsyslog-openssl"),
    ("pkilint", "pip install pkilint"),
    ("jsonschema", "pip install jsonschema"),
    ("pymodbus", "python3-pymodbus or pip install pymodbus"),
    ("scapy", "python3-scapy or pip install scapy"),
    ("pnio_dcp", "pip install pnio_dcp"),
    (
        "cryptography",
        "python3-cryptography or pip install cryptography",
    ),
    ("tmodbus", "pip install tmodbus, Python 3.12 or later"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("promtool", "prometheus"),
    ("systemd-analyze", "systemd"),
];

/// Those that are no programs, but something that a Python can import.
const MODULES: [&str; 7] = [
    "pymodbus",
    "pkilint",
    "jsonschema",
    "scapy",
    "pnio_dcp",
    "cryptography",
    "tmodbus",
];

/// Debian keeps daemons out of an ordinary user's PATH.
const ALSO: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Finding foreign programs by name.
#[derive(Debug)]
pub struct Peer;

impl Peer {
    /// The program, or for a module of Python a Python that can import it: `FIELDLOCK_PYTHON`, else one
    /// of the virtual environments `target/test-venv` and `target/test-venv-new`, else `python3`.
    pub fn find(name: &str) -> Option<PathBuf> {
        match MODULES.contains(&name) {
            true => pythons().into_iter().find(|python| imports(python, name)),
            false => in_path(name),
        }
    }

    /// All of `names`, in order, or the list of those that are missing.
    pub fn find_all(names: &[&str]) -> Result<Vec<PathBuf>, Missing> {
        let found: Vec<_> = names.iter().map(|name| Self::find(name)).collect();
        let lacking =
            |(name, path): (&&str, &Option<PathBuf>)| path.is_none().then(|| (*name).to_owned());
        let missing: Vec<String> = names.iter().zip(&found).filter_map(lacking).collect();
        if missing.is_empty() {
            Ok(found.into_iter().flatten().collect())
        } else {
            Err(Missing(missing))
        }
    }

    /// Why a test that needs `names` can't run here. `None`: run it. With
    /// `FIELDLOCK_REQUIRE_PEERS=1` always `None`: it runs, and fails by
    /// [`find_all`](Self::find_all).
    pub fn skip_reason(names: &[&str]) -> Option<Missing> {
        if peers_required() {
            return None;
        }
        Self::find_all(names).err()
    }
}

/// Is a missing peer a failure (`FIELDLOCK_REQUIRE_PEERS=1`), not a reason to skip?
pub fn peers_required() -> bool {
    env::var("FIELDLOCK_REQUIRE_PEERS").is_ok_and(|value| value == "1")
}

/// The programs that are missing, with the packages to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub Vec<String>);

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing:")?;
        for name in &self.0 {
            let known = KNOWN.iter().find(|(known, _)| known == name);
            match known {
                Some((_, package)) => write!(f, " {name} (install {package})")?,
                None => write!(f, " {name}")?,
            }
        }
        Ok(())
    }
}

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn pythons() -> Vec<PathBuf> {
    let named = env::var_os("FIELDLOCK_PYTHON").map(PathBuf::from);
    let venvs = ["target/test-venv", "target/test-venv-new"];
    let venvs = venvs.map(|venv| workspace_root().join(venv).join("bin/python"));
    let plain = PathBuf::from("python3");
    named.into_iter().chain(venvs).chain([plain]).collect()
}

fn imports(python: &Path, module: &str) -> bool {
    let tried = Command::new(python)
        .args(["-c", &format!("import {module}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path)
        .chain(ALSO.map(PathBuf::from))
        .collect();
    let mut candidates = folders.iter().map(|folder| folder.join(program));
    candidates.find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_by_its_path() {
        let shell = Peer::find("sh").unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"));
    }

    #[test]
    fn missing_programs_are_named_together() {
        let missing = Peer::find_all(&["sh", "no-such-one", "nor-this"]).unwrap_err();
        assert_eq!(missing.to_string(), "missing: no-such-one nor-this");
        let known = Missing(vec!["mbpoll".to_owned()]);
        assert_eq!(known.to_string(), "missing: mbpoll (install mbpoll)");
    }

    #[test]
    fn the_workspace_root_is_found() {
        assert!(workspace_root().join("Cargo.lock").exists());
    }
}
