//! What a service manager is told: sd_notify(3) of systemd, over the socket that the environment
//! names. Without one nothing is told to anybody.
//!
//! The watchdog is fed from the data path's own thread, and only while what carries requests is
//! alive: a path that stands still starves it, and is started anew.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;
use std::{env, io};

use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use crate::monitor::{Monitored, health};

/// How often the line of status is looked at, and the watchdog fed at least.
const LOOK: Duration = Duration::from_secs(5);
/// With a manager that is busy. The data path stands still meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// The process is ended when the watchdog was not fed for this long.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    pub fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| *limit > 0 && is_meant);
        match connect(address.as_bytes()) {
            Ok(socket) => Self {
                socket: Some(socket),
                watchdog: limit.map(Duration::from_micros),
            },
            Err(error) => {
                warn!("NOTIFY_SOCKET: {error}: the service manager hears nothing");
                Self::default()
            }
        }
    }

    pub fn ready(&self) {
        self.tell("READY=1");
    }

    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// What happens once: waits for [`PATIENCE`] at most.
    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            warn!("the service manager does not hear `{text}`: {error}");
        }
    }

    /// What is told again and again: never waits. Whether there was room for it.
    fn repeat(&self, text: &str) -> bool {
        self.socket.as_ref().is_some_and(|socket| {
            let socket = SockRef::from(socket);
            let sent = socket.send_with_flags(text.as_bytes(), libc::MSG_DONTWAIT);
            sent.is_ok()
        })
    }

    /// Keeps the manager informed, and its watchdog fed, as long as the agent is well.
    pub async fn inform(self: Rc<Self>, agent: Rc<impl Monitored>) {
        if self.socket.is_none() {
            return;
        }
        let every = self.watchdog.map_or(LOOK, |limit| (limit / 3).min(LOOK));
        let mut look = interval(every.max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        let mut was_well = true;
        loop {
            look.tick().await;
            let health = health(&*agent);
            if self.watchdog.is_some() && health.is_ok() {
                self.repeat("WATCHDOG=1");
            }
            if let (Err(reason), true) = (&health, was_well) {
                error!("{reason}: the watchdog is not fed any more");
            }
            was_well = health.is_ok();
            let status = match health {
                Ok(()) => agent.summary(),
                Err(reason) => reason,
            };
            if status != told && self.repeat(&format!("STATUS={status}")) {
                told = status;
            }
        }
    }
}

/// A path, or with `@` in front an abstract name.
fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(address))?,
        _ => {
            let text = "neither a path nor an abstract name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
