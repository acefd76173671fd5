//! Two SoftHSM tokens in a directory of their own, and the binary at work beside them.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::{SOON, binary};

/// Commands run in its directory, so that their lines can be short.
pub(super) struct Bench {
    directory: Directory,
}

/// PINs of the tokens `plant1` and `root`, also in the files `pin` and `root-pin`.
pub(super) const PIN: &str = "31415926";
pub(super) const ROOT_PIN: &str = "16180339";
/// In the file `passphrase`, for keys that are in files.
const PASSPHRASE: &str = "only for tests";
const OFFICER: &str = "27182818";

impl Bench {
    pub(super) fn new() -> Self {
        let bench = Self {
            directory: Directory::new().unwrap(),
        };
        fs::create_dir(bench.path("tokens")).unwrap();
        let tokens = bench.path("tokens");
        bench.write(
            "softhsm2.conf",
            &format!("directories.tokendir = {}\n", tokens.display()),
        );
        for (file, secret) in [
            ("pin", PIN),
            ("root-pin", ROOT_PIN),
            ("passphrase", PASSPHRASE),
            ("wrong", "99999999"),
        ] {
            bench.write(file, &format!("{secret}\n"));
        }
        for (label, pin) in [("plant1", PIN), ("root", ROOT_PIN)] {
            let output = bench
                .command(&Peer::find("softhsm2-util").unwrap())
                .args(["--init-token", "--free", "--label", label])
                .args(["--pin", pin, "--so-pin", OFFICER])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", binary::text(&output));
        }
        bench
    }

    /// With a CA in `ca` and a root in `root`, both keys on tokens.
    pub(super) fn with_ca() -> Self {
        let bench = Self::new();
        let (key, root) = (uri("plant1"), uri("root"));
        bench.ok(&format!(
            "ca init --site plant1.example --dir ca --root-out root --key {key} --root-key {root} \
             --passphrase-file pin --root-passphrase-file root-pin"
        ));
        bench
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.directory.write(name, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// `fieldlock LINE`, split at blanks, which must succeed; its standard error.
    #[track_caller]
    pub(super) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", binary::text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The same that must be refused; its standard error.
    #[track_caller]
    pub(super) fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        let text = binary::text(&output);
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{line}: {text}"
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    pub(super) fn run(&self, line: &str) -> Output {
        let mut command = binary::command();
        let output = self.at(command.args(line.split_whitespace())).output();
        let output = output.unwrap();
        without_secrets(&binary::text(&output));
        output
    }

    /// `ca serve` with more arguments, at a port of its own.
    pub(super) fn serve(&self, more: &str) -> (Process, SocketAddr) {
        let address = free_address().unwrap();
        let line = format!("ca serve --dir ca --listen {address} {more}");
        let mut command = binary::command();
        self.at(command.args(line.split_whitespace()));
        let mut process = Process::start("ca", &mut command, self.directory.path()).unwrap();
        if let Err(error) = process.wait_log("listening", SOON) {
            panic!("{error}");
        }
        (process, address)
    }

    /// `enroll join` of a new edge with a token of its own: did it get a certificate?
    pub(super) fn joins(&self, name: &str, address: SocketAddr) -> bool {
        let token = self.run(&format!(
            "ca token --dir ca --role edge --name {name} --address {address}"
        ));
        self.write(
            &format!("{name}.token"),
            &String::from_utf8_lossy(&token.stdout),
        );
        let joined = self.run(&format!(
            "enroll join --state {name} --token-file {name}.token"
        ));
        joined.status.success()
    }

    /// `openssl LINE`.
    pub(super) fn openssl(&self, line: &str) -> Output {
        let openssl = Peer::find("openssl").unwrap();
        let mut command = self.command(&openssl);
        command.args(line.split_whitespace()).output().unwrap()
    }

    /// The bundle's leaf under the CA's present files, CRLs of both levels included.
    pub(super) fn verify(&self, bundle: &str) -> String {
        let output = self.openssl(&format!(
            "verify -crl_check_all -CAfile ca/root.pem -untrusted ca/issuing.pem \
             -CRLfile ca/issuing.crl.pem -CRLfile ca/root.crl.pem {bundle}"
        ));
        binary::text(&output)
    }

    /// `pkcs11-tool LINE` on a token, logged in.
    pub(super) fn tool(&self, token: &str, pin: &str, line: &str) -> String {
        let output = self
            .command(&Peer::find("pkcs11-tool").unwrap())
            .arg("--module")
            .arg(softhsm())
            .args(["--token-label", token, "--login", "--pin", pin])
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", binary::text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The label of the key whose URI is in a key file.
    pub(super) fn object(&self, file: &str) -> String {
        let text = self.read(file);
        let rest = text.split_once("object=").unwrap().1;
        rest.split_once(';').unwrap().0.to_owned()
    }

    /// As if the tokens were pulled, or put in again.
    pub(super) fn pull(&self) {
        fs::rename(self.path("tokens"), self.path("pulled")).unwrap();
        fs::create_dir(self.path("tokens")).unwrap();
    }

    pub(super) fn put_in(&self) {
        fs::remove_dir_all(self.path("tokens")).unwrap();
        fs::rename(self.path("pulled"), self.path("tokens")).unwrap();
    }

    /// What pkcs11-spy saw, if a URI led through it.
    pub(super) fn spied(&self, what: &str) -> usize {
        self.read("spy").matches(what).count()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        self.at(&mut command);
        command
    }

    fn at<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .current_dir(self.directory.path())
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env("PKCS11SPY", softhsm())
            .env("PKCS11SPY_OUTPUT", self.path("spy"))
    }
}

/// No PIN and no passphrase leaves the program.
#[track_caller]
pub(super) fn without_secrets(text: &str) {
    for secret in [PIN, ROOT_PIN, PASSPHRASE] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// The URI of a token for `--key`.
pub(super) fn uri(token: &str) -> String {
    format!("pkcs11:token={token}?module-path={}", softhsm().display())
}

/// The same with a module between that writes down what it is asked.
pub(super) fn spied_uri(token: &str) -> String {
    let spy = module(&[
        "/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so",
        "/usr/lib/aarch64-linux-gnu/pkcs11/pkcs11-spy.so",
        "/usr/lib64/pkcs11/pkcs11-spy.so",
        "/usr/lib/pkcs11/pkcs11-spy.so",
    ]);
    format!("pkcs11:token={token}?module-path={}", spy.display())
}

pub(super) fn softhsm() -> &'static Path {
    module(&[
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ])
}

fn module(places: &[&'static str]) -> &'static Path {
    let mut paths = places.iter().copied().map(Path::new);
    let found = paths.find(|path| path.exists());
    found.unwrap_or_else(|| panic!("none of {places:?}"))
}
