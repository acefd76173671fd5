//! Questions of a monitoring system over HTTP/1.1: GET alone, one on a connection.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// For the head of a request, and for a connection as a whole.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(10);
/// Octets of a request's head.
const MAX_HEAD: usize = 8 * 1024;

/// What there is to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `/metrics`
    Metrics,
    /// `/health`: does it live?
    Health,
    /// `/ready`: can requests pass?
    Ready,
}

/// What is said to it.
#[derive(Debug)]
pub enum Told {
    /// In the text format of Prometheus.
    Metrics(String),
    /// Or why not.
    Verdict(Result<(), String>),
}

/// Serves one connection, for 10 s at most, and closes it. `names`: as which this machine may be asked,
/// beside its IP addresses and `localhost`. An error says what was wrong with what came.
pub async fn converse<S, T>(stream: S, names: &[String], tell: T) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncFn(Question) -> Told,
{
    let tell = &tell;
    let service = service_fn(move |request| async move {
        let response = match question(&request, names) {
            Ok(question) => answer(tell(question).await),
            Err((status, text)) => refusal(status, text),
        };
        Ok::<_, Infallible>(response)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    timeout(CONNECTION, serving).await.unwrap_or(Ok(()))
}

/// Or the status and the words of a refusal.
fn question(
    request: &Request<Incoming>,
    names: &[String],
) -> Result<Question, (StatusCode, &'static str)> {
    if !is_addressed(request, names) {
        let text = "ask by an IP address, as localhost, or by one of `names` in [monitor]";
        return Err((StatusCode::FORBIDDEN, text));
    }
    if request.method() != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "GET alone"));
    }
    match request.uri().path() {
        "/metrics" => Ok(Question::Metrics),
        "/health" => Ok(Question::Health),
        "/ready" => Ok(Question::Ready),
        _ => Err((StatusCode::NOT_FOUND, "/metrics, /health or /ready")),
    }
}

fn refusal(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = plain(status, text);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

/// Whether the request names this machine as one does who means it. A browser that was led here
/// by a name of somebody else's (DNS rebinding) says that name.
fn is_addressed(request: &Request<Incoming>, names: &[String]) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let stated = host.to_str().ok().and_then(|host| host.parse().ok());
    let stated = stated.is_some_and(|host: Authority| is_ours(&host, names));
    stated
        && request
            .uri()
            .authority()
            .is_none_or(|host| is_ours(host, names))
}

fn is_ours(authority: &Authority, names: &[String]) -> bool {
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn answer(told: Told) -> Response<Full<Bytes>> {
    match told {
        Told::Metrics(text) => {
            let format = "text/plain; version=0.0.4; charset=utf-8";
            response(StatusCode::OK, format, text)
        }
        Told::Verdict(Ok(())) => plain(StatusCode::OK, "ok"),
        Told::Verdict(Err(reason)) => plain(StatusCode::SERVICE_UNAVAILABLE, &reason),
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
