//! Enrolment by a one-time token, with the real CA.

use std::io::Write;
use std::net::SocketAddr;
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
    use std::os::unix::fs::PermissionsExt;
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
    let mut child = binary::command()
        .args(["enroll", "join", "--state"])
        .arg(state)
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
