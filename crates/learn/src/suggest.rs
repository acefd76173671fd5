//! An allow-list of what a capture or an audit log holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use fieldlock_audit::{Address, Decision, Kind, Party, Record, Table, Values, log_files};
use fieldlock_capture::CaptureError;
use fieldlock_policy::{Asker, Observation, Span, SuggestError, Traffic};
use serde::Serialize;

use crate::traffic::{self, Scope, Tally};

/// No record of an audit log is nearly as long.
const MAX_LINE: u64 = 64 * 1024;

/// What went into a suggestion.
#[derive(Debug, Default, Serialize)]
pub struct Taken {
    pub requests: u64,
    pub left_out: u64,
    /// Records of PROFINET, of which nothing is suggested.
    pub of_stations: u64,
    /// Why the first that was left out was.
    #[serde(skip)]
    pub why: Option<String>,
}

/// Why there is nothing to suggest from.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("{path}: {source}", path = .path.display())]
    Log { path: PathBuf, source: io::Error },
    /// More than one suggestion can hold.
    #[error(transparent)]
    TooMuch(#[from] SuggestError),
}

impl Taken {
    fn count(&mut self, added: Result<(), SuggestError>, place: &str) -> Result<(), SuggestError> {
        match added {
            Ok(()) => self.requests += 1,
            Err(SuggestError::TooMany) => return Err(SuggestError::TooMany),
            Err(error) => {
                self.left_out += 1;
                self.why.get_or_insert_with(|| format!("{place}: {error}"));
            }
        }
        Ok(())
    }
}

/// Adds the requests of a capture to `traffic`.
///
/// # Errors
/// The file can't be read or is no capture, or holds too many different requests.
pub fn from_capture(
    file: &Path,
    scope: &Scope,
    traffic: &mut Traffic,
) -> Result<(Taken, Tally), SourceError> {
    let mut taken = Taken::default();
    let mut result = Ok(());
    let tally = traffic::read(file, scope, |seen| {
        let asker = Asker {
            address: Some(seen.client),
            ..Asker::default()
        };
        let what = Observation::of(&seen.request);
        if result.is_ok() {
            let added = traffic.add(&asker, &seen.device, seen.unit, what, seen.time, 1);
            result = taken.count(added, &format!("frame {}", seen.frame));
        }
    })?;
    result?;
    Ok((taken, tally))
}

/// Adds the requests of an audit log to `traffic`: every write that was allowed, and every read that
/// was answered.
///
/// # Errors
/// A file of the log can't be read, or it holds too many different requests.
pub fn from_log(log: &Path, traffic: &mut Traffic) -> Result<Taken, SourceError> {
    let mut taken = Taken::default();
    let files = log_files(log).map_err(|source| unreadable(log, source))?;
    for file in files {
        from_log_file(&file, traffic, &mut taken)?;
    }
    Ok(taken)
}

fn unreadable(file: &Path, source: io::Error) -> SourceError {
    let path = file.to_owned();
    SourceError::Log { path, source }
}

fn from_log_file(file: &Path, traffic: &mut Traffic, taken: &mut Taken) -> Result<(), SourceError> {
    let mut log = BufReader::new(File::open(file).map_err(|source| unreadable(file, source))?);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let length = (&mut log).take(MAX_LINE).read_until(b'\n', &mut line);
        let length = length.map_err(|source| unreadable(file, source))? as u64;
        // A record that is being written has no end yet.
        if length == 0 || length < MAX_LINE && !line.ends_with(b"\n") {
            break;
        }
        let place = || format!("{}:{number}", file.display());
        let Ok(record) = serde_json::from_slice::<Record>(&line) else {
            taken.left_out += 1;
            let why = || format!("{}: not an audit record", place());
            taken.why.get_or_insert_with(why);
            continue;
        };
        taken.of_stations += u64::from(record.station.is_some());
        if let Some(added) = add(&record, traffic) {
            taken.count(added, &place())?;
        }
    }
    Ok(())
}

