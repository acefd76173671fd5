//! Simulated stations within a test's own process, for tests that look at them while they run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fieldlock_rawsock::PacketSocket;
use fieldlock_sim::profinet::{Controller, Device};

/// How often the wire is looked at: far below any cycle of the tests.
const LOOK: Duration = Duration::from_micros(500);

/// What a station does with frames and time.
pub trait Simulated: Send + 'static {
    fn handle_frame(&mut self, now: Instant, frame: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_transmit(&mut self) -> Option<&[u8]>;
}

impl Simulated for Device {
    fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        self.handle_frame(now, frame);
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.poll_transmit()
    }
}

impl Simulated for Controller {
    fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        self.handle_frame(now, frame);
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.poll_transmit()
    }
}

/// A station on a wire until it is dropped; then it is gone without a word.
#[derive(Debug)]
pub struct Live<S> {
    station: Arc<Mutex<S>>,
    /// Milliseconds.
    late: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Simulated> Live<S> {
    /// `hear` sees each frame before the station does.
    pub fn start(
        socket: PacketSocket,
        station: S,
        hear: impl FnMut(&[u8]) + Send + 'static,
    ) -> Self {
        let station = Arc::new(Mutex::new(station));
        let late = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (station, late, stop) = (station.clone(), late.clone(), stop.clone());
            thread::spawn(move || run(socket, &station, hear, &late, &stop))
        };
        Self {
            station,
            late,
            stop,
            thread: Some(thread),
        }
    }

    /// Looks at the station, or does what its operator would.
    pub fn with<R>(&self, act: impl FnOnce(&mut S, Instant) -> R) -> R {
        // A test that failed while it looked has failed already.
        let mut station = self.station.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut station, Instant::now())
    }

    /// All that it says leaves this much later, from now on.
    pub fn be_late(&self, late: Duration) {
        let millis = late.as_millis() as u64;
        self.late.store(millis, Ordering::Relaxed);
    }
}

impl<S> Drop for Live<S> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics when its test does, which says so itself.
            let _ = thread.join();
        }
    }
}

fn run<S: Simulated>(
    mut socket: PacketSocket,
    station: &Mutex<S>,
    mut hear: impl FnMut(&[u8]),
    late: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut leaving: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        {
            let mut station = station.lock().unwrap_or_else(PoisonError::into_inner);
            // A wire that is pulled is what some tests are about.
            let _ = socket.try_recv(|frame| {
                hear(frame);
                station.handle_frame(Instant::now(), frame);
            });
            let now = Instant::now();
            station.handle_timeout(now);
            let late = Duration::from_millis(late.load(Ordering::Relaxed));
            while let Some(frame) = station.poll_transmit() {
                leaving.push_back((now + late, frame.to_vec()));
            }
        }
        let now = Instant::now();
        while leaving.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, frame)) = leaving.pop_front() {
                let _ = socket.try_send(&[&frame]);
            }
        }
        thread::sleep(LOOK);
    }
}
