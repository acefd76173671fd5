//! Counts what rules with a rate let through, by who asked.
//!
//! A token bucket for each rule and asker, held as the one moment at which it is full again: every
//! request that passes moves it by one interval. A bucket that is full is the same as none, so
//! forgetting it gives nothing away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_policy::{Rate, RuleId};

/// Buckets that are not full, all rules together. About 64 bytes each.
const MAX_BUCKETS: usize = 4_096;
/// How often full buckets are looked for when there is no room.
const SWEEP: Duration = Duration::from_millis(100);

/// Who uses up a rate: what can be proven, or else seen, of those who ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    Address(IpAddr),
    /// As a certificate proves it.
    Identity(Arc<str>),
    /// At the edge: all that comes through one headend. The clients that it states prove nothing.
    Headend(Arc<str>),
}

/// What is left of the rates. One for an agent, so that a client that connects anew finds what it
/// has used. Knows rules by their ids: [`Meter::clear`] it for another policy.
#[derive(Debug, Default)]
pub struct Meter {
    /// When each bucket is full again.
    full_at: HashMap<(RuleId, Who), Instant>,
    swept: Option<Instant>,
}

impl Meter {
    /// Takes a token if there is one. Where there is no room for one bucket more there is none.
    pub(crate) fn take(&mut self, rule: RuleId, rate: Rate, who: &Who, now: Instant) -> bool {
        let key = (rule, who.clone());
        let known = self.full_at.get(&key).copied();
        if known.is_none() && !self.has_room(now) {
            return false;
        }
        let interval = rate.interval();
        let full_at = known.map_or(now, |full_at| full_at.max(now));
        let Some(full_at) = full_at.checked_add(interval) else {
            return false;
        };
        if full_at.saturating_duration_since(now) > interval.saturating_mul(rate.burst()) {
            return false;
        }
        self.full_at.insert(key, full_at);
        true
    }

    /// Puts back what a request took that was refused by something else afterwards.
    pub(crate) fn put_back(&mut self, rule: RuleId, rate: Rate, who: &Who) {
        if let Some(full_at) = self.full_at.get_mut(&(rule, who.clone()))
            && let Some(before) = full_at.checked_sub(rate.interval())
        {
            *full_at = before;
        }
    }

    /// For another policy: every rate begins anew.
    pub fn clear(&mut self) {
        self.full_at.clear();
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.full_at.len() < MAX_BUCKETS {
            return true;
        }
        if self
            .swept
            .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP)
        {
            self.swept = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < MAX_BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use fieldlock_modbus::{Quirks, Request};
    use fieldlock_policy::{Client, Now, Origin, Policy, Side, View};
    use proptest::prelude::*;

    use super::*;
    use crate::admit::{Count, Permit, admit};

    const WRITE: &[u8] = &[6, 0, 1, 0, 1];

    fn view(rates: [&str; 2]) -> Arc<View> {
        let [writes, reads] = rates;
        let text = format!(
            "syntax = 1\n[[allow]]\nname = \"writes\"\ndevice = \"any\"\nfunction = \"write\"\n\
             address = \"any\"\nrate = {writes}\n[[allow]]\nname = \"reads\"\ndevice = \"any\"\n\
             function = \"read\"\naddress = \"any\"\nrate = {reads}\n"
        );
        let policy = Policy::parse(&text, "rates.toml").unwrap();
        let origin = Origin {
            side: Side::Headend,
            via: None,
            client: Client::default(),
        };
        policy.view(&origin, "press-07", &policy.phase(Now::Unknown))
    }

    fn of_writes(rate: &str) -> Arc<View> {
        view([rate, "{ per_second = 1 }"])
    }

    fn address(last: u8) -> Who {
        Who::Address([192, 0, 2, last].into())
    }

    struct Run {
        view: Arc<View>,
        meter: Meter,
        now: Instant,
    }

    impl Run {
        fn new(view: Arc<View>) -> Self {
            Self {
                view,
                meter: Meter::default(),
                now: Instant::now(),
            }
        }

        fn ask<'p>(&mut self, who: &Who, pdu: &'p [u8]) -> Result<Permit<'p>, String> {
            let count = Count {
                meter: &mut self.meter,
                who,
                registers: None,
                now: self.now,
            };
            admit(&self.view, 1, pdu, Quirks::NONE, count)
                .map_err(|refused| format!("{:#04x} {}", refused.exception.code(), refused.why))
        }

        fn passes(&mut self, who: &Who, pdu: &[u8]) -> bool {
            self.ask(who, pdu).is_ok()
        }
    }

    #[test]
    fn what_is_too_often_is_refused_as_busy_until_time_has_passed() {
        let mut run = Run::new(of_writes("{ per_second = 2 }"));
        let (hmi, other) = (address(1), address(2));
        assert!(run.passes(&hmi, WRITE) && run.passes(&hmi, WRITE));
        let refused = run.ask(&hmi, WRITE).unwrap_err();
        assert_eq!(refused, "0x06 more than 2 requests in 1s");
        assert!(run.passes(&other, WRITE));
        run.now += Duration::from_millis(499);
        assert!(!run.passes(&hmi, WRITE));
        run.now += Duration::from_millis(1);
        assert!(run.passes(&hmi, WRITE));
        assert!(!run.passes(&hmi, WRITE));
    }

    #[test]
    fn what_is_refused_otherwise_uses_nothing() {
        let mut run = Run::new(of_writes("{ per_second = 1 }"));
        let who = address(1);
        assert!(!run.passes(&who, &[90, 1]));
        let permit = run.ask(&who, WRITE).unwrap();
        permit.put_back(&mut run.meter, &who);
        assert!(run.passes(&who, WRITE));
        assert!(!run.passes(&who, WRITE));
    }

    #[test]
    fn function_23_uses_both_rates_or_none() {
        let mut run = Run::new(view(["{ per_second = 1 }", "{ per_second = 2 }"]));
        let who = address(1);
        let both = [23, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 1];
        assert!(Request::parse(&both).is_ok());
        assert!(run.passes(&who, &both));
        // No write is left, so the read is not used up.
        assert!(!run.passes(&who, &both));
        assert!(run.passes(&who, &[3, 0, 0, 0, 1]));
        assert!(!run.passes(&who, &[3, 0, 0, 0, 1]));
    }

    #[test]
    fn there_are_only_so_many_buckets_and_full_ones_make_room() {
        let mut run = Run::new(of_writes("{ count = 1, per = \"10s\" }"));
        let who = |number: usize| Who::Identity(number.to_string().into());
        for number in 0..MAX_BUCKETS {
            assert!(run.passes(&who(number), WRITE));
        }
        assert!(!run.passes(&who(MAX_BUCKETS), WRITE));
        run.now += Duration::from_secs(11);
        assert!(run.passes(&who(MAX_BUCKETS), WRITE));
        assert_eq!(run.meter.full_at.len(), 1);
    }

    proptest! {
        #[test]
        fn it_lets_through_what_a_counted_bucket_lets_through(
            count in 1u64..20,
            burst in 1u64..20,
            pauses in proptest::collection::vec(0u64..400, 1..200),
        ) {
            let rate = format!("{{ count = {count}, per = \"1s\", burst = {burst} }}");
            let mut run = Run::new(of_writes(&rate));
            // Thousandths of a token.
            let mut left = burst * 1000;
            for milliseconds in pauses {
                run.now += Duration::from_millis(milliseconds);
                left = (left + milliseconds * count).min(burst * 1000);
                let passes = left >= 1000;
                prop_assert_eq!(run.passes(&address(1), WRITE), passes);
                left -= if passes { 1000 } else { 0 };
            }
        }
    }
}
