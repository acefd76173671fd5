//! Reading `step`: how far a value may lie from the one before.

use toml::Spanned;
use toml::de::DeValue;

use super::MAX_NAME;
use super::keys::{Keys, literal, or_default};
use super::rate::milliseconds;
use crate::error::{ModbusProblem, Problem};
use crate::model::number::{Number, NumberType};
use crate::model::step::Step;

type Value<'t> = Spanned<DeValue<'t>>;

impl<'t> Keys<'t> {
    /// Greatest change, as a distance of the type, and milliseconds.
    pub(super) fn step(
        &mut self,
        key: &str,
        value: &'t Value<'t>,
        number: NumberType,
    ) -> Option<(Number, u32)> {
        const KEYS: &[&str] = &["max", "within"];
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(key, value, "a table such as { max = 50 }");
        };
        let mut keys = Keys::new("allow.step", table, KEYS, self.problems);
        let max = keys.value("max", |keys, key, value| {
            keys.step_max(key, value, number.of_distance())
        });
        let within = keys.value("within", Keys::within);
        if max.is_absent() {
            let hint = "give max, the greatest change, such as { max = 50 }";
            self.report(value.span(), key, Problem::Missing { hint });
        }
        let within = or_default(within, Step::DEFAULT_WITHIN)?;
        Some((max.valid()?, within))
    }

    fn step_max(
        &mut self,
        key: &str,
        value: &'t Value<'t>,
        distance: NumberType,
    ) -> Option<Number> {
        let Some(got) = literal(value.get_ref(), distance) else {
            return match distance.is_float() {
                true => self.wrong(key, value, "a number above 0"),
                false => self.wrong(key, value, "a whole number above 0"),
            };
        };
        let max = distance.parse(&got).filter(|max| max.rank > 0);
        if max.is_none() {
            let problem = ModbusProblem::Step {
                got,
                number: distance,
            };
            self.report(value.span(), key, problem);
        }
        max
    }

    fn within(&mut self, key: &str, value: &'t Value<'t>) -> Option<u32> {
        let text = self.string(key, value)?;
        let within = milliseconds(text).filter(|span| Step::WITHIN.contains(span));
        if within.is_none() {
            let got = text.chars().take(MAX_NAME).collect();
            self.report(value.span(), key, ModbusProblem::Within { got });
        }
        within
    }
}
