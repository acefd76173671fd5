//! docs/threat-model.md names tests: each has to be there, and each attack has its proof.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fieldlock_tests::trial::test;
use libtest_mimic::Trial;

/// Of the tables of attacks, and of the list of proofs; one of each number.
const ATTACKS: std::ops::RangeInclusive<u32> = 1..=42;

/// `others` are all trials but this one.
pub(crate) fn trial(others: &[Trial]) -> Trial {
    let names: Vec<String> = others.iter().map(|trial| trial.name().to_owned()).collect();
    test("threat_model::every_test_it_names_is_there", move || {
        check(&names);
    })
}

fn check(trials: &[String]) {
    let page = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    assert!(table(&page).eq(ATTACKS), "the tables of attacks");
    let proofs = proofs(&page);
    assert!(proofs.keys().copied().eq(ATTACKS), "the list of proofs");
    for (number, proofs) in &proofs {
        assert!(!proofs.is_empty(), "{number} has no proof");
        for proof in proofs {
            assert!(is_there(proof, trials), "{number}: {proof}: no such test");
        }
    }
    for trial in trials {
        let Some(number) = trial.strip_prefix("attacks::a") else {
            continue;
        };
        let number = number.get(..2).and_then(|number| number.parse().ok());
        let proofs = &proofs[&number.unwrap()];
        let is_named = proofs.iter().any(|proof| {
            let name = proof.trim_matches('`');
            trial.starts_with(name)
        });
        assert!(is_named, "{trial} is not under its number");
    }
}

/// The numbers of the rows.
fn table(page: &str) -> impl Iterator<Item = u32> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(' ')?.0.parse().ok())
}

/// What stands under each number.
fn proofs(page: &str) -> BTreeMap<u32, Vec<&str>> {
    let (_, list) = page.split_once("\n## Proofs\n").unwrap();
    let mut proofs = BTreeMap::new();
    let mut last = None;
    for line in list.lines() {
        if let Some(proof) = line.strip_prefix("    - ") {
            let of: &mut Vec<_> = proofs.get_mut(&last.unwrap()).unwrap();
            of.push(proof);
        } else if let Some(number) = line
            .split_once(". ")
            .and_then(|(number, _)| number.parse().ok())
        {
            let before = proofs.insert(number, Vec::new());
            assert!(before.is_none(), "{number} stands twice");
            last = Some(number);
        }
    }
    proofs
}

fn is_there(proof: &str, trials: &[String]) -> bool {
    if let Some(target) = proof.strip_prefix("fuzz target ") {
        let file = format!("{}.rs", target.trim_matches('`'));
        return root().join("tests/fuzz/fuzz_targets").join(file).is_file();
    }
    let Some(name) = proof.strip_prefix('`') else {
        // All tests of a kind, with the command that runs them.
        return proof.starts_with("the unit tests of ") || proof.starts_with("every ");
    };
    let name = name.strip_suffix('`').unwrap();
    match name.split_once("::") {
        Some((folder, test)) if folder.starts_with("crates/") => is_in(&root().join(folder), test),
        // With a transport or a case behind it, or the reason for which it is skipped.
        _ => trials.iter().any(|trial| {
            let rest = trial.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
        }),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A test function of this name in some file below `folder`, or in a module of this name.
fn is_in(folder: &Path, test: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return is_in(&path, test);
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains(&format!("fn {test}()"))
    })
}
