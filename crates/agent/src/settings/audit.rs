//! `[audit]`, the same for both agents.

use std::time::Duration;

use fieldlock_audit::{Limits, Reads, WhenFull};
use serde::de::{Error as _, IntoDeserializer as _};
use serde::{Deserialize, Deserializer};

use super::Span;
use super::checks::Checks;

/// How large the audit log may grow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// A file of this size is closed and the next begun.
    pub segment_size: Size,
    /// So is one of this age.
    pub segment_age: Span,
    /// All files together.
    pub max_size: Size,
    /// Closed files older than this are deleted; none where it is not set.
    pub keep: Option<Span>,
    /// What happens at `max_size`.
    pub when_full: WhenFull,
    /// Reads that were answered.
    pub reads: ReadsSetting,
}

/// `"off"`, `"all"`, `"changed"`, or a time: one of those alike in so much time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReadsSetting(Reads);

impl<'de> Deserialize<'de> for ReadsSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let reads = match text.as_str() {
            "off" => Reads::Off,
            "all" => Reads::All,
            "changed" => Reads::Changed,
            _ => Span::deserialize(text.as_str().into_deserializer())
                .map(|span| Reads::Sampled(span.0))
                .map_err(|_: D::Error| {
                    D::Error::custom(format!(
                        "`{text}` is not a choice of reads: write \"off\", \"all\", \"changed\", or \
                         a time like \"1m\" for one of those alike in that time"
                    ))
                })?,
        };
        Ok(Self(reads))
    }
}

impl Default for Audit {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            segment_size: Size(limits.segment_bytes),
            segment_age: Span(limits.segment_age),
            max_size: Size(limits.max_bytes),
            keep: limits.keep.map(Span),
            when_full: limits.when_full,
            reads: ReadsSetting::default(),
        }
    }
}

impl Audit {
    pub fn check(&self, file: &Checks<'_>) {
        // Recovery at the start reads two files of the log.
        file.at_table("audit");
        let size = 64 * KIB..=GIB;
        file.ensure(size.contains(&self.segment_size.0), || {
            "audit: `segment_size` is 64KiB to 1GiB".to_owned()
        });
        let room = self.max_size.0 >= self.segment_size.0.saturating_mul(4);
        file.ensure(room, || {
            "audit: `max_size` must be at least four times `segment_size`".to_owned()
        });
        let age = self.segment_age.0 >= Duration::from_secs(60);
        file.ensure(age, || {
            "audit: `segment_age` must be at least 1m".to_owned()
        })
    }

    pub fn reads(&self) -> Reads {
        self.reads.0
    }

    pub fn limits(&self) -> Limits {
        Limits {
            segment_bytes: self.segment_size.0,
            segment_age: self.segment_age.0,
            max_bytes: self.max_size.0,
            keep: self.keep.map(|keep| keep.0),
            when_full: self.when_full,
        }
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// A number of bytes as people write it: `"512KiB"`, `"16MiB"`, `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unit = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];
        let parsed = unit.into_iter().find_map(|(name, factor)| {
            let number: u64 = text.strip_suffix(name)?.trim_end().parse().ok()?;
            number.checked_mul(factor)
        });
        parsed.map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is not a size; write it like \"512KiB\", \"16MiB\" or \"1GiB\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let size = |text: &str| serde_json::from_value::<Size>(text.into()).map(|size| size.0);
        assert_eq!(size("64KiB").unwrap(), 65_536);
        assert_eq!(size("16 MiB").unwrap(), 16_777_216);
        assert_eq!(size("1GiB").unwrap(), 1_073_741_824);
        for wrong in ["16", "16MB", "-1KiB", "MiB", "99999999999999GiB"] {
            let error = size(wrong).unwrap_err().to_string();
            assert!(error.contains("16MiB"), "{error}");
        }
    }

    #[test]
    fn reads_are_chosen_by_a_word_or_a_time() {
        let reads = |text: &str| serde_json::from_value::<ReadsSetting>(text.into());
        assert_eq!(reads("off").unwrap().0, Reads::Off);
        assert_eq!(reads("changed").unwrap().0, Reads::Changed);
        let minute = Duration::from_secs(60);
        assert_eq!(reads("1m").unwrap().0, Reads::Sampled(minute));
        let error = reads("some").unwrap_err().to_string();
        assert!(error.contains("changed"), "{error}");
    }

    #[test]
    fn limits_that_leave_no_room_are_refused() {
        let check = |audit: Audit| {
            let checks = Checks::new("");
            audit.check(&checks);
            let findings = checks.into_findings();
            findings.first().map(|finding| finding.message.clone())
        };
        assert_eq!(check(Audit::default()), None);
        let error = check(Audit {
            max_size: Size(MIB),
            ..Audit::default()
        });
        assert!(error.unwrap().contains("max_size"));
        let error = check(Audit {
            segment_size: Size(1),
            ..Audit::default()
        });
        assert!(error.unwrap().contains("segment_size"));
    }
}
