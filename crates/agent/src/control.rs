//! The local control socket behind `fieldlock status`, and for a console.
//!
//! A client connects to `STATE/control.sock`, says in a line what it wants, and reads a line of JSON, or
//! after `subscribe` one after another: docs/control.md. One that says nothing gets the whole status, as
//! it did from the first version on. Only the agent's own user and root can open the socket: it lies in
//! the 0700 state directory.
//!
//! - `conversation`: one connection, from its request to its answer.
//! - `feed`: what those hear who subscribed.
//!
//! All of it runs on the data path's thread. So a client can't make it wait, and can't make it keep much:
//! connections, subscribers, the documents under way and the time that each may take are bounded.

mod conversation;
mod feed;

use std::cell::Cell;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use fieldlock_status::headend::EdgeEntry;
use fieldlock_status::{Alarm, Devices, Listing, OneDevice, Page, RequestError, State, Status};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::StartError;
use crate::recent::Recent;
use conversation::{converse, refuse};
use feed::Feed;

/// Name of the socket inside the state directory.
pub const SOCKET: &str = "control.sock";

/// Connections at once, subscribers aside; one more is told so and closed.
const CONNECTIONS: usize = 16;
/// How many of these may have a whole document under way: with thousands of edges it has megabytes.
const DOCUMENTS: usize = 2;
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What there is to ask an agent over this socket.
pub trait Reports: 'static {
    /// Everything.
    fn status(&self) -> Status;
    /// What a subscriber follows.
    fn state(&self) -> State;
    /// `None` where there are no edges to tell of.
    fn edges(&self, page: &Page) -> Option<Listing<EdgeEntry>>;
    /// The same where it is asked for those of an edge.
    fn devices(&self, page: &Page) -> Option<Devices>;
    fn device(&self, name: &str) -> Option<OneDevice>;
    fn alarms(&self) -> Vec<Alarm>;
    fn recent(&self) -> &Recent;
}

/// Why a client gets no answer.
#[derive(Debug, Error)]
enum Refusal {
    // The client's fault.
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the request did not end within {} s: a line ends with a line feed", conversation::REQUEST.as_secs())]
    Unfinished,
    #[error(
        "this is an edge, and has no edges: `status` lists its headends, `devices` its devices"
    )]
    NoEdges,
    #[error("there is no device of that name: `devices` lists them")]
    NoDevice,
    #[error("there is no such kind of event: docs/audit.md lists them")]
    NoKind,
    // Everybody's.
    #[error("{CONNECTIONS} connections are open, and that is the limit: come back")]
    Full,
    #[error("there are {} subscribers, and that is the limit", feed::FOLLOWERS)]
    FeedFull,
}

#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// What all connections share.
struct Desk<A> {
    agent: Rc<A>,
    open: Rc<Cell<usize>>,
    documents: Semaphore,
    feed: Feed,
}

/// A connection's place among so many.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(taken: &Rc<Cell<usize>>, most: usize) -> Option<Self> {
        (taken.get() < most).then(|| {
            taken.set(taken.get() + 1);
            Self(taken.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Control {
    /// Takes the socket over from an agent that has died; the audit log's lock has told by
    /// now that no other lives.
    pub fn bind(state: &Path) -> Result<Self, StartError> {
        let path = state.join(SOCKET);
        let bound = (|| {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        })();
        match bound {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(StartError::Control { path, source }),
        }
    }

    /// Answers all who connect.
    pub async fn serve(self, agent: Rc<impl Reports>) {
        let desk = Rc::new(Desk {
            agent,
            open: Rc::default(),
            documents: Semaphore::new(DOCUMENTS),
            feed: Feed::default(),
        });
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_REST).await;
                continue;
            };
            let Some(place) = Place::take(&desk.open, CONNECTIONS) else {
                refuse(&mut stream, &Refusal::Full).await;
                continue;
            };
            tokio::task::spawn_local(converse(stream, desk.clone(), place));
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests;
