//! What a monitoring system asks an agent: metrics, whether it lives, whether it serves.
//!
//! Plain HTTP/1.1 on a local address, GET alone, one request a connection. It runs on the data
//! path's own thread: an answer is a proof that this turns.

mod common;
mod page;
mod process;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::StartError;
use crate::ledger::Ledger;
use crate::posture::Posture;
use crate::settings::monitor::Monitor as Settings;
use crate::vitals::Vitals;
pub(crate) use page::{Kind, Page};

/// Connections at once; one more is closed.
const CONNECTIONS: usize = 8;
/// For the head of a request, and for a connection as a whole.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(10);
/// Octets of a request's head.
const MAX_HEAD: usize = 8 * 1024;
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Names with series of their own, of devices, edges or stations; the others share one.
pub(crate) const OWN_SERIES: usize = 1024;
/// Whose series that is. No device can have this name.
pub(crate) const THE_REST: &str = "_rest";

/// What there is to ask an agent.
pub(crate) trait Monitored: 'static {
    fn vitals(&self) -> &Vitals;
    fn posture(&self) -> &Posture;
    fn ledger(&self) -> &Ledger;
    /// What keeps it from serving, beside what keeps any agent from it.
    fn unready(&self) -> Option<String>;
    /// What it has, in a line.
    fn summary(&self) -> String;
    /// Writes the metrics that only it has.
    async fn write_metrics(&self, page: &mut Page);
}

/// Whether what carries requests is alive.
pub(crate) fn health(agent: &impl Monitored) -> Result<(), String> {
    if agent.vitals().is_stopping() {
        return Ok(());
    }
    agent.vitals().check()?;
    match agent.ledger().is_alive() {
        true => Ok(()),
        false => Err("the thread of the audit log has ended".into()),
    }
}

/// Whether requests can pass, as far as that depends on this agent.
fn ready(agent: &impl Monitored) -> Result<(), String> {
    health(agent)?;
    let trust = agent.posture().trust();
    let reason = if agent.vitals().is_stopping() {
        Some("the agent stops".into())
    } else if !agent.ledger().is_writable() {
        Some("the audit log can't be written".into())
    } else if trust.revoked {
        Some("the certificate is revoked".into())
    } else if trust.leaf.not_after < agent.posture().clock().now() {
        Some("the certificate has expired".into())
    } else if let Some(missing) = agent.posture().bundle().missing() {
        Some(format!("no policy bundle: {missing}"))
    } else {
        agent.unready()
    };
    reason.map_or(Ok(()), Err)
}

/// A listener for monitoring.
#[derive(Debug)]
pub(crate) struct Monitor {
    listener: TcpListener,
    settings: Settings,
}

impl Monitor {
    pub(crate) async fn bind(settings: &Settings) -> Result<Self, StartError> {
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

    pub(crate) async fn serve(self, agent: Rc<impl Monitored>) {
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
                if let Err(error) = converse(stream, &agent, &settings).await {
                    debug!(%address, "monitoring: {error}");
                }
                open.set(open.get() - 1);
            });
        }
    }
}

async fn converse(
    stream: TcpStream,
    agent: &Rc<impl Monitored>,
    settings: &Rc<Settings>,
) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let (agent, settings) = (agent.clone(), settings.clone());
        async move { Ok::<_, Infallible>(answer(&*agent, &settings, &request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    timeout(CONNECTION, serving).await.unwrap_or(Ok(()))
}

async fn answer(
    agent: &impl Monitored,
    settings: &Settings,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !is_addressed(request, settings) {
        let text = "ask by an IP address, as localhost, or by one of `names` in [monitor]";
        return plain(StatusCode::FORBIDDEN, text);
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET alone");
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut page = Page::default();
            common::measure(agent, &mut page);
            agent.write_metrics(&mut page).await;
            let format = "text/plain; version=0.0.4; charset=utf-8";
            response(StatusCode::OK, format, page.into_text())
        }
        "/health" => verdict(health(agent)),
        "/ready" => verdict(ready(agent)),
        _ => plain(StatusCode::NOT_FOUND, "/metrics, /health or /ready"),
    }
}

/// Whether the request names this machine as one does who means it. A browser that was led here
/// by a name of somebody else's (DNS rebinding) says that name.
fn is_addressed(request: &Request<Incoming>, settings: &Settings) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let stated = host.to_str().ok().and_then(|host| host.parse().ok());
    let stated = stated.is_some_and(|host: Authority| is_ours(&host, settings));
    stated
        && request
            .uri()
            .authority()
            .is_none_or(|host| is_ours(host, settings))
}

fn is_ours(authority: &Authority, settings: &Settings) -> bool {
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || settings
            .names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(host))
}

fn verdict(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => plain(StatusCode::OK, "ok"),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn response(status: StatusCode, format: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
