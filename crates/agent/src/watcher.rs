//! Who looks on at what crosses: a thread that reads what the conduit tells.
//!
//! It counts, so far.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fieldlock_conduit::observe::{Observation, Observer};
use fieldlock_status::Observations;
use rtrb::Consumer;
use tracing::{info, warn};

/// Room for what comes in while the reader is not running: a quarter of a second of the fastest traffic.
/// Up to 128 octets each.
const ROOM: usize = 16_384;
/// How long the reader rests when there is nothing to read.
const REST: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub struct Watcher {
    pub observer: Rc<Observer>,
    read: Arc<AtomicU64>,
}

impl Watcher {
    /// Begins to look on, or ends.
    pub fn turn(&self, on: bool) {
        if on == self.observer.is_on() {
            return;
        }
        if !on {
            self.observer.turn_off();
            info!("what crosses is not observed any more");
            return;
        }
        let (observations, count) = (self.observer.turn_on(ROOM), self.read.clone());
        let reader = thread::Builder::new().name("observer".into());
        match reader.spawn(move || read(observations, &count)) {
            Ok(_) => info!("what crosses is observed"),
            Err(error) => {
                self.observer.turn_off();
                warn!("what crosses is not observed: {error}");
            }
        }
    }

    /// What was observed, where anybody looks on.
    pub fn status(&self) -> Option<Observations> {
        self.observer.is_on().then(|| Observations {
            taken: self.observer.taken(),
            lost: self.observer.lost(),
            read: self.read.load(Ordering::Relaxed),
        })
    }
}

/// Reads until nobody writes any more.
fn read(mut observations: Consumer<Observation>, count: &AtomicU64) {
    loop {
        // In this order: what was written before the end is read.
        let is_over = observations.is_abandoned();
        let ready = observations.slots();
        if ready == 0 {
            if is_over {
                return;
            }
            thread::sleep(REST);
        } else if let Ok(chunk) = observations.read_chunk(ready) {
            chunk.commit_all();
            count.fetch_add(ready as u64, Ordering::Relaxed);
        }
    }
}
