//! Waiting for a condition with a deadline, instead of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short enough that a test's own waiting stays
/// invisible, long enough that a test leaves the processor to what it tests.
const POLL: Duration = Duration::from_millis(5);

/// The condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {within:?} in vain for {what}{detail}")]
pub struct TimedOut {
    pub what: String,
    pub within: Duration,
    /// Empty, or what helps to see why: the tail of a log.
    pub detail: String,
}

/// Polls `condition` until it holds. It is looked at once more after the deadline, so that
/// a test machine that stood still for a while does not fail a condition that holds.
pub fn wait_until(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), TimedOut> {
    wait_for(what, within, || condition().then_some(()))
}

/// Like [`wait_until`], for a condition that yields a value.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + within;
    loop {
        let last_look = Instant::now() >= deadline;
        if let Some(value) = condition() {
            return Ok(value);
        }
        if last_look {
            return Err(TimedOut {
                what: what.to_owned(),
                within,
                detail: String::new(),
            });
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_later_is_seen() {
        let mut looks = 0;
        let found = wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_condition_that_never_holds_names_itself() {
        let error = wait_until("the impossible", Duration::from_millis(20), || false).unwrap_err();
        assert_eq!(error.to_string(), "waited 20ms in vain for the impossible");
    }
}
