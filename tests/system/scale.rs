//! Many edges at one headend, bounded: what `benches/scale` does with thousands.

use std::process::Command;

use fieldlock_tests::trial::both;
use fieldlock_tests::{Transport, binary};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    both("scale::two_hundred_edges_come_back_from_a_storm", storm).into()
}

/// What a poll may come to on a machine that has no time for it: no answer that was waited for (0),
/// shed (0x06), too late (0x0B).
const LATE: [&str; 3] = ["0", "6", "11"];

/// All come back, and those that stayed up keep their tunnels and are served. How soon is not asked.
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
    assert!(!meanwhile.contains(" 0 answered"), "{text}");
    let (_, failed) = meanwhile.split_once("failed {").unwrap();
    let codes = failed.trim_end_matches('}').split(", ");
    let mut codes = codes.filter_map(|failed| failed.split_once(':'));
    assert!(codes.all(|(code, _)| LATE.contains(&code)), "{text}");
}
