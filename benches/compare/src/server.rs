//! The fastest Modbus server that is still honest: FC 3 only, every complete request of a
//! read answered in one write.

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fieldlock_testkit::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::Failure;

/// Registers in each request of the comparison.
pub(crate) const REGISTERS: u16 = 10;
/// MBAP header and the PDU of a read.
pub(crate) const REQUEST: usize = 12;
/// MBAP header, function, byte count, registers.
pub(crate) const ANSWER: usize = 9 + 2 * REGISTERS as usize;
pub(crate) const READ_HOLDING: u8 = 3;

/// The value of a register: differs between neighbours, so that an answer to another
/// request is noticed.
pub(crate) fn value_at(address: u16) -> u16 {
    address.wrapping_mul(31).wrapping_add(7)
}

/// Starts it as a process of its own.
pub(crate) fn start(address: SocketAddr, directory: &Path) -> Result<Process, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("serve").arg(address.to_string());
    Ok(Process::start("server", &mut command, directory)?)
}

/// Serves until killed, one current_thread runtime, a task per connection.
pub(crate) fn run(address: SocketAddr) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    })
}

/// Serves one connection at a time until killed, and each request `after` its arrival or the answer
/// before it.
pub(crate) fn run_slowly(address: SocketAddr, after: Duration) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (mut request, mut answers) = ([0; REQUEST], Vec::new());
            while stream.read_exact(&mut request).await.is_ok() {
                sleep(after).await;
                answers.clear();
                if !answer(&request, &mut answers) || stream.write_all(&answers).await.is_err() {
                    break;
                }
            }
        }
    })
}

async fn serve(mut stream: TcpStream) {
    let mut buffer = [0; 64 * REQUEST];
    let mut filled = 0;
    let mut answers = Vec::with_capacity(64 * ANSWER);
    while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += count;
        let whole = filled - filled % REQUEST;
        answers.clear();
        for request in buffer[..whole].chunks_exact(REQUEST) {
            if !answer(request, &mut answers) {
                return;
            }
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}

/// Appends the answer; false for anything but the one request of the comparison.
fn answer(request: &[u8], answers: &mut Vec<u8>) -> bool {
    let [t1, t0, 0, 0, 0, 6, unit, READ_HOLDING, a1, a0, c1, c0] = *request else {
        return false;
    };
    if u16::from_be_bytes([c1, c0]) != REGISTERS {
        return false;
    }
    let bytes = 2 * REGISTERS as u8;
    answers.extend([t1, t0, 0, 0, 0, bytes + 3, unit, READ_HOLDING, bytes]);
    let start = u16::from_be_bytes([a1, a0]);
    for step in 0..REGISTERS {
        answers.extend(value_at(start.wrapping_add(step)).to_be_bytes());
    }
    true
}
