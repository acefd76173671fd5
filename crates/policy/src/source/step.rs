//! Reading `step`: how far a value may lie from the one before.

use toml::Spanned;
use toml::de::DeValue;

use super::MAX_NAME;
use super::keys::{Keys, integer, or_default};
use super::rate::milliseconds;
use crate::error::Problem;
use crate::step::Step;

type Value<'t> = Spanned<DeValue<'t>>;

impl<'t> Keys<'t> {
    pub(super) fn step(&mut self, key: &str, value: &'t Value<'t>) -> Option<Step> {
        const KEYS: &[&str] = &["max", "within"];
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(key, value, "a table such as { max = 50 }");
        };
        let mut keys = Keys::new("allow.step", table, KEYS, self.problems);
        let max = keys.value("max", Keys::step_max);
        let within = keys.value("within", Keys::within);
        if max.is_absent() {
            let hint = "give max, the greatest change, such as { max = 50 }";
            self.report(value.span(), key, Problem::Missing { hint });
        }
        let within = or_default(within, Step::DEFAULT_WITHIN)?;
        Some(Step {
            max: max.valid()?,
            within,
        })
    }

    fn step_max(&mut self, key: &str, value: &'t Value<'t>) -> Option<u16> {
        let Some(got) = integer(value.get_ref()) else {
            return self.wrong(key, value, "a number from 1 to 65535");
        };
        let max = u16::try_from(got).ok().filter(|max| *max > 0);
        if max.is_none() {
            self.report(value.span(), key, Problem::Step { got });
        }
        max
    }

    fn within(&mut self, key: &str, value: &'t Value<'t>) -> Option<u32> {
        let text = self.string(key, value)?;
        let within = milliseconds(text).filter(|span| Step::WITHIN.contains(span));
        if within.is_none() {
            let got = text.chars().take(MAX_NAME).collect();
            self.report(value.span(), key, Problem::Within(got));
        }
        within
    }
}
