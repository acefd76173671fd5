//! Every kind of certificate and CRL that the CA makes, before pkilint: no error or warning but
//! those listed here with a reason.

use std::path::Path;
use std::process::Command;

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::process::Directory;
use fieldlock_tests::{Site, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial::with_peers(
        "lint::certificates_and_crls_pass_pkilint",
        &["pkilint"],
        lint,
    )]
}

/// pkilint takes no scheme without a registered grammar of its host: it says so of `spiffe://`
/// as of `urn:`. SPIFFE defines the form that is used here (SPIFFE-ID, section 2).
const EXPECTED: &[&str] = &["pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: \"spiffe://"];

fn lint() {
    let site = Site::new();
    let directory = Directory::new().unwrap();
    let roles = ["edge", "headend", "operator", "client", "device", "ca"];
    let plain = roles.map(|role| (role, "linted", &[][..]));
    let with_role = ("client", "with-role", &["--modbus-role", "Operator"][..]);
    for (role, name, more) in plain.into_iter().chain([with_role]) {
        let out = site.issued(role, name, more);
        let text = std::fs::read_to_string(out.join("bundle.pem")).unwrap();
        bundle(&directory, &format!("{role}-{name}"), &text);
    }
}

/// Every block of a bundle, through files of `directory` whose names begin with `name`.
pub(crate) fn bundle(directory: &Directory, name: &str, text: &str) {
    let blocks: Vec<_> = text.split_inclusive("-----\n").collect();
    for (index, block) in blocks.chunks(2).enumerate() {
        let pem = directory.write(&format!("{name}-{index}.pem"), &block.concat());
        let pem = pem.unwrap();
        match block[0].contains("CRL") {
            true => judge(&pem, "lint_crl", &["-t", "CRL", "-p", "PKIX"]),
            false => judge(&pem, "lint_pkix_cert", &[]),
        }
    }
}

fn judge(pem: &Path, linter: &str, more: &[&str]) {
    let program = Peer::find("pkilint").unwrap().with_file_name(linter);
    let output = Command::new(program)
        .arg("lint")
        .args(more)
        .args(["-s", "WARNING"])
        .arg(pem)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let finding = |line: &&str| line.contains("(ERROR)") || line.contains("(WARNING)");
    let unexpected: Vec<_> = text
        .lines()
        .filter(finding)
        .filter(|line| !EXPECTED.iter().any(|known| line.contains(known)))
        .collect();
    assert!(unexpected.is_empty(), "{}: {unexpected:?}", pem.display());
    // It prints nothing when all is well, but it must have run.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{}: {said}", pem.display());
}
