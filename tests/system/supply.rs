//! Attack 23: what the program is made of. Only what `Cargo.lock` names and hashes, from one
//! registry, under licences of `deny.toml`, with one library for cryptography.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fieldlock_tests::trial::test;
use libtest_mimic::Trial;
use serde_json::Value;
use toml::Table;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "attacks::a23_packages_are_locked_and_of_one_registry",
            locked,
        ),
        test("attacks::a23_one_cryptography_and_no_old_version", versions),
        test("attacks::a23_licences_are_those_of_the_list", licences),
        test("attacks::a23_the_list_of_parts_is_whole", list_of_parts),
    ]
}

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Versions below which there is a known hole that matters here, or none was looked for.
const AT_LEAST: &[(&str, [u64; 3])] = &[
    // RUSTSEC-2026-0037, GHSA-4w2j-m93h-cj5j: a panic and memory without bound, before any proof
    // of who the peer is.
    ("quinn-proto", [0, 11, 16]),
    ("quinn", [0, 11, 12]),
    ("rustls", [0, 23, 46]),
    ("rustls-webpki", [0, 103, 17]),
    ("aws-lc-rs", [1, 19, 0]),
    ("rcgen", [0, 14, 10]),
    ("x509-parser", [0, 18, 1]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn toml(file: &str) -> Table {
    let text = fs::read_to_string(root().join(file)).unwrap();
    text.parse().unwrap()
}

fn locked() {
    let lock = toml("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() > 200);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        match package.get("source").map(|source| source.as_str().unwrap()) {
            None => assert!(name.starts_with("fieldlock"), "{name} has no source"),
            Some(source) => {
                assert_eq!(source, REGISTRY, "{name}");
                let checksum = package["checksum"].as_str().unwrap();
                let plain = |octet: u8| octet.is_ascii_hexdigit();
                assert!(
                    checksum.len() == 64 && checksum.bytes().all(plain),
                    "{name}"
                );
            }
        }
    }
}

/// Names, versions and licences of all that goes into the binary here, each once.
fn parts() -> Vec<(String, String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "fieldlock", "--locked", "--offline"])
        .args(["-e", "normal,build", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}\t{l}"])
        .current_dir(root())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts: Vec<_> = text
        .lines()
        .map(|line| {
            let (package, licence) = line.split_once('\t').unwrap();
            let mut words = package.split(' ');
            let name = words.next().unwrap().to_owned();
            let version = words.next().unwrap().trim_start_matches('v').to_owned();
            (name, version, licence.to_owned())
        })
        .collect();
    parts.sort();
    parts.dedup();
    assert!(parts.len() > 100, "{}", parts.len());
    parts
}

fn versions() {
    let parts = parts();
    let deny = toml("deny.toml");
    for banned in deny["bans"]["deny"].as_array().unwrap() {
        let banned = banned["crate"].as_str().unwrap();
        assert!(!parts.iter().any(|(name, ..)| name == banned), "{banned}");
    }
    for (wanted, least) in AT_LEAST {
        let found: Vec<_> = parts.iter().filter(|(name, ..)| name == wanted).collect();
        let [(_, version, _)] = found.as_slice() else {
            panic!("{wanted} once, not {found:?}");
        };
        let numbers: Vec<u64> = version.split('.').map(|n| n.parse().unwrap()).collect();
        assert!(numbers.as_slice() >= least.as_slice(), "{wanted} {version}");
    }
}

fn licences() {
    let deny = toml("deny.toml");
    let allowed: Vec<&str> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    for (name, version, licence) in parts() {
        let tokens = licence.replace('/', " OR ");
        let tokens = tokens.replace('(', " ( ").replace(')', " ) ");
        let tokens: Vec<&str> = tokens.split_whitespace().collect();
        let (allows, rest) = any(&tokens, &allowed);
        assert!(rest.is_empty(), "{name} {version}: {licence}");
        assert!(allows, "{name} {version}: {licence} is not in deny.toml");
    }
    let refused = ["GPL-3.0-only", "AND", "MIT"];
    assert_eq!(any(&refused, &allowed), (false, &[][..]));
}

/// An SPDX expression: whether it can be met with what is allowed, and what follows it.
fn any<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = all(tokens, allowed);
    while let ["OR", next @ ..] = rest {
        let (other, after) = all(next, allowed);
        (met, rest) = (met | other, after);
    }
    (met, rest)
}

fn all<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(tokens, allowed);
    while let ["AND", next @ ..] = rest {
        let (other, after) = one(next, allowed);
        (met, rest) = (met & other, after);
    }
    (met, rest)
}

fn one<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    match tokens {
        ["(", inner @ ..] => match any(inner, allowed) {
            (met, [")", rest @ ..]) => (met, rest),
            (_, rest) => panic!("no closing parenthesis before {rest:?}"),
        },
        [name, "WITH", exception, rest @ ..] => {
            let both = format!("{name} WITH {exception}");
            (allowed.contains(&both.as_str()), rest)
        }
        [name, rest @ ..] => (allowed.contains(name), rest),
        [] => panic!("an expression is missing"),
    }
}

fn list_of_parts() {
    let output = Command::new("python3")
        .arg(root().join("tests/sbom.py"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["bomFormat"], "CycloneDX");
    let mut listed: Vec<_> = list["components"].as_array().unwrap().iter().collect();
    listed.push(&list["metadata"]["component"]);
    let mut listed: Vec<_> = listed
        .iter()
        .map(|part| {
            let text = |key: &str| part[key].as_str().unwrap().to_owned();
            (text("name"), text("version"))
        })
        .collect();
    listed.sort();
    let expected: Vec<_> = parts().into_iter().map(|(n, v, _)| (n, v)).collect();
    assert_eq!(listed, expected);
}
