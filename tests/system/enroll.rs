//! Enrolment by a one-time token, with the real CA.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;

use fieldlock_testkit::process::Directory;
use fieldlock_tests::answers::write_one;
use fieldlock_tests::{Setup, Site, Transport, binary, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test(
            "enroll::a_box_joins_through_a_headend",
            joins_through_a_headend,
        ),
        trial::test("enroll::the_key_stays_in_its_directory", key_stays),
        trial::test("enroll::a_server_without_the_pinned_root", another_ca),
        trial::test("enroll::a_token_on_the_command_line", on_the_command_line),
        trial::test("enroll::another_identity_is_installed", other_identity),
        trial::test(
            "enroll::joining_again_with_the_same_token_is_no_theft",
            joining_again,
        ),
        trial::test(
            "enroll::a_join_that_failed_is_replaced_when_told",
            join_that_failed,
        ),
        trial::test(
            "enroll::what_ca_token_prints_runs_as_pasted",
            runs_as_pasted,
        ),
        trial::test(
            "enroll::secrets_that_others_can_read_are_refused_alike",
            readable_secrets,
        ),
        trial::test(
            "attacks::a08_token_used_by_many_at_once",
            token_used_by_many,
        ),
        trial::test(
            "attacks::a08_token_for_another_name_or_guessed",
            token_altered,
        ),
    ]
}

fn joins_through_a_headend() {
    let site = Site::shared();
    let server = site.serve();
    let mut pair = Setup::new(Transport::Auto)
        .named("joins-07", "hd-1")
        .headend(&format!("[ca]\naddress = \"{}\"\n", server.address))
        .prepare();
    let state = pair.edge.state();
    for folder in ["identity", "trust"] {
        std::fs::remove_dir_all(state.join(folder)).unwrap();
    }
    pair.headend.start();
    pair.headend.wait_ready();
    let token = site.token("edge", "joins-07", pair.tunnel);
    let joined = join(&state, &token);
    let text = binary::text(&joined);
    assert!(joined.status.success(), "{text}");
    assert!(
        text.contains("spiffe://plant1.example/edge/joins-07"),
        "{text}"
    );
    pair.edge.start();
    pair.wait_up();
    write_one(&mut pair.client(), 40, 7);
    assert_eq!(pair.plc().register(40), Some(7));
}

fn key_stays() {
    let site = Site::shared();
    let mut server = site.serve();
    let directory = Directory::new().unwrap();
    let state = directory.join("edge");
    let token = site.token("edge", "stays-07", server.address);
    assert!(join(&state, &token).status.success());
    let mode = |file: &str| {
        let data = std::fs::metadata(state.join(file)).unwrap();
        data.permissions().mode() & 0o777
    };
    assert_eq!(mode("identity"), 0o700);
    assert_eq!(mode("identity/key.pem"), 0o600);
    assert!(!state.join("identity/key.pem.new").exists());
    let secret = token.rsplit('.').next().unwrap();
    assert!(!server.process.log().contains(secret));
    server.process.terminate();
    let ended = server.process.wait_exit(fieldlock_tests::SOON).unwrap();
    assert!(ended.success());
}

fn another_ca() {
    let ours = Site::shared();
    let theirs = Site::new();
    let server = theirs.serve();
    let directory = Directory::new().unwrap();
    let state = directory.join("edge");
    let refused = join(&state, &ours.token("edge", "pinned-07", server.address));
    let text = binary::text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("does not show the root"), "{text}");
    assert!(!state.join("identity/chain.pem").exists());
    let said = server.process.log();
    assert!(!said.contains("pinned-07"), "the token was shown: {said}");
}

fn on_the_command_line() {
    let token = Site::shared().token("edge", "argument-07", free());
    let directory = Directory::new().unwrap();
    let output = binary::run(&[
        &"enroll",
        &"join",
        &"--state",
        &directory.join("edge"),
        &token,
    ]);
    assert_eq!(output.status.code(), Some(2));
    let text = binary::text(&output);
    assert!(text.contains("--token-file"), "{text}");
    assert!(!text.contains(&token), "{text}");
}

fn other_identity() {
    let site = Site::shared();
    let server = site.serve();
    let directory = Directory::new().unwrap();
    let state = directory.join("edge");
    assert!(
        join(&state, &site.token("edge", "first-07", server.address))
            .status
            .success()
    );
    let refused = join(&state, &site.token("edge", "second-07", server.address));
    let text = binary::text(&refused);
    assert!(
        !refused.status.success() && text.contains("first-07"),
        "{text}"
    );
}

/// Arrow up, Enter.
fn joining_again() {
    let site = Site::shared();
    let server = site.serve();
    let directory = Directory::new().unwrap();
    let state = directory.join("edge");
    let token = site.token("edge", "again-07", server.address);
    assert!(join(&state, &token).status.success());
    let key = fs::read(state.join("identity/key.pem")).unwrap();
    let again = join(&state, &token);
    let text = binary::text(&again);
    assert!(again.status.success(), "{text}");
    assert!(text.contains("has joined with this token before"), "{text}");
    assert!(
        text.contains("spiffe://plant1.example/edge/again-07"),
        "{text}"
    );
    assert_eq!(fs::read(state.join("identity/key.pem")).unwrap(), key);
    assert!(!state.join("identity/key.pem.new").exists());
    // Another token for the same identity gets another certificate.
    let other = site.token("edge", "again-07", server.address);
    assert!(join(&state, &other).status.success());
    assert_ne!(fs::read(state.join("identity/key.pem")).unwrap(), key);
    // Elsewhere the first one is what it was: used.
    let text = binary::text(&join(&directory.join("thief"), &token));
    assert!(text.contains("used already"), "{text}");
}

