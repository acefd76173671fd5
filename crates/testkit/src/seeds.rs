//! Simulations that follow from one seed: many of them, or the one that failed.

use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crate::random::Random;

/// Chance, from one seed.
#[derive(Debug)]
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Random::seeded(seed))
    }

    /// 0 to `sides` - 1.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0.next() % sides
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }

    /// In tenths: things that happen at one instant are rare, and do occur.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        let tenths = self.roll((range.end - range.start) * 10);
        Duration::from_millis(range.start) + Duration::from_micros(tenths * 100)
    }
}

/// Calls `run` with each of `seeds`, on two threads; it panics where something is wrong.
///
/// `FIELDLOCK_SEEDS=A..B` takes other seeds, `FIELDLOCK_SEED=N` the one, with `traced` set. A seed
/// that fails is run once more with its trace, then named with the command that repeats it: `test`
/// is what `cargo test` is to be given.
///
/// # Panics
///
/// With the first seed that fails, and where a variable is not a number or a range.
pub fn sweep(test: &str, seeds: Range<u64>, run: impl Fn(u64, bool) + Sync) {
    if let Ok(seed) = env::var("FIELDLOCK_SEED") {
        return run(number(&seed), true);
    }
    let seeds = env::var("FIELDLOCK_SEEDS").map_or(seeds, |text| {
        let (first, end) = text.split_once("..").unwrap_or((&text, ""));
        number(first)..number(end)
    });
    let middle = seeds.start + (seeds.end - seeds.start) / 2;
    let half = |seeds: Range<u64>| {
        let fails = |&seed: &u64| catch_unwind(AssertUnwindSafe(|| run(seed, false))).is_err();
        let seed = seeds.clone().find(fails)?;
        let again = catch_unwind(AssertUnwindSafe(|| run(seed, true))).is_err();
        let word = if again {
            ""
        } else {
            ", and not when it is repeated"
        };
        Some(format!(
            "seed {seed} fails{word}: FIELDLOCK_SEED={seed} cargo test {test} -- --nocapture"
        ))
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let halves = [seeds.start..middle, middle..seeds.end];
        let halves = halves.map(|seeds| scope.spawn(|| half(seeds)));
        let died = |_| Some("a thread of the sweep has died".to_owned());
        let ends = halves.map(|half| half.join().unwrap_or_else(died));
        ends.into_iter().flatten().collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn number(text: &str) -> u64 {
    let parsed = text.trim().parse();
    assert!(
        parsed.is_ok(),
        "FIELDLOCK_SEED is a number and FIELDLOCK_SEEDS a range A..B, not {text:?}"
    );
    parsed.unwrap_or_default()
}
