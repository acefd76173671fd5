//! docs/threat-model.md names tests: each has to be there, and each attack by its number.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fieldlock_tests::trial::test;
use libtest_mimic::Trial;

/// Of the table of attacks; a row for each.
const ATTACKS: std::ops::RangeInclusive<u32> = 1..=25;

/// `others` are all trials but this one.
pub(crate) fn trial(others: &[Trial]) -> Trial {
    let names: Vec<String> = others.iter().map(|trial| trial.name().to_owned()).collect();
    test("threat_model::every_test_it_names_is_there", move || {
        check(&names);
    })
}

fn check(trials: &[String]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let mut named = BTreeSet::new();
    for name in page.split('`').skip(1).step_by(2) {
        match name.split_once("::") {
            Some((folder, test)) if folder.starts_with("crates/") => {
                assert!(is_in(&root.join(folder), test), "{name}: no such test");
            }
            Some((module, _)) if is_plain(module) => {
                named.insert(name);
            }
            _ => {}
        }
    }
    assert!(named.len() > 50, "{} tests named", named.len());
    for name in &named {
        // With a transport or a case behind it, or the reason for which it is skipped.
        let is = |trial: &String| {
            let rest = trial.strip_prefix(*name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
        };
        assert!(trials.iter().any(is), "{name}: no such test");
    }
    let rows = page.lines().filter_map(|line| {
        let (number, _) = line.strip_prefix("| ")?.split_once(' ')?;
        number.parse::<u32>().ok().map(|number| (number, line))
    });
    let rows: Vec<_> = rows.collect();
    assert!(rows.iter().map(|(number, _)| *number).eq(ATTACKS));
    for trial in trials {
        let Some(number) = trial.strip_prefix("attacks::a") else {
            continue;
        };
        let number = number.get(..2).and_then(|number| number.parse().ok());
        let (_, row) = rows.iter().find(|(row, _)| Some(*row) == number).unwrap();
        let is_named = named
            .iter()
            .any(|name| trial.starts_with(name) && row.contains(name));
        assert!(is_named, "{trial} is not in its row");
    }
}

fn is_plain(module: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_lowercase() || octet == b'_';
    !module.is_empty() && module.bytes().all(plain)
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