fn join_that_failed() {
    let site = Site::shared();
    let server = site.serve();
    let directory = Directory::new().unwrap();
    let state = directory.join("edge");
    let nowhere = site.token("edge", "mistyped-07", free());
    assert!(!join(&state, &nowhere).status.success());
    let token = site.token("edge", "meant-07", server.address);
    let refused = join(&state, &token);
    let text = binary::text(&refused);
    assert!(
        !refused.status.success() && text.contains("`--replace`"),
        "{text}"
    );
    let joined = join_with(&state, &token, &["--replace"]);
    assert!(joined.status.success(), "{}", binary::text(&joined));
}

fn runs_as_pasted() {
    let site = Site::new();
    let output = binary::run(&[
        &"ca",
        &"token",
        &"--dir",
        &site.ca(),
        &"--role",
        &"headend",
        &"--name",
        &"hd-7",
        &"--address",
        &"ca.example:4434",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("enroll join"));
    let line = line.unwrap_or_else(|| panic!("{said}")).trim();
    assert_eq!(
        line,
        "fieldlock enroll join --state /var/lib/fieldlock/headend"
    );
    // Nothing is missing but the token; without a state its role says where.
    for arguments in [
        &["enroll", "join", "--state", "/var/lib/fieldlock/headend"][..],
        &["enroll", "join"],
    ] {
        let mut command = binary::command();
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = binary::text(&output);
        assert!(said.contains("it is not a token"), "{said}");
    }
}

/// Tokens, passphrases, keys of the CA and of agents.
fn readable_secrets() {
    let site = Site::new();
    let directory = Directory::new().unwrap();
    let identity = site.identity(fieldlock_tests::Role::Edge, "press-07");
    let token = directory.write("token", "fl1:x").unwrap();
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let private = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let (passphrase, ca_key) = (site.passphrase_file(), site.ca().join("issuing.key.pem"));
    let key = identity.join("identity/key.pem");
    let (ca, edge) = (site.ca(), directory.join("edge"));
    let crl = site.ca().join("issuing.crl.pem");
    let renew: [&dyn AsRef<OsStr>; 7] = [
        &"ca",
        &"crl",
        &"--renew",
        &"--dir",
        &ca,
        &"--passphrase-file",
        &passphrase,
    ];
    let join: [&dyn AsRef<OsStr>; 6] = [
        &"enroll",
        &"join",
        &"--state",
        &edge,
        &"--token-file",
        &token,
    ];
    let merge: [&dyn AsRef<OsStr>; 5] = [&"enroll", &"crl", &crl, &"--state", &identity];
    for (path, command) in [
        (&passphrase, &renew[..]),
        (&ca_key, &renew),
        (&token, &join),
        (&key, &merge),
    ] {
        open(path);
        let output = binary::run(command);
        let said = binary::text(&output);
        let expected = format!(
            "error: {path} can be read by others (mode 644): run `chmod 600 {path}`, and have another one made if somebody may have read it",
            path = path.display()
        );
        assert!(
            !output.status.success() && said.contains(&expected),
            "{said}"
        );
        private(path);
    }
}

/// Attack 8: a token is used by several at once; one gets the certificate. No more lose than may fail in
/// a minute: a used token with another key is a guess.
fn token_used_by_many() {
    let site = Site::shared();
    let server = site.serve();
    let directory = Directory::new().unwrap();
    let token = site.token("edge", "many-07", server.address);
    let joining: Vec<_> = (0..6)
        .map(|number| {
            let (state, token) = (directory.join(number.to_string()), token.clone());
            thread::spawn(move || join(&state, &token))
        })
        .collect();
    let outputs: Vec<Output> = joining.into_iter().map(|one| one.join().unwrap()).collect();
    let good = outputs.iter().filter(|output| output.status.success());
    assert_eq!(good.count(), 1);
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let text = binary::text(output);
        assert!(text.contains("used already"), "{text}");
    }
}

/// Attack 8: a token is changed to another name, or its secret is guessed.
fn token_altered() {
    let site = Site::shared();
    let server = site.serve();
    let directory = Directory::new().unwrap();
    let token = site.token("edge", "altered-07", server.address);
    let (rest, _) = token.rsplit_once('.').unwrap();
    let guessed = format!("{rest}.{}", "A".repeat(22));
    for (number, altered) in [
        token.replace("edge/altered-07", "edge/altered-08"),
        token.replace("edge/altered-07", "headend/altered-07"),
        guessed,
    ]
    .iter()
    .enumerate()
    {
        let refused = join(&directory.join(number.to_string()), altered);
        let text = binary::text(&refused);
        assert!(text.contains("refuses (401)"), "{text}");
    }
    // The token itself is none the worse.
    assert!(join(&directory.join("edge"), &token).status.success());
}

pub(crate) fn join(state: &Path, token: &str) -> Output {
    join_with(state, token, &[])
}

fn join_with(state: &Path, token: &str, more: &[&str]) -> Output {
    let mut child = binary::command()
        .args(["enroll", "join", "--state"])
        .arg(state)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{token}").unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn free() -> SocketAddr {
    fieldlock_testkit::ports::free_address().unwrap()
}
