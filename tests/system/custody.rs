//! The CA's records and keys, under processes that die and processes that meet.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use fieldlock_testkit::process::Directory;
use fieldlock_tests::{Site, binary, trial};
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("custody::killed_while_issuing", killed_while_issuing),
        trial::test("custody::two_processes_on_one_ca", two_processes),
    ]
}

/// Whenever it dies: what got out is on record, and the next command goes on.
fn killed_while_issuing() {
    let site = Site::new();
    let out = Directory::new().unwrap();
    let begun = Instant::now();
    let whole = issue(&site, "whole", &out.join("whole")).wait().unwrap();
    assert!(whole.success());
    let takes = begun.elapsed();
    for part in 1..=TRIES {
        let name = format!("killed-{part}");
        let mut child = issue(&site, &name, &out.join(&name));
        // The moments sweep over the whole of it; where exactly they fall does not matter.
        let moment = Instant::now() + takes * part / (TRIES - 3);
        while Instant::now() < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    site.ca_command(&[&"verify"]);
    let mut got_out = 0;
    for part in 1..=TRIES {
        let name = format!("killed-{part}");
        let Ok(text) = std::fs::read_to_string(out.join(format!("{name}/bundle.pem"))) else {
            continue;
        };
        // A file of which half was written is a certificate that did not get out.
        if let Some((leaf, _)) = text.split_once(END) {
            got_out += 1;
            let on_record = site.ca_command(&[&"show", &name, &"--pem"]);
            assert!(on_record.starts_with(leaf), "{name}");
        }
    }
    assert!(got_out < TRIES, "none was killed in time");
    assert!(
        issue(&site, "after", &out.join("after"))
            .wait()
            .unwrap()
            .success()
    );
}

fn two_processes() {
    let site = Site::new();
    let out = Directory::new().unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("press-{n}")).collect();
    let children: Vec<Child> = names
        .iter()
        .map(|name| issue(&site, name, &out.join(name)))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    site.ca_command(&[&"verify"]);
    let mut serials = serials(&site);
    assert_eq!(serials.len(), names.len());
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), names.len());
}

fn issue(site: &Site, name: &str, out: &Path) -> Child {
    let mut command = binary::command();
    command
        .args(["ca", "issue", "--role", "edge", "--name", name, "--dir"])
        .arg(site.ca())
        .arg("--passphrase-file")
        .arg(site.passphrase_file())
        .arg("--out")
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn serials(site: &Site) -> Vec<String> {
    let list: Value = serde_json::from_str(&site.ca_command(&[&"list", &"--json"])).unwrap();
    let serial = |entry: &Value| entry["serial"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(serial).collect()
}

const TRIES: u32 = 30;
const END: &str = "-----END CERTIFICATE-----";
