//! A PLC that counts how often it has made each write. It shares no code with the agents, nor with the
//! simulated PLC.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fieldlock_rawsock::Namespace;
use fieldlock_testkit::wait::wait_for;
use socket2::SockRef;

use crate::SOON;

/// How often each write was made, by its number.
pub type Made = HashMap<u32, u32>;

/// Answers reads of holding registers with their addresses, and makes writes of two registers: their
/// values are the write's number.
#[derive(Debug)]
pub struct Plc {
    namespace: Arc<Namespace>,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    answers_after: Duration,
}

#[derive(Debug, Default)]
struct State {
    made: Made,
    /// Counts how often it was switched on; a connection of before makes nothing any more.
    power: u32,
    on: bool,
    connections: Vec<TcpStream>,
}

impl Plc {
    /// Switched on. Each request takes `answers_after`, the write first: there is time for things to
    /// go wrong between a write and its answer.
    pub fn start(namespace: Arc<Namespace>, address: SocketAddr, answers_after: Duration) -> Self {
        let plc = Self {
            namespace,
            address,
            state: Arc::default(),
            answers_after,
        };
        plc.switch_on();
        plc
    }

    pub fn made(&self) -> Made {
        lock(&self.state).made.clone()
    }

    pub fn switch_on(&self) {
        // The thread of before may still be about to let go of the address.
        let bind = || self.namespace.run(|| TcpListener::bind(self.address));
        let listener = wait_for("the PLC's address", SOON, || bind().unwrap().ok()).unwrap();
        let power = {
            let mut state = lock(&self.state);
            state.power += 1;
            state.on = true;
            state.power
        };
        let (state, after) = (self.state.clone(), self.answers_after);
        thread::spawn(move || accept(&listener, &state, power, after));
    }

    /// All connections end; what is said at that depends on the cable.
    pub fn switch_off(&self) {
        let mut state = lock(&self.state);
        state.on = false;
        for connection in state.connections.drain(..) {
            // Reset rather than closed, and forgotten if nobody hears it.
            let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        // Wakes the thread that accepts; refused when it is gone already.
        let _ = self.namespace.run(|| TcpStream::connect(self.address));
    }
}

impl Drop for Plc {
    fn drop(&mut self) {
        self.switch_off();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, power: u32, after: Duration) {
    for connection in listener.incoming() {
        let mut now = lock(state);
        if !now.on || now.power != power {
            return;
        }
        let Ok(connection) = connection else { continue };
        let _ = connection.set_nodelay(true);
        let Ok(other) = connection.try_clone() else {
            continue;
        };
        now.connections.push(other);
        let state = state.clone();
        thread::spawn(move || {
            let _ = serve(connection, &state, power, after);
        });
    }
}

fn serve(
    mut connection: TcpStream,
    state: &Mutex<State>,
    power: u32,
    after: Duration,
) -> std::io::Result<()> {
    loop {
        let mut header = [0; 7];
        connection.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut pdu = vec![0; length.saturating_sub(1)];
        connection.read_exact(&mut pdu)?;
        let answer = {
            let mut state = lock(state);
            if !state.on || state.power != power {
                return Ok(());
            }
            answer(&pdu, &mut state.made)
        };
        thread::sleep(after);
        let mut adu = header.to_vec();
        adu[4..6].copy_from_slice(&(answer.len() as u16 + 1).to_be_bytes());
        adu.extend(answer);
        connection.write_all(&adu)?;
    }
}

fn answer(pdu: &[u8], made: &mut Made) -> Vec<u8> {
    match *pdu {
        [3, a1, a0, 0, count @ 1..=125] => {
            let first = u16::from_be_bytes([a1, a0]);
            let values = (0..u16::from(count)).map(|it| first.wrapping_add(it));
            let values = values.flat_map(u16::to_be_bytes);
            [3, count * 2].into_iter().chain(values).collect()
        }
        [16, a1, a0, 0, 2, 4, n3, n2, n1, n0] => {
            *made
                .entry(u32::from_be_bytes([n3, n2, n1, n0]))
                .or_default() += 1;
            vec![16, a1, a0, 0, 2]
        }
        [function, ..] => vec![function | 0x80, 1],
        [] => vec![0x80, 1],
    }
}
