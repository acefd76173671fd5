//! What processes use, from /proc.

use std::fs;
use std::time::Duration;

/// CPU time (user and system, all threads, ended ones too) and resident memory of some
/// processes at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    cpu: Duration,
    resident: u64,
}

/// Between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes at the end, pages shared between processes counted in each.
    pub resident: u64,
}

impl Snapshot {
    pub fn take(processes: &[u32]) -> Self {
        let mut all = Self::default();
        for process in processes {
            all.cpu += cpu(*process).unwrap_or_default();
            all.resident += resident(*process).unwrap_or_default();
        }
        all
    }

    /// Bytes, pages shared between processes counted in each.
    pub fn resident(&self) -> u64 {
        self.resident
    }

    pub fn since(&self, before: &Self) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            resident: self.resident,
        }
    }
}

/// Share of this machine's time that its host gave to others, between two calls of
/// [`stolen`] and its total.
#[derive(Debug, Clone, Copy)]
pub struct MachineTime {
    stolen: u64,
    total: u64,
}

impl MachineTime {
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let line = stat.lines().next()?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        Some(Self {
            stolen: *fields.get(7)?,
            // Guest time (fields 8 and 9) is in user time already.
            total: fields.iter().take(8).sum(),
        })
    }

    pub fn stolen_since(&self, before: &Self) -> f64 {
        let total = self.total.saturating_sub(before.total).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / total as f64
    }
}

/// utime and stime, fields 14 and 15 of /proc/PID/stat, which cover all threads.
fn cpu(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before may hold blanks and brackets.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(
        (user + system) as f64 / ticks as f64,
    ))
}

fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_and_memory_of_this_process_are_seen() {
        let own = [std::process::id()];
        let before = Snapshot::take(&own);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let usage = Snapshot::take(&own).since(&before);
        assert!(usage.cpu >= Duration::from_millis(10), "{usage:?}");
        assert!(usage.resident > 1 << 19, "{usage:?}");
    }
}
