//! Impairments as they are written on the command line.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fieldlock_testkit::link::{Burst, Cuts, Impairment, Jitter, Rate, Reorder};
use thiserror::Error;

/// What the wire does, to both directions alike.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Share of packets that are lost, each by itself: 5% or 0.05.
    #[arg(long, value_parser = share, default_value = "0", value_name = "SHARE")]
    loss: f64,
    /// Losses in bursts: ENTER,LEAVE[,LOSS[,STEP]]. In each step a good channel turns bad with
    /// the chance ENTER, and a bad one good with LEAVE; while bad it loses LOSS of all (100%).
    /// A step is a packet, or as long as STEP says.
    #[arg(long, value_parser = burst, value_name = "BURST")]
    burst: Option<Burst>,
    /// Delay of every packet: 20ms, 1.5s, 250us.
    #[arg(long, value_parser = span, default_value = "0s", value_name = "TIME")]
    delay: Duration,
    /// Added to the delay: up to TIME, evenly spread; or pareto:SCALE,ALPHA,CAP with a heavy tail.
    #[arg(long, value_parser = jitter, default_value = "0s", value_name = "JITTER")]
    jitter: Jitter,
    /// Packets that others overtake: SHARE,TIME that they are held back.
    #[arg(long, value_parser = reorder, value_name = "SHARE,TIME")]
    reorder: Option<Reorder>,
    /// Share of packets that arrive twice.
    #[arg(long, value_parser = share, default_value = "0", value_name = "SHARE")]
    duplicate: f64,
    /// Share of packets in which one octet is changed.
    #[arg(long, value_parser = share, default_value = "0", value_name = "SHARE")]
    corrupt: f64,
    /// Bits per second: 500kbit, 10mbit.
    #[arg(long, value_parser = rate, value_name = "RATE")]
    rate: Option<u64>,
    /// Octets that may wait where --rate holds them up.
    #[arg(
        long,
        default_value_t = 65_536,
        requires = "rate",
        value_name = "OCTETS"
    )]
    queue: usize,
    /// Carry nothing from FROM to TO after the start: 10s-12s. May be given again.
    #[arg(long, value_parser = cut, value_name = "FROM-TO", conflicts_with = "cut_every")]
    cut: Vec<Range<Duration>>,
    /// Carry nothing again and again: PERIOD,LENGTH. The first cut comes after one period.
    #[arg(long, value_parser = cut_every, value_name = "PERIOD,LENGTH")]
    cut_every: Option<(Duration, Duration)>,
    /// The same seed decides the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write a line per packet to this file.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) log: Option<PathBuf>,
    /// End after this time.
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
}

impl Options {
    pub(crate) fn impairment(&self) -> Impairment {
        Impairment {
            loss: self.loss,
            burst: self.burst,
            delay: self.delay,
            jitter: self.jitter,
            reorder: self.reorder,
            duplicate: self.duplicate,
            corrupt: self.corrupt,
            rate: self.rate.map(|bits_per_second| Rate {
                bits_per_second,
                queue: self.queue,
            }),
            cuts: match self.cut_every {
                Some((period, length)) => Cuts::Every {
                    first: period,
                    period,
                    length,
                },
                None if self.cut.is_empty() => Cuts::Never,
                None => Cuts::At(self.cut.clone()),
            },
        }
    }
}

/// Why a value is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ValueError {
    #[error("a share is 0% to 100%, or 0 to 1")]
    Share,
    #[error("a time is a number with us, ms, s, m or h, at most an hour")]
    Span,
    #[error("a rate is a number above 0 with bit, kbit, mbit or gbit")]
    Rate,
    #[error("expected ENTER,LEAVE[,LOSS[,STEP]], as in 1%,20%,100%,10ms")]
    Burst,
    #[error("expected SHARE,TIME, as in 1%,5ms")]
    Reorder,
    #[error("expected TIME or pareto:SCALE,ALPHA,CAP, as in pareto:2ms,1.5,200ms")]
    Jitter,
    #[error("expected FROM-TO with FROM before TO, as in 10s-12s")]
    Cut,
    #[error("expected PERIOD,LENGTH with LENGTH below PERIOD, as in 60s,2s")]
    CutEvery,
}

fn share(text: &str) -> Result<f64, ValueError> {
    let (digits, unit) = match text.strip_suffix('%') {
        Some(digits) => (digits, 0.01),
        None => (text, 1.0),
    };
    let share = number(digits).ok_or(ValueError::Share)? * unit;
    Some(share)
        .filter(|share| *share <= 1.0)
        .ok_or(ValueError::Share)
}

fn span(text: &str) -> Result<Duration, ValueError> {
    const UNITS: [(&str, f64); 5] = [
        // Before `s` and `m`, in which they end.
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    with_unit(text, &UNITS)
        .filter(|seconds| *seconds <= 3600.0)
        .map(Duration::from_secs_f64)
        .ok_or(ValueError::Span)
}

fn rate(text: &str) -> Result<u64, ValueError> {
    const UNITS: [(&str, f64); 4] = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("bit", 1.0)];
    with_unit(text, &UNITS)
        .filter(|bits| (1.0..=1e12).contains(bits))
        .map(|bits| bits as u64)
        .ok_or(ValueError::Rate)
}

