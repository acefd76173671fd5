//! The committed list of the requests that are refused although the policy allows them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fieldlock_testkit::peers::workspace_root;

use super::replay::{Answer, Exchange};

/// Set to 1, the lists are written and not compared.
const REGENERATE: &str = "FIELDLOCK_REGENERATE";

const HEADING: &str = "\
# Requests of the captures that Fieldlock refuses under a policy that allows everything, with
# the answer it gives: they break the Modbus specification. Written by the capture tests with
# FIELDLOCK_REGENERATE=1. The bytes are those behind the transaction id: protocol id, length,
# unit and PDU; at most 20 of them.
";

static FILE: Mutex<()> = Mutex::new(());

/// One line of the list.
pub(crate) fn line(capture: &str, exchange: &Exchange) -> String {
    let Exchange {
        frame,
        request,
        answer,
    } = exchange;
    let shown: Vec<String> = request
        .iter()
        .skip(2)
        .take(20)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let answer = match answer {
        Answer::Closed => "closed".to_owned(),
        Answer::Adu(adu) if adu.len() == 9 && adu[7] & 0x80 != 0 => {
            format!("exception {:#04x}", adu[8])
        }
        Answer::Adu(adu) => format!("{:02x?}", &adu[7..]),
    };
    format!("{capture} frame {frame}: {} -> {answer}", shown.join(" "))
}

/// The committed lines of one capture.
pub(crate) fn expected(capture: &str) -> BTreeSet<String> {
    let mine = format!("{capture} frame ");
    let lines = read().into_iter();
    lines.filter(|line| line.starts_with(&mine)).collect()
}

/// Compares with the committed lines, or replaces them.
pub(crate) fn check(capture: &str, lines: BTreeSet<String>) {
    if std::env::var(REGENERATE).is_ok_and(|value| value == "1") {
        replace(capture, lines);
        return;
    }
    let expected = expected(capture);
    let new: Vec<_> = lines.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&lines).collect();
    assert!(
        new.is_empty() && missing.is_empty(),
        "refused, not in the list: {new:#?}\nin the list, not refused: {missing:#?}\n\
         if that is right, write the list anew with {REGENERATE}=1"
    );
}

fn replace(capture: &str, lines: BTreeSet<String>) {
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let mine = format!("{capture} frame ");
    let mut all: Vec<String> = read();
    all.retain(|line| !line.starts_with(&mine));
    all.extend(lines);
    all.sort_by_key(|line| order(line));
    fs::write(path(), format!("{HEADING}{}\n", all.join("\n"))).unwrap();
}

/// By capture, then by frame as a number.
fn order(line: &str) -> (String, u32, String) {
    let mut words = line.split([' ', ':']);
    let capture = words.next().unwrap_or_default().to_owned();
    let frame = words.nth(1).and_then(|frame| frame.parse().ok());
    (capture, frame.unwrap_or(0), line.to_owned())
}

fn read() -> Vec<String> {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn path() -> PathBuf {
    workspace_root().join("tests/captures/refused.txt")
}