/// `None`: the record is not of a request that was allowed.
fn add(record: &Record, traffic: &mut Traffic) -> Option<Result<(), SuggestError>> {
    let (Some(device), Some(unit), Some(function)) = (&record.device, record.unit, record.function)
    else {
        return None;
    };
    // A read that was answered had been allowed.
    if record.kind != Kind::Read && record.decision != Some(Decision::Allow) {
        return None;
    }
    let address = record.address.map(span);
    let (read, write) = match function {
        1..=4 => (address, None),
        5 | 6 | 15 | 16 | 22 => (None, address),
        23 => (record.read_address.map(span), address),
        _ => (None, None),
    };
    let what = Observation {
        function,
        read,
        write,
        values: record.values.as_ref().and_then(extremes),
        part: part(function, record),
    };
    let asker = record.client.as_deref().map(asker).unwrap_or_default();
    let count = record.count.unwrap_or(1);
    Some(traffic.add(&asker, device, unit, what, record.time, count))
}

/// Of functions 8 and 43 the part that was asked: the first octets of the request, and of the answer
/// too.
fn part(function: u8, record: &Record) -> Option<u16> {
    let Some(Values::Opaque(body)) = record.values.as_ref().or(record.answer.as_ref()) else {
        return None;
    };
    match (function, &body[..]) {
        (8, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
        (43, [mei, ..]) => Some(u16::from(*mei)),
        _ => None,
    }
}

fn asker(party: &Party) -> Asker {
    Asker {
        name: party.name.as_deref().map(str::to_owned),
        address: party.address,
        identity: party.identity.as_deref().map(str::to_owned),
        role: party.role.as_deref().map(str::to_owned),
    }
}

fn span(address: Address) -> Span {
    use fieldlock_modbus::Table as Modbus;
    Span {
        table: match address.table {
            Table::Coil => Modbus::Coil,
            Table::Discrete => Modbus::DiscreteInput,
            Table::Input => Modbus::InputRegister,
            Table::Holding => Modbus::HoldingRegister,
        },
        first: address.first,
        last: address.last,
    }
}

/// The smallest and the largest value, as far as they are told.
fn extremes(values: &Values) -> Option<(u16, u16)> {
    let values: Vec<u16> = match values {
        Values::Register(value) => vec![*value],
        Values::Coil(on) => vec![u16::from(*on)],
        Values::Registers(bytes) => bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect(),
        Values::Coils { bits, count } => (0..usize::from(*count))
            .map(|at| u16::from(bits.get(at / 8).copied().unwrap_or(0) >> (at % 8) & 1))
            .collect(),
        Values::Mask { .. } | Values::Opaque(_) => return None,
    };
    Some((*values.iter().min()?, *values.iter().max()?))
}

#[cfg(test)]
mod tests {
    use fieldlock_policy::{Policy, SuggestOptions};

    use super::*;
    use crate::recording::{HMI, PRESS, Recording};

    const EXACT: SuggestOptions = SuggestOptions {
        gap: 0,
        bound_values: true,
        joined_halves: false,
    };

    fn of_log(lines: &[&str]) -> (Taken, Traffic) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.jsonl");
        std::fs::write(&log, lines.concat()).unwrap();
        let mut traffic = Traffic::default();
        let taken = from_log(&log, &mut traffic).unwrap();
        (taken, traffic)
    }

    const WRITE: &str = concat!(
        r#"{"v":1,"seq":1,"time":"2026-09-21T14:13:20Z","kind":"write-intent","#,
        r#""client":{"name":"hmi-1","address":"10.1.1.20"},"device":"press-07","unit":1,"#,
        r#""function":6,"address":"holding 40","values":[1100],"decision":"allow"}"#,
        "\n"
    );
    const READ: &str = concat!(
        r#"{"v":1,"seq":2,"time":"2026-09-21T14:13:21Z","kind":"read","#,
        r#""client":{"name":"hmi-1","address":"10.1.1.20"},"device":"press-07","unit":1,"#,
        r#""function":3,"address":"holding 0-9","count":60}"#,
        "\n"
    );

    #[test]
    fn writes_that_were_allowed_and_reads_that_were_answered_count() {
        let denied = WRITE.replace("\"allow\"", "\"deny\"");
        let (taken, traffic) = of_log(&[WRITE, READ, &denied]);
        assert_eq!((taken.requests, taken.left_out), (2, 0));
        let text = traffic.suggest(&EXACT);
        Policy::parse(&text, "the suggestion").unwrap();
        assert!(
            text.contains("holding 40") && text.contains("1100"),
            "{text}"
        );
        assert!(text.contains("holding 0-9"), "{text}");
    }

    #[test]
    fn what_cannot_be_taken_is_counted_and_the_first_is_named() {
        let station =
            r#"{"v":1,"seq":3,"kind":"station-set","station":"drive-1","decision":"allow"}"#;
        let without_values = WRITE.replace(r#""values":[1100],"#, "");
        let (taken, traffic) = of_log(&["nonsense\n", &without_values, station, "\n"]);
        assert_eq!(
            (taken.requests, taken.left_out, taken.of_stations),
            (0, 2, 1)
        );
        let why = taken.why.unwrap();
        assert!(why.ends_with("audit.jsonl:1: not an audit record"), "{why}");
        assert!(traffic.is_empty());
    }

    #[test]
    fn a_record_that_is_being_written_waits() {
        let (taken, _) = of_log(&[WRITE, READ.trim_end()]);
        assert_eq!((taken.requests, taken.left_out), (1, 0));
    }

    #[test]
    fn a_capture_says_the_same_as_a_log() {
        let recording = Recording::new()
            .request(HMI, PRESS, 1, &[6, 0, 40, 4, 0x4c])
            .request(HMI, PRESS, 2, &[3, 0, 0, 0, 10]);
        let (_folder, path) = recording.stored();
        let scope = Scope {
            port: 502,
            devices: vec!["press-07=10.1.1.50".parse().unwrap()],
            frames: None,
        };
        let mut traffic = Traffic::default();
        let (taken, tally) = from_capture(&path, &scope, &mut traffic).unwrap();
        assert_eq!((taken.requests, tally.requests), (2, 2));
        let text = traffic.suggest(&EXACT);
        assert!(
            text.contains("holding 40") && text.contains("1100"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let missing = Path::new("/nonexistent/audit");
        let mut traffic = Traffic::default();
        let error = from_log(missing, &mut traffic).unwrap_err();
        assert!(matches!(error, SourceError::Log { .. }), "{error}");
        assert!(
            error.to_string().starts_with("/nonexistent/audit"),
            "{error}"
        );
    }

    #[test]
    fn the_part_of_a_diagnostic_is_in_its_first_octets() {
        let record = |function: u8, octets: &[u8]| Record {
            values: Some(Values::Opaque(octets.into())),
            ..serde_json::from_str(
                &READ.replace("\"function\":3", &format!("\"function\":{function}")),
            )
            .unwrap()
        };
        assert_eq!(part(8, &record(8, &[0, 11, 0, 0])), Some(11));
        assert_eq!(part(43, &record(43, &[14, 1])), Some(14));
        assert_eq!(part(8, &record(8, &[0])), None);
        assert_eq!(part(3, &record(3, &[0, 11])), None);
    }

    #[test]
    fn bounds_are_the_smallest_and_the_largest_value() {
        let coils = |bits: &[u8], count| Values::Coils {
            bits: bits.into(),
            count,
        };
        for (values, expected) in [
            (Values::Register(7), Some((7, 7))),
            (Values::Coil(true), Some((1, 1))),
            (
                Values::Registers([0, 9, 0, 3].as_slice().into()),
                Some((3, 9)),
            ),
            (coils(&[0b0000_0110], 3), Some((0, 1))),
            (coils(&[0b0000_0110], 0), None),
            (Values::Opaque([1].as_slice().into()), None),
        ] {
            assert_eq!(extremes(&values), expected, "{values:?}");
        }
    }
}
