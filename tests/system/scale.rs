//! Many edges at one headend, bounded: what `benches/scale` does with thousands.

use std::process::Command;

use fieldlock_tests::trial::both;
use fieldlock_tests::{Transport, binary};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    both("scale::two_hundred_edges_come_back_from_a_storm", storm).into()
}

/// All come back, and those that stayed up were served all the time.
fn storm(transport: Transport) {
    let bench = binary::bench("fieldlock-bench-scale");
    let mut command = Command::new(bench);
    command.arg("storm").arg("--fieldlock").arg(binary::path());
    command.args(["--tunnels", "200", "--live", "10", "--calm", "1"]);
    command.args(["--transport", &transport.to_string()]);
    let output = command.output().unwrap();
    let text = binary::text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("tunnels of the others lost: 0"), "{text}");
    let meanwhile = text
        .lines()
        .find(|line| line.starts_with("polls meanwhile"));
    let meanwhile = meanwhile.unwrap_or_else(|| panic!("{text}"));
    assert!(meanwhile.ends_with("failed {}"), "{text}");
}
