//! Reading `rate`: how often an allow lets requests through.

use toml::Spanned;
use toml::de::DeValue;

use super::MAX_NAME;
use super::keys::{Keys, integer, or_default};
use crate::error::Problem;
use crate::model::rate::Rate;

type Value<'t> = Spanned<DeValue<'t>>;

impl<'t> Keys<'t> {
    pub(super) fn rate(&mut self, key: &str, value: &'t Value<'t>) -> Option<Rate> {
        const KEYS: &[&str] = &["per_second", "count", "per", "burst"];
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(key, value, "a table such as { per_second = 10 }");
        };
        let mut keys = Keys::new("allow.rate", table, KEYS, self.problems);
        let per_second = keys.value("per_second", Keys::requests);
        let count = keys.value("count", Keys::requests);
        let per = keys.value("per", Keys::seconds);
        let burst = keys.value("burst", Keys::requests);
        let simple = !per_second.is_absent();
        if simple == (!count.is_absent() || !per.is_absent())
            || count.is_absent() != per.is_absent()
        {
            let hint = "give per_second, or count and per, such as { count = 10, per = \"1m\" }";
            self.report(value.span(), key, Problem::Missing { hint });
            return None;
        }
        let count = if simple { per_second } else { count }.valid()?;
        Some(Rate {
            count,
            seconds: or_default(per, 1)?,
            burst: or_default(burst, count)?,
        })
    }

    fn requests(&mut self, key: &str, value: &'t Value<'t>) -> Option<u32> {
        let Some(got) = integer(value.get_ref()) else {
            return self.wrong(key, value, "a number of requests");
        };
        let requests = u32::try_from(got).ok();
        let requests = requests.filter(|number| (1..=Rate::MAX_COUNT).contains(number));
        if requests.is_none() {
            self.report(value.span(), key, Problem::Requests { got });
        }
        requests
    }

    fn seconds(&mut self, key: &str, value: &'t Value<'t>) -> Option<u32> {
        let text = self.string(key, value)?;
        let whole = milliseconds(text).filter(|span| span % 1000 == 0);
        let seconds = whole.map(|span| span / 1000);
        let seconds = seconds.filter(|s| (1..=Rate::MAX_SECONDS).contains(s));
        if seconds.is_none() {
            let got = text.chars().take(MAX_NAME).collect();
            self.report(value.span(), key, Problem::Span { got });
        }
        seconds
    }
}

/// `500ms`, `10s`, `5m` or `1h`.
pub(super) fn milliseconds(text: &str) -> Option<u32> {
    let factors = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let (number, factor) = factors
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    plain.then_some(())?;
    number.parse::<u32>().ok()?.checked_mul(factor)
}
