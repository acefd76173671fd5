//! A device whose state changes when it says, on threads of its own: each connection is served one request
//! after the other, as controllers do, and what a test wants to know is the order in which
//! requests were carried out.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// What happens with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Carried out after so long, and answered.
    After(Duration),
    /// Neither carried out nor answered; the next is served at once.
    Nothing,
    /// Not carried out; the connection is reset.
    Reset,
}

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Counted from 0 in the order of acceptance.
    pub connection: usize,
    pub unit: u8,
    pub pdu: Vec<u8>,
}

type Script = dyn Fn(usize, u8, &[u8]) -> Deed + Send + Sync;

/// Functions 3, 5, 6 with registers and coils. It runs until the process of the test ends.
#[derive(Debug, Clone)]
pub struct Machine {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: usize,
    registers: HashMap<(u8, u16), u16>,
    coils: HashMap<(u8, u16), bool>,
    done: Vec<Done>,
}

impl Machine {
    /// `script` is asked for each request: its number from 0, its unit, its PDU.
    pub fn start(script: impl Fn(usize, u8, &[u8]) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        let (shared, script) = (machine.state.clone(), Arc::new(script));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (state, script) = (shared.clone(), script.clone());
                let stream = stream.unwrap();
                // The edge closes, or the script: either way the connection is over.
                thread::spawn(move || drop(serve(stream, connection, &state, &*script)));
            }
        });
        machine
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was carried out, in that order.
    pub fn done(&self) -> Vec<Done> {
        self.with(|state| state.done.clone())
    }

    pub fn register(&self, unit: u8, address: u16) -> u16 {
        self.with(|state| *state.registers.entry((unit, address)).or_default())
    }

    pub fn coil(&self, unit: u8, address: u16) -> bool {
        self.with(|state| *state.coils.entry((unit, address)).or_default())
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    state: &Mutex<State>,
    script: &Script,
) -> io::Result<()> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    stream.set_nodelay(true)?;
    loop {
        let mut header = [0; 7];
        stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut pdu = vec![0; length - 1];
        stream.read_exact(&mut pdu)?;
        let unit = header[6];
        let number = {
            let mut state = lock();
            state.requests += 1;
            state.requests - 1
        };
        match script(number, unit, &pdu) {
            Deed::Nothing => continue,
            Deed::Reset => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
            Deed::After(delay) => thread::sleep(delay),
        }
        let answer = lock().carry_out(connection, unit, &pdu);
        let [high, low] = (answer.len() as u16 + 1).to_be_bytes();
        let mut adu = vec![header[0], header[1], 0, 0, high, low, unit];
        adu.extend(answer);
        stream.write_all(&adu)?;
    }
}

impl State {
    fn carry_out(&mut self, connection: usize, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let answer = match *pdu {
            [3, a, b, 0, count] => {
                let first = u16::from_be_bytes([a, b]);
                let values = (first..first + u16::from(count)).flat_map(|address| {
                    let value = self.registers.get(&(unit, address));
                    value.copied().unwrap_or_default().to_be_bytes()
                });
                [3, 2 * count].into_iter().chain(values).collect()
            }
            [5, a, b, on, 0] => {
                let address = u16::from_be_bytes([a, b]);
                self.coils.insert((unit, address), on == 0xff);
                pdu.to_vec()
            }
            [6, a, b, c, d] => {
                let address = u16::from_be_bytes([a, b]);
                let value = u16::from_be_bytes([c, d]);
                self.registers.insert((unit, address), value);
                pdu.to_vec()
            }
            [function, ..] => vec![function | 0x80, 1],
            [] => vec![0x80, 1],
        };
        self.done.push(Done {
            connection,
            unit,
            pdu: pdu.to_vec(),
        });
        answer
    }
}
