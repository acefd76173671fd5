//! A timer with the kernel's exactness: tokio's own counts in milliseconds.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::ready::Ready;

/// One deadline at a time (timerfd_create(2)).
#[derive(Debug)]
pub struct Timer {
    ready: Ready,
    anchor: Anchor,
    deadline: Option<Instant>,
}

impl Timer {
    /// A timer without a deadline. Needs no runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            ready: Ready::new(timerfd_create(TimerfdClockId::Monotonic, flags)?),
            anchor: Anchor::take(),
            deadline: None,
        })
    }

    /// Replaces the deadline; one that has passed expires at once.
    pub fn set(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if deadline == self.deadline {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval: zero,
            it_value: deadline.map_or(zero, |deadline| self.anchor.monotonic(deadline)),
        };
        timerfd_settime(self.ready.as_fd(), TimerfdTimerFlags::ABSTIME, &setting)?;
        self.deadline = deadline;
        Ok(())
    }

    /// Waits until the deadline has passed, and takes it away; never without one.
    /// Dropping the future keeps the deadline.
    pub async fn expired(&mut self) -> io::Result<()> {
        let mut expirations = [0; 8];
        let read = self
            .ready
            .read(|fd| Ok(rustix::io::read(fd, &mut expirations)?));
        read.await?;
        self.deadline = None;
        Ok(())
    }
}

/// One moment in both of its forms: `Instant` hides the CLOCK_MONOTONIC that it holds.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    instant: Instant,
    /// Since the clock's zero; read after `instant`, so that no deadline is too early.
    monotonic: Duration,
}

/// The first reading may be interrupted; the best of several is off by tens of nanoseconds.
const READINGS: usize = 8;

impl Anchor {
    fn take() -> Self {
        let mut best = Self::read();
        for _ in 1..READINGS {
            let next = Self::read();
            if next.1 < best.1 {
                best = next;
            }
        }
        best.0
    }

    /// An anchor and how far apart its two readings may be.
    fn read() -> (Self, Duration) {
        let instant = Instant::now();
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let anchor = Self {
            instant,
            monotonic: Duration::new(
                u64::try_from(now.tv_sec).unwrap_or(0),
                u32::try_from(now.tv_nsec).unwrap_or(0),
            ),
        };
        (anchor, instant.elapsed())
    }

    fn monotonic(&self, deadline: Instant) -> Timespec {
        let since_zero = match deadline.checked_duration_since(self.instant) {
            Some(later) => self.monotonic.saturating_add(later),
            None => self
                .monotonic
                .saturating_sub(self.instant.duration_since(deadline)),
        };
        // Zero would mean: no deadline.
        let since_zero = since_zero.max(Duration::from_nanos(1));
        Timespec {
            tv_sec: i64::try_from(since_zero.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since_zero.subsec_nanos().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    #[test]
    fn a_deadline_never_expires_early() {
        let mut timer = Timer::new().unwrap();
        runtime().block_on(async {
            for micros in [1, 50, 300, 1_700, 5_000] {
                let deadline = Instant::now() + Duration::from_micros(micros);
                timer.set(Some(deadline)).unwrap();
                timer.expired().await.unwrap();
                assert!(Instant::now() >= deadline);
            }
        });
    }

    #[test]
    fn a_deadline_that_has_passed_expires_at_once() {
        let mut timer = Timer::new().unwrap();
        let passed = Instant::now();
        runtime().block_on(async {
            timer.set(Some(passed)).unwrap();
            timer.expired().await.unwrap();
        });
    }

    #[test]
    fn a_deadline_is_replaced_taken_away_and_outlives_a_dropped_wait() {
        let mut timer = Timer::new().unwrap();
        let soon = Duration::from_millis(20);
        runtime().block_on(async {
            timer.set(Some(Instant::now())).unwrap();
            // Expired by now, and still replaced.
            let later = Instant::now() + soon;
            timer.set(Some(later)).unwrap();
            let wait = tokio::time::timeout(soon / 4, timer.expired());
            assert!(wait.await.is_err());
            timer.expired().await.unwrap();
            assert!(Instant::now() >= later);

            timer.set(Some(Instant::now())).unwrap();
            timer.set(None).unwrap();
            let wait = tokio::time::timeout(soon, timer.expired());
            assert!(wait.await.is_err());
        });
    }

    #[test]
    fn an_anchor_converts_both_ways_from_its_moment() {
        let anchor = Anchor {
            instant: Instant::now(),
            monotonic: Duration::new(1_000, 500),
        };
        let later = anchor.monotonic(anchor.instant + Duration::new(2, 7));
        assert_eq!((later.tv_sec, later.tv_nsec), (1_002, 507));
        let earlier = anchor.monotonic(anchor.instant - Duration::from_nanos(600));
        assert_eq!((earlier.tv_sec, earlier.tv_nsec), (999, 999_999_900));
        let before_zero = Anchor {
            monotonic: Duration::ZERO,
            ..anchor
        };
        let clamped = before_zero.monotonic(anchor.instant - Duration::from_secs(1));
        assert_eq!((clamped.tv_sec, clamped.tv_nsec), (0, 1));
    }
}
