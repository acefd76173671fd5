//! Every kind of certificate and CRL that the CA makes, before pkilint: no error or warning but
//! those listed here with a reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_testkit::process::Directory;
use fieldlock_tests::{Site, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::with_peers(
            "lint::certificates_and_crls_pass_pkilint",
            &["pkilint"],
            lint,
        ),
        trial::with_peers(
            "lint::policies_fit_their_json_schema",
            &["jsonschema"],
            policies,
        ),
    ]
}

/// pkilint takes no scheme without a registered grammar of its host: it says so of `spiffe://`
/// as of `urn:`. SPIFFE defines the form that is used here (SPIFFE-ID, section 2).
const EXPECTED: &[&str] = &["pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: \"spiffe://"];

/// Each file is read as an editor reads it: TOML, then the schema. Prints what does not fit.
const VALIDATE: &str = r#"
import datetime, json, sys, tomllib
from jsonschema import Draft202012Validator as Validator
schema = json.load(open(sys.argv[1]))
Validator.check_schema(schema)
def plain(value):
    if isinstance(value, dict): return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list): return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.datetime) else value
for file in sys.argv[2:]:
    try: errors = list(Validator(schema).iter_errors(plain(tomllib.load(open(file, "rb")))))
    except tomllib.TOMLDecodeError as error: errors = [error]
    print("good" if not errors else "bad", file)
"#;

/// What the parser takes, the schema takes; and it knows the mistakes that a schema can know.
fn policies() {
    let root = workspace_root();
    let tests = root.join("crates/policy/tests");
    let toml = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .collect()
    };
    let good = toml(tests.join("valid")).into_iter().chain(
        ["pump-station", "press-line", "substation"]
            .map(|plant| root.join("examples").join(plant).join("policy.toml")),
    );
    // The others break rules between keys, or name what does not exist.
    let beyond = ["any-function", "clients", "failing-tests"];
    let bad = toml(tests.join("invalid")).into_iter().filter(|path| {
        !beyond
            .iter()
            .any(|name| path.file_stem().is_some_and(|stem| stem == *name))
    });
    for (files, word) in [(good.collect::<Vec<_>>(), "good"), (bad.collect(), "bad")] {
        assert!(files.len() >= 8, "{files:?}");
        let output = Command::new(Peer::find("jsonschema").unwrap())
            .args(["-c", VALIDATE])
            .arg(root.join("crates/policy/policy.schema.json"))
            .args(&files)
            .output()
            .unwrap();
        let text = fieldlock_tests::binary::text(&output);
        assert!(output.status.success(), "{text}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.lines().count(), files.len(), "{text}");
        let all = said.lines().all(|line| line.starts_with(word));
        assert!(all, "expected all {word}:\n{said}");
    }
}

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
