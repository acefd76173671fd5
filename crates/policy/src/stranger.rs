//! Names in a policy that the configuration beside it does not have.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::scope::ReadOnly;
use crate::model::spelling::nearest;
use crate::policy::Policy;

/// The names that the configuration of one agent has.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub devices: &'a [&'a str],
    pub stations: &'a [&'a str],
    /// `None` where `via` is not judged.
    pub headends: Option<&'a [&'a str]>,
}

/// Names of rules that no entry of the configuration has: mistyped, or another agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strangers {
    /// `devices`, `stations` or `headends`.
    pub kind: &'static str,
    /// Each with a name of the configuration that was meant perhaps; those that have one first.
    pub names: Vec<(String, Option<String>)>,
}

/// Names that are shown; a policy of a fleet has many that are others'.
const SHOWN: usize = 8;

impl fmt::Display for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, names } = self;
        write!(
            f,
            "the policy names {kind} that this configuration does not have, so those rules do nothing here: "
        )?;
        for (place, (name, nearest)) in names.iter().take(SHOWN).enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{name:?}")?;
            if let Some(nearest) = nearest {
                write!(f, " (did you mean {nearest:?}?)")?;
            }
        }
        match names.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Policy {
    /// The names in rules, and in `read_only`, that are not known, by their kind; of the policy that
    /// narrows this one too.
    pub fn strangers(&self, known: &Known<'_>) -> Vec<Strangers> {
        let mut devices = BTreeSet::new();
        let mut stations = BTreeSet::new();
        let mut headends = BTreeSet::new();
        for policy in [Some(self), self.narrowing()].into_iter().flatten() {
            for rule in &policy.rules {
                devices.extend(rule.devices.listed().iter().map(String::as_str));
                headends.extend(rule.via.listed().iter().map(String::as_str));
            }
            if let ReadOnly::Devices(listed) = &policy.read_only {
                devices.extend(listed.iter().map(String::as_str));
            }
            for rule in &policy.stations {
                stations.extend(rule.stations.listed().iter().map(|name| name.as_str()));
                headends.extend(rule.via.listed().iter().map(String::as_str));
            }
        }
        let kinds = [
            ("devices", devices, Some(known.devices)),
            ("stations", stations, Some(known.stations)),
            ("headends", headends, known.headends),
        ];
        let judged = kinds
            .into_iter()
            .filter_map(|(kind, named, known)| Some((kind, named, known?)));
        judged
            .filter_map(|(kind, named, known)| {
                let known: BTreeSet<&str> = known.iter().copied().collect();
                let meant = |name| nearest(name, known.iter().copied()).map(str::to_owned);
                let mut names: Vec<(String, Option<String>)> = named
                    .difference(&known)
                    .map(|name| (String::from(*name), meant(name)))
                    .collect();
                names.sort_by_key(|(_, nearest)| nearest.is_none());
                (!names.is_empty()).then_some(Strangers { kind, names })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        syntax = 1
        read_only = ["mixer-03"]
        [[allow]]
        name = "reads"
        device = ["press-07", "pres-07"]
        via = ["hd-1", "elsewhere"]
        function = "read"
        address = "any"
        [[allow]]
        name = "io"
        station = ["drive-1", "drive-2"]
        service = "io"
    "#;

    #[test]
    fn names_that_no_configuration_has_are_told_with_what_was_meant() {
        let known = Known {
            devices: &["press-07", "press-08"],
            stations: &["drive-1"],
            headends: Some(&["hd-1", "hd-2"]),
        };
        let told = |policy: &Policy, known: &Known<'_>| -> Vec<String> {
            let strangers = policy.strangers(known);
            strangers.iter().map(ToString::to_string).collect()
        };
        let policy = Policy::parse(POLICY, "test.toml").unwrap();
        let told_of = |kind: &str, names: &str| {
            format!(
                "the policy names {kind} that this configuration does not have, so those rules do nothing here: {names}"
            )
        };
        let device = told_of(
            "devices",
            "\"pres-07\" (did you mean \"press-07\"?), \"mixer-03\"",
        );
        let station = told_of("stations", "\"drive-2\" (did you mean \"drive-1\"?)");
        let via = told_of("headends", "\"elsewhere\"");
        assert_eq!(told(&policy, &known), [device, station.clone(), via]);
        let narrowed = Policy::deny_all().narrowed_by(policy);
        assert_eq!(told(&narrowed, &known).len(), 3);
        let headend = Known {
            devices: &["press-07", "pres-07", "mixer-03"],
            headends: None,
            ..known
        };
        assert_eq!(told(&narrowed, &headend), [station]);
    }
}
