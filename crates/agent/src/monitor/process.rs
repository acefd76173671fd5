//! What the kernel knows of the process, by the names that Prometheus' own libraries use.

use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

use super::page::{Kind, Page};

/// What can't be read is left out.
pub(super) fn measure(page: &mut Page) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(kibibytes) = resident {
        page.single(
            Kind::Gauge,
            "process_resident_memory_bytes",
            "Resident memory.",
            kibibytes * 1024,
        );
    }
    if let Some(seconds) = processor_time() {
        page.single(
            Kind::Counter,
            "process_cpu_seconds_total",
            "Processor time, of the user and the system.",
            seconds,
        );
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.single(
            Kind::Gauge,
            "process_open_fds",
            "Open file descriptors.",
            // Without the one that looks.
            open.count().saturating_sub(1),
        );
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        page.single(
            Kind::Gauge,
            "process_max_fds",
            "How many there may be.",
            limit,
        );
    }
}

/// Fields 14 and 15 of proc_pid_stat(5), behind the name in parentheses.
fn processor_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_descriptors_and_processor_time() {
        let mut page = Page::default();
        measure(&mut page);
        let text = page.into_text();
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
        ] {
            let value = text.lines().find_map(|line| {
                let (found, value) = line.split_once(' ')?;
                (found == name).then(|| value.parse::<f64>())?.ok()
            });
            assert!(value.is_some_and(|value| value >= 0.0), "{name} {text}");
        }
    }
}
