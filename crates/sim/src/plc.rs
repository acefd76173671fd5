//! A Modbus/TCP server on tokio-modbus in front of the station.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_modbus::bytes::Bytes;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::Server;
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};

use crate::station::{Refusal, Station};

const TICK: Duration = Duration::from_millis(100);

/// Writes remembered. Beyond it only their number grows.
const MAX_WRITES: usize = 100_000;

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long each answer takes; zero by default.
    pub answer_delay: Duration,
    /// Accept connections and requests, carry writes out, and answer nothing.
    pub silent: bool,
}

/// A running PLC; it stops when this is dropped.
#[derive(Debug)]
pub struct Plc {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// A write that the PLC carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub unit: u8,
    pub function: u8,
    pub first: u16,
    /// Registers as written; coils as 0 and 1. For a mask write the result.
    pub values: Vec<u16>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    silent: AtomicBool,
    answer_delay_ns: AtomicU64,
    connections: AtomicU64,
    requests: AtomicU64,
}

#[derive(Debug)]
struct State {
    station: Station,
    writes: Vec<Write>,
    write_count: u64,
}

impl Plc {
    /// Listens on `address` (port 0 takes a free one). Needs a Tokio runtime.
    pub async fn start(address: SocketAddr, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(&options));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&shared)));
        tasks.spawn(run_process(Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _tasks: tasks,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A holding register as it is.
    pub fn register(&self, address: u16) -> Option<u16> {
        let state = self.shared.state();
        state.station.holding(address, 1).ok().map(|one| one[0])
    }

    pub fn coil(&self, address: u16) -> Option<bool> {
        let state = self.shared.state();
        state.station.coils(address, 1).ok().map(|one| one[0])
    }

    /// The writes carried out, in order; the first 100,000 of them.
    pub fn writes(&self) -> Vec<Write> {
        self.shared.state().writes.clone()
    }

    pub fn write_count(&self) -> u64 {
        self.shared.state().write_count
    }

    /// Requests received, answered or not.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// From the next request on.
    pub fn set_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::Relaxed);
    }

    /// From the next request on.
    pub fn set_answer_delay(&self, delay: Duration) {
        let delay = nanoseconds(delay);
        self.shared.answer_delay_ns.store(delay, Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let on_connected = |stream: TcpStream, _peer: SocketAddr| {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let service = PlcService(Arc::clone(&shared));
        // A socket that is gone already fails at its first read.
        let _ = stream.set_nodelay(true);
        std::future::ready(Ok(Some((service, stream))))
    };
    let on_error = |error| tracing::debug!(%error, "simulated PLC closes a connection");
    if let Err(error) = Server::new(listener).serve(&on_connected, on_error).await {
        tracing::warn!(%error, "simulated PLC can't accept");
    }
}

async fn run_process(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        shared.state().station.step(TICK);
    }
}

impl Shared {
    fn new(options: &Options) -> Self {
        let state = State {
            station: Station::new(),
            writes: Vec::new(),
            write_count: 0,
        };
        Self {
            state: Mutex::new(state),
            silent: AtomicBool::new(options.silent),
            answer_delay_ns: AtomicU64::new(nanoseconds(options.answer_delay)),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct PlcService(Arc<Shared>);

impl Service for PlcService {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Pin<Box<dyn Future<Output = Result<Option<Response>, ExceptionCode>> + Send>>;

    fn call(&self, SlaveRequest { slave, request }: Self::Request) -> Self::Future {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.0.state().answer(slave, &request);
        let silent = self.0.silent.load(Ordering::Relaxed);
        let delay = Duration::from_nanos(self.0.answer_delay_ns.load(Ordering::Relaxed));
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if silent { Ok(None) } else { answer.map(Some) }
        })
    }
}

impl State {
    fn answer(&mut self, unit: u8, request: &Request<'_>) -> Result<Response, ExceptionCode> {
        let station = &mut self.station;
        match request {
            Request::ReadCoils(first, count) => {
                let coils = station.coils(*first, at_most(*count, 2000)?)?;
                Ok(Response::ReadCoils(coils.to_vec()))
            }
            Request::ReadDiscreteInputs(first, count) => {
                let coils = station.coils(*first, at_most(*count, 2000)?)?;
                Ok(Response::ReadDiscreteInputs(coils.to_vec()))
            }
            Request::ReadHoldingRegisters(first, count) => {
                let registers = station.holding(*first, at_most(*count, 125)?)?;
                Ok(Response::ReadHoldingRegisters(registers.to_vec()))
            }
            Request::ReadInputRegisters(first, count) => {
                let registers = station.input(*first, at_most(*count, 125)?)?;
                Ok(Response::ReadInputRegisters(registers.to_vec()))
            }
            Request::WriteSingleCoil(first, on) => {
                self.write_coils(unit, 5, *first, &[*on])?;
                Ok(Response::WriteSingleCoil(*first, *on))
            }
            Request::WriteMultipleCoils(first, values) => {
                let count = at_most(length(values), 1968)?;
                self.write_coils(unit, 15, *first, values)?;
                Ok(Response::WriteMultipleCoils(*first, count))
            }
            Request::WriteSingleRegister(first, value) => {
                self.write_registers(unit, 6, *first, &[*value])?;
                Ok(Response::WriteSingleRegister(*first, *value))
            }
            Request::WriteMultipleRegisters(first, values) => {
                let count = at_most(length(values), 123)?;
                self.write_registers(unit, 16, *first, values)?;
                Ok(Response::WriteMultipleRegisters(*first, count))
            }
            Request::MaskWriteRegister(first, and, or) => {
                let value = station.holding(*first, 1)?[0];
                self.write_registers(unit, 22, *first, &[(value & and) | (or & !and)])?;
                Ok(Response::MaskWriteRegister(*first, *and, *or))
            }
            Request::ReadWriteMultipleRegisters(first, count, write_first, values) => {
                let count = at_most(*count, 125)?;
                at_most(length(values), 121)?;
                station.holding(*first, count)?;
                self.write_registers(unit, 23, *write_first, values)?;
                let read = self.station.holding(*first, count)?.to_vec();
                Ok(Response::ReadWriteMultipleRegisters(read))
            }
            Request::ReportServerId => Ok(server_id()),
            Request::ReadDeviceIdentification(code, object) => {
                identification(code.value(), *object)
            }
            // Diagnostics, "return query data": the one that every master uses as a ping.
            Request::Custom(8, data) if data.starts_with(&[0, 0]) => {
                Ok(Response::Custom(8, Bytes::copy_from_slice(data)))
            }
            Request::Custom(..) => Err(ExceptionCode::IllegalFunction),
        }
    }

