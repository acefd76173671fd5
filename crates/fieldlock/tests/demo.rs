//! The demo, as a new user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

#[test]
fn the_demo_shows_what_it_promises() {
    let output = demo(&[]);
    let (shown, errors) = texts(&output);
    assert!(output.status.success(), "{shown}\n{errors}");
    for expected in [
        "tunnel up",
        "X25519MLKEM768",
        "holding 40 = 1100",
        "write-intent hmi-1 pump-1 write-single-register holding 40 = [1100]",
        "denied hmi-1 pump-1 write-single-register holding 40 = [1900]",
        "allowed, rule \"level setpoint\"",
        "write-outcome of #",
        "denied, rule \"level setpoint\", value 1900 above 1200, refused, exception 0x03",
        "exception 0x02 illegal data address",
        "exception 0x03 illegal data value, from the edge",
        "its own ledger has exactly 1 write",
        "exception 0x0b gateway target device failed to respond",
        "exception 0x0a gateway path unavailable",
        "first answer after",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
    }
    assert!(!shown.contains('\x1b'), "colour without a terminal");
    assert_eq!(errors, "");
}

#[test]
fn it_explains_itself() {
    let output = demo(&["--help"]);
    let (help, _) = texts(&output);
    assert!(output.status.success());
    assert!(help.contains("--keep"), "{help}");
    assert!(!help.contains("--launch"), "{help}");
}

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fieldlock"))
        .arg("demo")
        .args(arguments)
        .output()
        .unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
