//! A difference for people.

use std::fmt;

use super::{Change, Diff, Region};

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no difference");
        }
        let changes = self.regions.chunk_by(|a, b| a.change == b.change);
        for (place, regions) in changes.enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            f.write_str(match regions.first().map(|region| region.change) {
                Some(Change::Opens) => "opens",
                _ => "closes",
            })?;
            for region in regions {
                write!(f, "\n  {region}")?;
            }
        }
        let rates = self.rates.iter().map(|change| ("rate", "none", change));
        let steps = self.steps.iter().map(|change| ("step", "none", change));
        let repeats = self.repeats.iter();
        let repeats = repeats.map(|change| ("repeat", "refuse", change));
        let conditions = rates.chain(steps).chain(repeats);
        for (place, (condition, left_out, change)) in conditions.enumerate() {
            if place > 0 || !self.regions.is_empty() {
                writeln!(f)?;
            }
            let words = |text: &Option<String>| text.clone().unwrap_or_else(|| left_out.to_owned());
            let (old, new) = (words(&change.old), words(&change.new));
            write!(f, "{condition} of {:?}: {new}, was {old}", change.rule)?;
        }
        if !self.types.is_empty() {
            let before = [&self.rates, &self.steps, &self.repeats];
            if !self.regions.is_empty() || before.iter().any(|changes| !changes.is_empty()) {
                writeln!(f)?;
            }
            f.write_str("rules with a type, one by one")?;
            for change in &self.types {
                let words =
                    |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
                let (old, new) = (words(&change.old), words(&change.new));
                write!(f, "\n  {:?}: {new}\n      was {old}", change.rule)?;
            }
        }
        let others = [&self.rates, &self.steps, &self.repeats, &self.types];
        if self.stations.is_empty() {
            return Ok(());
        }
        if !self.regions.is_empty() || others.iter().any(|changes| !changes.is_empty()) {
            writeln!(f)?;
        }
        f.write_str("rules for stations, one by one")?;
        for change in &self.stations {
            write!(f, "\n  {change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.clients.as_slice() {
            [] => f.write_str("any client")?,
            clients => f.write_str(&clients.join(", "))?,
        }
        if let Some(via) = &self.via {
            write!(f, " via {via}")?;
        }
        let devices = match self.devices.as_slice() {
            [] => "any device".to_owned(),
            devices => devices.join(", "),
        };
        write!(
            f,
            " -> {devices}, unit {}: function {}",
            self.units, self.functions
        )?;
        if !self.addresses.is_empty() {
            write!(f, " at {}", self.addresses.join(", "))?;
        }
        if !self.values.is_empty() {
            write!(f, ", values {}", self.values.join(", "))?;
        }
        if let Some(when) = &self.when {
            write!(f, ", {when}")?;
        }
        if self.joined {
            f.write_str(", in one request; the other file allows the parts alone")?;
        }
        write!(f, "\n      such as {}", self.example.request)?;
        if self.units != self.example.unit.to_string() {
            write!(f, ", unit {}", self.example.unit)?;
        }
        Ok(())
    }
}

/// Octets in hexadecimal.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
