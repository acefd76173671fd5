//! What a monitoring system asks an agent: metrics, whether it lives, whether it serves.
//!
//! Plain HTTP/1.1 on a local address, see [`http`]. It runs on the data path's own thread: an answer
//! is a proof that this turns.

mod common;
pub mod http;
mod page;
mod process;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::StartError;
use crate::runtime::End;
use crate::settings::monitor::Monitor as Settings;
use http::{Question, Told};
pub use page::{Kind, Page};

/// Connections at once; one more is closed.
const CONNECTIONS: usize = 8;
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Names with series of their own, of devices, edges or stations; the others share one.
pub const OWN_SERIES: usize = 1024;
/// Whose series that is. No device can have this name.
pub const THE_REST: &str = "_rest";

/// What there is to ask an agent.
pub trait Monitored: End {
    /// What keeps it from serving, beside what keeps any agent from it.
    fn unready(&self) -> Option<String>;
    /// What it has, in a line.
    fn summary(&self) -> String;
    /// Writes the metrics that only it has.
    #[expect(
        async_fn_in_trait,
        reason = "agents run on one thread: nothing asks for Send"
    )]
    async fn write_metrics(&self, page: &mut Page);
}

/// Whether what carries requests is alive.
pub fn health(agent: &impl Monitored) -> Result<(), String> {
    if agent.runtime().vitals.is_stopping() {
        return Ok(());
    }
    agent.runtime().vitals.check()?;
    match agent.runtime().ledger.is_alive() {
        true => Ok(()),
        false => Err("the thread of the audit log has ended".into()),
    }
}

/// Whether requests can pass, as far as that depends on this agent.
fn ready(agent: &impl Monitored) -> Result<(), String> {
    health(agent)?;
    let trust = agent.runtime().posture.trust();
    let reason = if agent.runtime().vitals.is_stopping() {
        Some("the agent stops".into())
    } else if !agent.runtime().ledger.is_writable() {
        Some("the audit log can't be written".into())
    } else if trust.revoked {
        Some("the certificate is revoked".into())
    } else if trust.leaf.not_after < agent.runtime().posture.clock().now() {
        Some("the certificate has expired".into())
    } else if let Some(missing) = agent.runtime().posture.bundle().missing() {
        Some(format!("no policy bundle: {missing}"))
    } else {
        agent.unready()
    };
    reason.map_or(Ok(()), Err)
}

/// A listener for monitoring.
#[derive(Debug)]
pub struct Monitor {
    listener: TcpListener,
    settings: Settings,
}

impl Monitor {
    pub async fn bind(settings: &Settings) -> Result<Self, StartError> {
        let address = settings.listen;
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| StartError::Bind { address, source })?;
        let bound = listener.local_addr().unwrap_or(address);
        info!(address = %bound, "monitoring: listening");
        Ok(Self {
            listener,
            settings: settings.clone(),
        })
    }

    pub async fn serve(self, agent: Rc<impl Monitored>) {
        let settings = Rc::new(self.settings);
        let open = Rc::new(Cell::new(0));
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                sleep(ACCEPT_REST).await;
                continue;
            };
            if open.get() >= CONNECTIONS {
                debug!(%address, "monitoring: too many connections");
                continue;
            }
            open.set(open.get() + 1);
            let (agent, settings, open) = (agent.clone(), settings.clone(), open.clone());
            tokio::task::spawn_local(async move {
                let told = async |question| tell(&*agent, question).await;
                let conversed = http::converse(stream, &settings.names, told).await;
                if let Err(error) = conversed {
                    debug!(%address, "monitoring: {error}");
                }
                open.set(open.get() - 1);
            });
        }
    }
}

async fn tell(agent: &impl Monitored, question: Question) -> Told {
    match question {
        Question::Metrics => {
            let mut page = Page::default();
            common::measure(agent, &mut page);
            agent.write_metrics(&mut page).await;
            Told::Metrics(page.into_text())
        }
        Question::Health => Told::Verdict(health(agent)),
        Question::Ready => Told::Verdict(ready(agent)),
    }
}