    fn write_registers(
        &mut self,
        unit: u8,
        function: u8,
        first: u16,
        values: &[u16],
    ) -> Result<(), Refusal> {
        self.station.write_holding(first, values)?;
        self.remember(unit, function, first, values.to_vec());
        Ok(())
    }

    fn write_coils(
        &mut self,
        unit: u8,
        function: u8,
        first: u16,
        values: &[bool],
    ) -> Result<(), Refusal> {
        self.station.write_coils(first, values)?;
        let values = values.iter().map(|&on| u16::from(on)).collect();
        self.remember(unit, function, first, values);
        Ok(())
    }

    fn remember(&mut self, unit: u8, function: u8, first: u16, values: Vec<u16>) {
        self.write_count += 1;
        if self.writes.len() < MAX_WRITES {
            self.writes.push(Write {
                unit,
                function,
                first,
                values,
            });
        }
    }
}

impl From<Refusal> for ExceptionCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Address => ExceptionCode::IllegalDataAddress,
            Refusal::Value => ExceptionCode::IllegalDataValue,
        }
    }
}

fn at_most(count: u16, most: u16) -> Result<u16, ExceptionCode> {
    if (1..=most).contains(&count) {
        Ok(count)
    } else {
        Err(ExceptionCode::IllegalDataValue)
    }
}

fn length<T>(values: &[T]) -> u16 {
    u16::try_from(values.len()).unwrap_or(u16::MAX)
}

/// Function 17 (section 6.13), encoded here because tokio-modbus states a length that is one
/// byte short of what it sends.
fn server_id() -> Response {
    const SERVER_ID: u8 = 1;
    const RUNNING: u8 = 0xFF;
    let text = b"Fieldlock pump station";
    let mut body = vec![2 + text.len() as u8, SERVER_ID, RUNNING];
    body.extend_from_slice(text);
    Response::Custom(17, body.into())
}

/// Function 43/14 (*Modbus Application Protocol* V1.1b3, section 6.21), encoded here because
/// tokio-modbus keeps its answer type to itself. Basic objects, stream and individual access.
fn identification(code: u8, object: u8) -> Result<Response, ExceptionCode> {
    const OBJECTS: [&str; 3] = ["Fieldlock", "pump-station", "1.0"];
    const BASIC_WITH_INDIVIDUAL_ACCESS: u8 = 0x81;
    const INDIVIDUAL: u8 = 4;

    let wanted = match (code, usize::from(object)) {
        (INDIVIDUAL, object) if object < OBJECTS.len() => object..object + 1,
        (INDIVIDUAL, _) => return Err(ExceptionCode::IllegalDataAddress),
        // Streams start over where the object asked for does not exist.
        (_, object) if object < OBJECTS.len() => object..OBJECTS.len(),
        _ => 0..OBJECTS.len(),
    };
    let mut body = vec![14, code, BASIC_WITH_INDIVIDUAL_ACCESS, 0, 0];
    body.push(wanted.len() as u8);
    for object in wanted {
        let text = OBJECTS[object].as_bytes();
        body.extend_from_slice(&[object as u8, text.len() as u8]);
        body.extend_from_slice(text);
    }
    Ok(Response::Custom(0x2B, body.into()))
}

#[cfg(test)]
mod tests;
