//! Modbus/TCP clients at the headend: listeners, connections, limits.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Party, Record};
use fieldlock_conduit::client::{ClientSide, Origins, Routes, Verdict};
use fieldlock_modbus::{FramingError, mbap};
use fieldlock_policy::{Policy, RuleId};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant as TokioInstant, sleep, sleep_until};
use tracing::{debug, warn};

use super::Headend;
use super::request::Asked;
use crate::ledger::denial;
use crate::socket::{self, Writer};

/// Room for a burst of pipelined requests; one ADU has at most 260 octets.
const READ: usize = 4096;
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// One client connection.
pub(crate) struct ClientConn {
    /// Its number inside every device channel.
    pub(crate) number: u32,
    pub(crate) address: SocketAddr,
    pub(crate) party: Arc<Party>,
    pub(crate) since: Instant,
    pub(crate) requests: Cell<u64>,
    core: RefCell<ClientSide>,
    policy: RefCell<Arc<Policy>>,
    writer: Writer,
    last_request: Cell<Instant>,
    /// Channels that have heard of this client: tunnel number and channel.
    introduced: RefCell<Vec<(u32, u16)>>,
    /// Wakes the task: an end from outside.
    attention: Notify,
    ending: Cell<Option<&'static str>>,
}

impl ClientConn {
    fn new(
        headend: &Headend,
        number: u32,
        address: SocketAddr,
        routes: Arc<Routes>,
        write: OwnedWriteHalf,
    ) -> Rc<Self> {
        let policy = headend.policy();
        let origin = Origins {
            address: Some(address.ip().to_canonical()),
            ..Origins::default()
        };
        let party = party(&policy, &origin, address);
        let limit = headend.settings().client.in_flight;
        let core = ClientSide::new(origin, routes, policy.clone(), limit);
        let now = Instant::now();
        Rc::new(Self {
            number,
            address,
            party: Arc::new(party),
            since: now,
            requests: Cell::new(0),
            core: RefCell::new(core),
            policy: RefCell::new(policy),
            writer: Writer::new(write),
            last_request: Cell::new(now),
            introduced: RefCell::default(),
            attention: Notify::new(),
            ending: Cell::new(None),
        })
    }

    pub(crate) fn begin(&self) {
        self.core.borrow_mut().begin();
    }

    pub(crate) fn end(&self) {
        self.core.borrow_mut().end();
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.core.borrow().in_flight()
    }

    pub(crate) fn set_policy(&self, policy: &Arc<Policy>) {
        self.core.borrow_mut().set_policy(policy.clone());
        *self.policy.borrow_mut() = policy.clone();
    }

    pub(crate) fn rule_name(&self, rule: RuleId) -> Arc<str> {
        self.policy.borrow().rule_name(rule).into()
    }

    /// Whether this channel has yet to hear of the client; it has from here on.
    pub(crate) fn introduced(&self, tunnel: u32, channel: u16) -> bool {
        let mut known = self.introduced.borrow_mut();
        if known.contains(&(tunnel, channel)) {
            return false;
        }
        known.push((tunnel, channel));
        true
    }

    /// The tunnel has ended, and with it all that its channels knew.
    pub(crate) fn forget_tunnel(&self, tunnel: u32) {
        self.introduced
            .borrow_mut()
            .retain(|(known, _)| *known != tunnel);
    }

    /// Name, identity and role, as a hello to a channel states them.
    pub(crate) fn with_stated(&self, state: impl FnOnce(&[u8], &[u8], &[u8])) {
        let core = self.core.borrow();
        let origin = core.origin();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        state(
            self.party.name.as_deref().unwrap_or_default().as_bytes(),
            text(origin.identity.as_deref()).as_bytes(),
            text(origin.role.as_deref()).as_bytes(),
        );
    }

    /// Queues an answer; [`ClientConn::flush`] writes it.
    pub(crate) fn answer(&self, transaction: u16, unit: u8, pdu: &[u8]) {
        self.writer
            .push(|out| mbap::encode(out, transaction, unit, pdu));
    }

    /// Writes the answers that wait.
    pub(crate) fn flush(&self) {
        if self.writer.flush().is_err() {
            self.close("writing failed");
        }
    }

    /// Ends the connection from outside its task.
    pub(crate) fn close(&self, why: &'static str) {
        self.ending.set(Some(why));
        self.attention.notify_one();
    }
}

