//! Clients that read and write in turns, and note what each request came to.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fieldlock_rawsock::Namespace;
use fieldlock_testkit::modbus::{Client, read, registers, write_registers};

/// More than an agent takes to say that there is no answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Before a client dials again.
const DIAL_REST: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// What was asked for.
    Good,
    Exception(u8),
    /// The connection ended, or nothing came.
    Nothing,
    /// An answer to something else.
    Wrong,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Note {
    pub asked: Instant,
    pub took: Duration,
    /// The number of a write; no two are alike.
    pub write: Option<u32>,
    pub said: Said,
}

/// How clients behave.
#[derive(Debug, Clone)]
pub struct Plan {
    pub clients: u8,
    pub pause: Duration,
    /// Each client goes to the next of these when a connection ends.
    pub headends: Vec<SocketAddr>,
    /// A client comes anew after this many requests.
    pub requests_each: u32,
}

/// When the last good answer came, of any client.
type LastGood = Arc<Mutex<Option<Instant>>>;

impl Plan {
    pub fn new(headends: &[SocketAddr]) -> Self {
        Self {
            clients: 4,
            pause: Duration::from_millis(20),
            headends: headends.to_vec(),
            requests_each: u32::MAX,
        }
    }
}

#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    last_good: LastGood,
    threads: Vec<JoinHandle<Vec<Note>>>,
}

impl Load {
    pub fn start(namespace: &Namespace, plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let last_good = LastGood::default();
        let client = |number: u8| {
            let (plan, stop, last_good) = (plan.clone(), stop.clone(), last_good.clone());
            // A thread is in the namespace of the one that starts it.
            let start = || thread::spawn(move || converse(number, &plan, &stop, &last_good));
            namespace.run(start).unwrap()
        };
        Self {
            threads: (0..plan.clients).map(client).collect(),
            stop,
            last_good,
        }
    }

    /// Whether a good answer has come since.
    pub fn is_served_since(&self, moment: Instant) -> bool {
        lock(&self.last_good).is_some_and(|last| last > moment)
    }

    /// Waits for what is under way; all that was noted, by time.
    pub fn stop(self) -> Vec<Note> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.threads.into_iter().flat_map(|it| it.join().unwrap());
        let mut notes: Vec<Note> = joined.collect();
        notes.sort_by_key(|note| note.asked);
        notes
    }
}

fn lock(last: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(number: u8, plan: &Plan, stop: &AtomicBool, last_good: &LastGood) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut connection: Option<Client> = None;
    let mut headend = usize::from(number);
    let mut asked: u32 = 0;
    let mut left = plan.requests_each;
    while !stop.load(Ordering::Relaxed) {
        let client = match &mut connection {
            Some(client) => client,
            None => {
                let address = plan.headends[headend % plan.headends.len()];
                // One after the other of 127.0.0.0/8, so that agents can tell them apart.
                let local = IpAddr::from([127, 0, 0, 10 + number]);
                match Client::connect_from(local, address) {
                    Ok(client) => connection.insert(client),
                    Err(_) => {
                        headend += 1;
                        thread::sleep(DIAL_REST);
                        continue;
                    }
                }
            }
        };
        asked += 1;
        let write = asked
            .is_multiple_of(2)
            .then_some(u32::from(number) << 24 | asked);
        let note = ask(client, number, asked, write);
        notes.push(note);
        if note.said == Said::Good {
            *lock(last_good) = Some(Instant::now());
        }
        left -= 1;
        if matches!(note.said, Said::Nothing | Said::Wrong) {
            connection = None;
            headend += 1;
        } else if left == 0 {
            connection = None;
            left = plan.requests_each;
        }
        thread::sleep(plan.pause);
    }
    notes
}

fn ask(client: &mut Client, number: u8, count: u32, write: Option<u32>) -> Note {
    let address = 1000 + u16::from(number) * 2;
    let first = (count % 500) as u16;
    let pdu = match write {
        Some(write) => write_registers(address, &[(write >> 16) as u16, write as u16]),
        None => read(3, first, 3).to_vec(),
    };
    let asked = Instant::now();
    let answer = client
        .send_request(1, &pdu)
        .and_then(|_| client.read_adu(PATIENCE));
    let said = match answer.as_deref() {
        Err(_) => Said::Nothing,
        Ok([_, _, _, _, _, _, 1, function, code]) if *function == pdu[0] | 0x80 => {
            Said::Exception(*code)
        }
        Ok(adu) => {
            let right = match write {
                Some(_) => adu[7..] == pdu[..5],
                None => registers(&adu[7..]) == Some(vec![first, first + 1, first + 2]),
            };
            if right { Said::Good } else { Said::Wrong }
        }
    };
    Note {
        asked,
        took: asked.elapsed(),
        write,
        said,
    }
}
