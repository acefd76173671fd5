//! The HMI of the demo: a plain Modbus/TCP client, of a library that shares no code with ours.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fieldlock_modbus::Exception;
use tokio_modbus::client::{Context, Reader, Writer, tcp};
use tokio_modbus::{ExceptionCode, Slave};

use super::screen::time;
use super::trouble::Trouble;

pub(super) const UNIT: u8 = 1;

/// Far beyond what the headend takes to answer in any case.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Client(Context);

/// What came back, and after how long.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) got: Result<T, Refused>,
    pub(super) took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u8);

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, Trouble> {
        let connected = tcp::connect_slave(address, Slave(UNIT)).await;
        let context = connected.map_err(Trouble::io(format!("connect to {address}")))?;
        Ok(Self(context))
    }

    pub(super) async fn read(
        &mut self,
        first: u16,
        count: u16,
    ) -> Result<Answer<Vec<u16>>, Trouble> {
        let request = self.0.read_holding_registers(first, count);
        timed(&format!("read holding {first}"), request).await
    }

    pub(super) async fn write(&mut self, register: u16, value: u16) -> Result<Answer<()>, Trouble> {
        let request = self.0.write_single_register(register, value);
        timed(&format!("write holding {register}"), request).await
    }
}

async fn timed<T>(
    what: &str,
    request: impl Future<Output = tokio_modbus::Result<T>>,
) -> Result<Answer<T>, Trouble> {
    let started = Instant::now();
    let answered = tokio::time::timeout(PATIENCE, request).await;
    let answered = answered.map_err(|_| Trouble::InVain {
        what: format!("the answer to: {what}"),
        within: PATIENCE,
    })?;
    let answer = answered.map_err(|source| Trouble::Modbus {
        what: what.to_owned(),
        source,
    })?;
    Ok(Answer {
        got: answer.map_err(Refused::from),
        took: started.elapsed(),
    })
}

impl<T> Answer<T> {
    /// What was asked for; a refusal is trouble.
    pub(super) fn granted(self, what: &str) -> Result<T, Trouble> {
        self.got.map_err(|refused| Trouble::Unexpected {
            expected: what.to_owned(),
            got: refused.to_string(),
        })
    }

    /// The exception; an answer is trouble.
    pub(super) fn refused(&self, what: &str) -> Result<Refused, Trouble> {
        self.got
            .as_ref()
            .err()
            .copied()
            .ok_or_else(|| Trouble::Unexpected {
                expected: format!("an exception for {what}"),
                got: format!("an answer after {}", time(self.took)),
            })
    }
}

impl From<ExceptionCode> for Refused {
    fn from(code: ExceptionCode) -> Self {
        Self(code.into())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Exception::from_code(self.0) {
            Some(exception) => write!(f, "exception {exception}"),
            None => write!(f, "exception {:#04x}", self.0),
        }
    }
}