fn party(policy: &Policy, origin: &Origins, address: SocketAddr) -> Party {
    Party {
        name: policy
            .client_names(&origin.as_client())
            .next()
            .map(Into::into),
        address: origin.address,
        port: Some(address.port()),
        identity: origin.identity.as_deref().map(Into::into),
    }
}

/// Accepts clients of one listener until the task is aborted.
pub(crate) async fn listen(
    headend: Rc<Headend>,
    listener: TcpListener,
    routes: Rc<RefCell<Arc<Routes>>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let routes = routes.borrow().clone();
                admit(&headend, stream, address, &routes);
            }
            Err(error) => {
                warn!(%error, "accepting a client failed");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn admit(headend: &Rc<Headend>, stream: TcpStream, address: SocketAddr, routes: &Arc<Routes>) {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    if let Err(reason) = headend.room_for(address) {
        let party = Arc::new(Party {
            address: Some(address.ip()),
            ..Party::default()
        });
        headend
            .ledger
            .repeated(denial(Kind::ClientRefused, &party, reason));
        return;
    }
    if let Err(error) = socket::prepare_client(&stream) {
        debug!(%error, %address, "client vanished");
        return;
    }
    let (read, write) = stream.into_split();
    let client = ClientConn::new(
        headend,
        headend.next_client(),
        address,
        routes.clone(),
        write,
    );
    headend.add_client(&client);
    tokio::task::spawn_local(serve(headend.clone(), client, read));
}

async fn serve(headend: Rc<Headend>, client: Rc<ClientConn>, read: OwnedReadHalf) {
    headend.ledger.note(Record {
        client: Some(client.party.clone()),
        ..Record::new(Kind::ClientOpen)
    });
    let why = converse(&headend, &client, read).await;
    headend.remove_client(&client);
    for (tunnel, channel) in client.introduced.take() {
        headend.forget_client(tunnel, channel, client.number);
    }
    headend.ledger.note(Record {
        client: Some(client.party.clone()),
        reason: Some(why.into()),
        count: Some(client.requests.get()),
        ..Record::new(Kind::ClientClose)
    });
}

/// Serves one client until either side ends it; says why it ended.
async fn converse(
    headend: &Rc<Headend>,
    client: &Rc<ClientConn>,
    mut read: OwnedReadHalf,
) -> String {
    let idle = headend.settings().client.idle_timeout.0;
    let mut input = Vec::with_capacity(READ);
    let timer = sleep_until(TokioInstant::now() + idle);
    tokio::pin!(timer);
    loop {
        tokio::select! {
            biased;
            // A client that does not read its answers is not read from either.
            drained = client.writer.drain() => {
                if let Err(error) = drained {
                    return format!("writing failed: {error}");
                }
            }
            received = read.read_buf(&mut input), if !client.writer.has_backlog() => match received {
                Ok(0) => return "closed by the client".into(),
                Ok(_) => {
                    if let Err(error) = take_requests(headend, client, &mut input) {
                        return refuse_framing(headend, client, &error);
                    }
                }
                Err(error) => return format!("reading failed: {error}"),
            },
            () = client.attention.notified() => {
                if let Some(why) = client.ending.get() {
                    return why.into();
                }
            }
            () = &mut timer => {
                let deadline = client.last_request.get() + idle;
                if Instant::now() >= deadline {
                    let stuck = client.writer.has_backlog();
                    return if stuck { "does not read its answers" } else { "idle" }.into();
                }
                timer.as_mut().reset(deadline.into());
            }
        }
    }
}

fn take_requests(
    headend: &Headend,
    client: &Rc<ClientConn>,
    input: &mut Vec<u8>,
) -> Result<(), FramingError> {
    let now = Instant::now();
    client.last_request.set(now);
    let mut used = 0;
    let outcome = loop {
        let step = client.core.borrow_mut().next(&input[used..]);
        let (step, size) = match step {
            Ok(Some(next)) => next,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        used += size;
        client.requests.set(client.requests.get() + 1);
        let asked = Asked {
            client,
            transaction: step.transaction,
            unit: step.unit,
        };
        match &step.verdict {
            Verdict::Forward { device, permit } => headend.forward(now, asked, *device, permit),
            Verdict::Refuse { target, refused } => headend.refuse(asked, *target, refused),
        }
    };
    input.drain(..used);
    client.flush();
    outcome
}

fn refuse_framing(headend: &Headend, client: &ClientConn, error: &FramingError) -> String {
    let reason = format!("not Modbus/TCP: {error}");
    headend
        .ledger
        .repeated(denial(Kind::Denied, &client.party, &reason));
    headend.counters.not_modbus.add();
    reason
}
