//! Servers of the simulation, which need a runtime, for tests, which have none.

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use fieldlock_sim::{Fault, Faulty, Options, Plc};
use tokio::runtime::{Builder, Runtime};

/// A server and the runtime it lives in; when dropped all its connections end with it.
#[derive(Debug)]
pub struct Hosted<T> {
    server: Option<T>,
    runtime: Option<Runtime>,
}

impl<T> Hosted<T> {
    pub fn start<E: std::fmt::Debug>(start: impl Future<Output = Result<T, E>>) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            server: Some(runtime.block_on(start).unwrap()),
            runtime: Some(runtime),
        }
    }
}

impl Hosted<Plc> {
    /// A PLC that behaves. `port` 0 takes a free one.
    pub fn plc(port: u16) -> Self {
        Self::start(Plc::start(loopback(port), Options::default()))
    }
}

impl Hosted<Faulty> {
    /// A PLC that does to its nth request what `script` says.
    pub fn faulty(port: u16, script: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Self {
        Self::start(Faulty::start(loopback(port), script))
    }
}

impl<T> Deref for Hosted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.server.as_ref().expect("lives until dropped")
    }
}

impl<T> Drop for Hosted<T> {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
