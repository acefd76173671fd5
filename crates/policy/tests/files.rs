//! Whole files: every valid one is read, every invalid one is refused with the text beside it.
//!
//! `UPDATE_EXPECTED=1 cargo test -p fieldlock-policy --test files` writes the texts anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use fieldlock_policy::{Policy, summary, warnings};

#[test]
fn valid_files_are_read() {
    for path in policies("valid") {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(errors) = Policy::parse(&text, &name(&path)) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_plant_policy_draws_no_warning_but_for_what_it_opens() {
    let text = fs::read_to_string(folder("valid").join("plant.toml")).unwrap();
    let policy = Policy::parse(&text, "plant.toml").unwrap();
    let warnings: Vec<String> = warnings(&policy, 0).iter().map(|w| w.to_string()).collect();
    let expected = "the allow \"engineering\" is for any function: that includes programming, \
                    start and stop of controllers ([40, 42, 90, 91, 125, 126])";
    assert_eq!(warnings, [expected]);
}

#[test]
fn a_set_is_counted_and_one_that_no_rule_uses_is_warned_of() {
    let text = fs::read_to_string(folder("valid").join("sets.toml")).unwrap();
    let policy = Policy::parse(&text, "sets.toml").unwrap();
    assert_eq!(summary(&policy).sets, 2);
    assert_eq!(warnings(&policy, 0), []);
    let text = text.replace("3, \"set:plain writes\"", "3, 6, 16");
    let policy = Policy::parse(&text, "sets.toml").unwrap();
    let warnings: Vec<String> = warnings(&policy, 0).iter().map(|w| w.to_string()).collect();
    assert_eq!(warnings, ["the set \"plain writes\" is used by no rule"]);
}

#[test]
fn a_step_of_what_nobody_can_read_is_warned_of() {
    let text = fs::read_to_string(folder("valid").join("steps.toml")).unwrap();
    let warnings_of = |text: &str| -> Vec<String> {
        let policy = Policy::parse(text, "steps.toml").unwrap();
        warnings(&policy, 0).iter().map(|w| w.to_string()).collect()
    };
    let warning = "the allow \"setpoint\" has a step for holding 40-41, and no allow lets anybody read \
                   them: without a last value the edge refuses what is written";
    assert_eq!(warnings_of(&text), [warning]);
    let read = text.replace("function = [6, 16]", "function = [3, 6, 16]");
    assert_eq!(warnings_of(&read), [""; 0]);
}

#[test]
fn what_sets_put_into_rules_is_bounded() {
    let units = vec!["1"; 10_000].join(", ");
    let mut text = format!("syntax = 1\n[[set]]\nname = \"s\"\nunit = [{units}]\n");
    for rule in 0..101 {
        text += &format!(
            "[[allow]]\nname = \"{rule}\"\ndevice = \"any\"\nfunction = 7\nunit = \"set:s\"\n"
        );
    }
    let errors = Policy::parse(&text, "many.toml").unwrap_err();
    assert_eq!(errors.errors.len(), 1, "{errors}");
    assert!(errors.to_string().contains("1000000 items"), "{errors}");
}

#[test]
fn invalid_files_are_refused_with_every_place_and_what_to_do() {
    for path in policies("invalid") {
        let text = fs::read_to_string(&path).unwrap();
        let errors = Policy::parse(&text, &name(&path)).expect_err(&name(&path));
        let found = format!("{errors}\n");
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(found, wanted, "{}", path.display());
    }
}

#[test]
fn a_file_full_of_errors_gives_a_bounded_list() {
    let text = format!("syntax = 1\n{}", "[[allow]]\n".repeat(5_000));
    let errors = Policy::parse(&text, "many.toml").unwrap_err();
    assert_eq!(errors.errors.len(), 50);
    assert_eq!(errors.omitted, 5_000 * 3 - 50);
    assert!(errors.to_string().ends_with("14950 more errors"));
    let text = format!("syntax = 1\n{}", "[[allow]]\n".repeat(10_001));
    let errors = Policy::parse(&text, "many.toml").unwrap_err();
    assert!(errors.to_string().contains("at most 10000"), "{errors}");
}

#[test]
fn an_empty_file_is_refused_and_not_taken_for_a_policy() {
    assert!(Policy::parse("", "empty.toml").is_err());
}

fn policies(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(kind)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(kind)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
