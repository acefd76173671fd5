//! Where clients come in.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use fieldlock_agent::StartError;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info;

use super::Headend;
use super::client::{self, Service};
use super::settings::Entrance;

/// By configured address.
#[derive(Default)]
pub(crate) struct Listeners(RefCell<HashMap<SocketAddr, Listening>>);

struct Listening {
    address: SocketAddr,
    /// For connections from here on.
    service: Rc<RefCell<Service>>,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Opens those that are wanted, and closes all others.
    pub(super) async fn follow(
        &self,
        headend: &Rc<Headend>,
        entrances: Vec<Entrance>,
    ) -> Result<(), StartError> {
        let wanted: HashSet<_> = entrances.iter().map(|entrance| entrance.address).collect();
        self.0.borrow_mut().retain(|address, listening| {
            let keep = wanted.contains(address);
            if !keep {
                listening.task.abort();
                info!(address = %listening.address, "no longer listening");
            }
            keep
        });
        for entrance in entrances {
            let Entrance {
                address,
                mbaps,
                routes,
            } = entrance;
            let routes = Arc::new(routes);
            let service = Service { mbaps, routes };
            if let Some(listening) = self.0.borrow().get(&address) {
                // Connections made before keep what they have; new ones get this.
                *listening.service.borrow_mut() = service;
                continue;
            }
            let listening = Listening::open(headend, address, service).await?;
            self.0.borrow_mut().insert(address, listening);
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        for listening in self.0.borrow().values() {
            listening.task.abort();
        }
    }

    /// One that has ended by itself.
    pub(super) fn ended(&self) -> Option<SocketAddr> {
        let listeners = self.0.borrow();
        let mut ended = listeners.iter().filter(|(_, l)| l.task.is_finished());
        ended.next().map(|(address, _)| *address)
    }

    /// Where clients come in that speak Modbus/TCP Security, or those that do not.
    pub(super) fn addresses(&self, mbaps: bool) -> Vec<SocketAddr> {
        let listeners = self.0.borrow();
        let shown = listeners
            .values()
            .filter(|listening| listening.service.borrow().mbaps == mbaps);
        shown.map(|listening| listening.address).collect()
    }
}

impl Listening {
    async fn open(
        headend: &Rc<Headend>,
        address: SocketAddr,
        service: Service,
    ) -> Result<Self, StartError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| StartError::Bind { address, source })?;
        let bound = listener.local_addr().unwrap_or(address);
        let speak = if service.mbaps { "MBAPS" } else { "Modbus" };
        info!(address = %bound, "{speak} clients: listening");
        let service = Rc::new(RefCell::new(service));
        let task = client::listen(headend.clone(), listener, service.clone());
        Ok(Self {
            address: bound,
            service,
            task: tokio::task::spawn_local(task),
        })
    }
}