fn burst(text: &str) -> Result<Burst, ValueError> {
    let parts: Vec<&str> = text.split(',').collect();
    let (enter, leave, loss, step) = match parts[..] {
        [enter, leave] => (enter, leave, "100%", None),
        [enter, leave, loss] => (enter, leave, loss, None),
        [enter, leave, loss, step] => (enter, leave, loss, Some(step)),
        _ => return Err(ValueError::Burst),
    };
    Ok(Burst {
        enter: share(enter)?,
        leave: share(leave)?,
        loss: share(loss)?,
        step: step.map(span).transpose()?,
    })
}

fn jitter(text: &str) -> Result<Jitter, ValueError> {
    let Some(tail) = text.strip_prefix("pareto:") else {
        let most = span(text)?;
        return Ok(match most.is_zero() {
            true => Jitter::None,
            false => Jitter::Uniform(most),
        });
    };
    let parts: Vec<&str> = tail.split(',').collect();
    let [scale, alpha, cap] = parts[..] else {
        return Err(ValueError::Jitter);
    };
    Ok(Jitter::Pareto {
        scale: span(scale)?,
        alpha: number(alpha)
            .filter(|alpha| *alpha > 0.0)
            .ok_or(ValueError::Jitter)?,
        cap: span(cap)?,
    })
}

fn reorder(text: &str) -> Result<Reorder, ValueError> {
    let (of, by) = text.split_once(',').ok_or(ValueError::Reorder)?;
    Ok(Reorder {
        share: share(of)?,
        by: span(by)?,
    })
}

fn cut(text: &str) -> Result<Range<Duration>, ValueError> {
    let (from, to) = text.split_once('-').ok_or(ValueError::Cut)?;
    let cut = span(from)?..span(to)?;
    match cut.is_empty() {
        true => Err(ValueError::Cut),
        false => Ok(cut),
    }
}

fn cut_every(text: &str) -> Result<(Duration, Duration), ValueError> {
    let (period, length) = text.split_once(',').ok_or(ValueError::CutEvery)?;
    let (period, length) = (span(period)?, span(length)?);
    match length < period {
        true => Ok((period, length)),
        false => Err(ValueError::CutEvery),
    }
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, worth)| {
        let digits = text.strip_suffix(unit)?;
        Some(number(digits)? * worth)
    })
}

/// Digits with a point, and nothing that `f64` would read beside them.
fn number(digits: &str) -> Option<f64> {
    let plain = digits.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(span("1.5s"), Ok(1_500 * MS));
        assert_eq!(span("250us"), Ok(MS / 4));
        assert_eq!(span("2m"), Ok(120_000 * MS));
        assert_eq!(rate("1.5mbit"), Ok(1_500_000));
        assert_eq!(rate("800bit"), Ok(800));
        assert_eq!(jitter("0s"), Ok(Jitter::None));
        assert_eq!(jitter("10ms"), Ok(Jitter::Uniform(10 * MS)));
        assert_eq!(cut("10s-12s"), Ok(10_000 * MS..12_000 * MS));
        assert_eq!(cut_every("60s,2s"), Ok((60_000 * MS, 2_000 * MS)));
        let expected = Burst {
            enter: 0.01,
            leave: 0.2,
            loss: 1.0,
            step: None,
        };
        assert_eq!(burst("1%,20%"), Ok(expected));
        let stepped = Burst {
            loss: 0.5,
            step: Some(10 * MS),
            ..expected
        };
        assert_eq!(burst("1%,20%,50%,10ms"), Ok(stepped));
        let expected = Jitter::Pareto {
            scale: 2 * MS,
            alpha: 1.5,
            cap: 200 * MS,
        };
        assert_eq!(jitter("pareto:2ms,1.5,200ms"), Ok(expected));
        let expected = Reorder {
            share: 0.01,
            by: 5 * MS,
        };
        assert_eq!(reorder("1%,5ms"), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["101%", "1.1", "-1%", "", "%", "nan", "inf", "1e1"] {
            assert_eq!(share(text), Err(ValueError::Share), "{text}");
        }
        for text in ["10", "ms", "-1s", "2h", "1 s", "1ns"] {
            assert_eq!(span(text), Err(ValueError::Span), "{text}");
        }
        for text in ["0bit", "10", "10mb"] {
            assert_eq!(rate(text), Err(ValueError::Rate), "{text}");
        }
        assert_eq!(burst("1%"), Err(ValueError::Burst));
        assert_eq!(jitter("pareto:2ms,0,1s"), Err(ValueError::Jitter));
        assert_eq!(cut("12s-10s"), Err(ValueError::Cut));
        assert_eq!(cut_every("2s,2s"), Err(ValueError::CutEvery));
    }
}
