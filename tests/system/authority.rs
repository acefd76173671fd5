//! Commands of the CA: whom they hit, what they refuse, and what they say.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use fieldlock_testkit::process::Directory;
use fieldlock_tests::{Role, Site, binary, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("ca::a_revocation_says_whom_and_what_is_left", revocation),
        trial::test(
            "ca::another_identity_is_replaced_only_when_told_and_comes_back",
            replacement,
        ),
        trial::with_peers(
            "ca::another_user_is_told_of_permissions",
            &["setpriv"],
            another_user,
        ),
        trial::test("ca::a_clock_that_was_ahead_is_confirmed_on_record", clock),
    ]
}

fn revocation() {
    let site = Site::new();
    let passphrase = site.passphrase_file();
    let serial = |more: &str| {
        let issued = site.issued("edge", "press-07", &["--days", more]);
        let bundle = fs::read_to_string(issued.join("bundle.pem")).unwrap();
        let bundle = fieldlock_pki::Bundle::parse(&bundle).unwrap();
        let summary = fieldlock_pki::Summary::of(&bundle.leaf).unwrap();
        fs::remove_dir_all(issued).unwrap();
        summary.serial.to_string()
    };
    let first = serial("30");
    let ca = site.ca();
    let run = |arguments: &[&dyn AsRef<OsStr>]| {
        let end: [&dyn AsRef<OsStr>; 2] = [&"--dir", &ca];
        let output = binary::run(&[&[&"ca" as &dyn AsRef<OsStr>], arguments, &end].concat());
        assert!(output.status.success(), "{}", binary::text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let out = site.path("second");
    run(&[
        &"issue",
        &"--role",
        &"edge",
        &"--name",
        &"press-07",
        &"--out",
        &out,
        &"--passphrase-file",
        &passphrase,
    ]);
    run(&[
        &"token",
        &"--role",
        &"edge",
        &"--name",
        &"press-07",
        &"--address",
        &"ca.example:4434",
    ]);
    let revoke = |what: &str| run(&[&"revoke", &what, &"--passphrase-file", &passphrase]);
    // One of two: the other, and the token, are named.
    let said = revoke(&first);
    assert!(
        said.contains(&format!(
            "revoked edge/press-07: certificate {first}, valid until "
        )),
        "{said}"
    );
    assert!(
        said.contains("note: edge/press-07 has another certificate, "),
        "{said}"
    );
    assert!(
        said.contains("note: edge/press-07 has a token that can be used until "),
        "{said}"
    );
    // All of it.
    let said = revoke("press-07");
    assert_eq!(
        said.matches("revoked edge/press-07: certificate ").count(),
        1,
        "{said}"
    );
    assert!(
        said.contains("cancelled a token of edge/press-07"),
        "{said}"
    );
    assert!(!said.contains("note: edge/press-07 has"), "{said}");
    assert_eq!(site.ca_command(&[&"tokens"]), "");
}

fn replacement() {
    let site = Site::new();
    let directory = Directory::new().unwrap();
    let state = directory.join("edge");
    let (ca, passphrase) = (site.ca(), site.passphrase_file());
    let issue = |name: &str, more: &[&str]| {
        let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![
            &"ca",
            &"issue",
            &"--dir",
            &ca,
            &"--passphrase-file",
            &passphrase,
            &"--role",
            &"edge",
            &"--state",
            &state,
            &"--name",
            &name,
        ];
        arguments.extend(more.iter().map(|more| more as &dyn AsRef<OsStr>));
        binary::run(&arguments)
    };
    assert!(issue("press-07", &[]).status.success());
    // The same identity again is a renewal by hand.
    assert!(issue("press-07", &[]).status.success());
    let before = fs::read(state.join("identity/key.pem")).unwrap();

    let refused = issue("press-08", &[]);
    let said = binary::text(&refused);
    assert!(
        !refused.status.success() && said.contains("`--replace`"),
        "{said}"
    );
    assert!(
        said.contains("spiffe://plant1.example/edge/press-07"),
        "{said}"
    );
    assert_eq!(fs::read(state.join("identity/key.pem")).unwrap(), before);
    let listed = site.ca_command(&[&"list"]);
    assert!(!listed.contains("press-08"), "nothing was signed: {listed}");

    let replaced = issue("press-08", &["--replace"]);
    assert!(replaced.status.success(), "{}", binary::text(&replaced));
    // Revoked meanwhile: a list that knows it stays.
    let other = site.revoke(Role::Edge, "press-08");
    binary::run_ok(&[&"enroll", &"crl", &other, &"--state", &state]);
    let list = fs::read(state.join("trust/list.pem")).unwrap();
    let undo = || binary::run_ok(&[&"enroll", &"undo", &"--state", &state]);
    assert!(undo().contains("edge/press-07"));
    assert_eq!(fs::read(state.join("identity/key.pem")).unwrap(), before);
    assert_eq!(fs::read(state.join("trust/list.pem")).unwrap(), list);
    let mode = fs::metadata(state.join("identity/replaced/key.pem"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(undo().contains("edge/press-08"), "and back");
    assert!(undo().contains("edge/press-07"));
}

fn another_user() {
    let site = Site::new();
    let ca = site.ca();
    let command = binary::command();
    if fs::metadata(&ca).unwrap().uid() == 0 {
        let binary = command.get_program().to_owned();
        // Where everybody gets to: the folders on the way to the program may be private.
        let open = Directory::new().unwrap();
        fs::set_permissions(open.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = open.join("fieldlock");
        fs::copy(binary, &copy).unwrap();
        let parent = ca.parent().unwrap();
        fs::set_permissions(parent, Permissions::from_mode(0o755)).unwrap();
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        other.arg(copy);
        is_denied(other, &ca, "belongs to user 0");
    } else {
        fs::set_permissions(&ca, Permissions::from_mode(0o000)).unwrap();
        is_denied(command, &ca, "belongs to user ");
        fs::set_permissions(&ca, Permissions::from_mode(0o700)).unwrap();
    }
}

fn is_denied(mut command: Command, ca: &std::path::Path, whose: &str) {
    let output = command
        .args(["ca", "list", "--dir"])
        .arg(ca)
        .output()
        .unwrap();
    let said = binary::text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("permission denied") && said.contains(whose),
        "{said}"
    );
    assert!(!said.contains("ca init"), "{said}");
}

/// A clock that is right has nothing to confirm. What one does that is not: `authority::enrolment`.
fn clock() {
    let site = Site::new();
    let output = binary::run(&[&"ca", &"clock", &"--is-right", &"--dir", &site.ca()]);
    let said = binary::text(&output);
    assert!(
        !output.status.success() && said.contains("nothing to confirm"),
        "{said}"
    );
    let output = binary::run(&[&"ca", &"clock", &"--dir", &site.ca()]);
    assert_eq!(output.status.code(), Some(2), "it has to be said");
}
