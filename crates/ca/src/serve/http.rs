//! Requests and answers: EST (RFC 7030, RFC 8951), the trust list, CRL files.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::est;
use fieldlock_pki::{Crl, Identity, Secret, TrustList};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::Server;
use super::limit::Asker;
use crate::authority::Issued;
use crate::enrolment::Credentials;
use crate::error::CaError;

const BODY: Duration = Duration::from_secs(10);
/// Longest wait of a long poll; a headend's splice bears 90 s of silence.
const MAX_WAIT: Duration = Duration::from_secs(60);
const TEXT: &str = "text/plain; charset=utf-8";

/// Who asks: where from, and the certificate that the handshake has proven, if any.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    /// DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// An answer under construction.
struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
    more: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    fn new(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: StatusCode::OK,
            kind,
            body: body.into(),
            more: Vec::new(),
        }
    }

    /// A line that tells the asker what to do.
    fn refusal(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            ..Self::new(TEXT, format!("{text}\n"))
        }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.more.push((name, value));
        }
        self
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = self.status;
        let kind = HeaderValue::from_static(self.kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        for (name, value) in self.more {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Answers one request. Never fails: whatever goes wrong is an answer.
pub(super) async fn answer(
    server: Arc<Server>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !server.may_ask(peer.address) {
        let text = "too many requests from this address: try again in a minute";
        return Answer::refusal(StatusCode::TOO_MANY_REQUESTS, text)
            .with(header::RETRY_AFTER, "60")
            .into_response();
    }
    match route(&server, &peer, request).await {
        Ok(answer) | Err(answer) => answer.into_response(),
    }
}

async fn route(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    let path = request.uri().path().to_owned();
    if let Some(name) = path.strip_prefix("/crl/") {
        only(&request, &Method::GET)?;
        return crl(&server.published().list, name);
    }
    if path == est::TRUST_PATH {
        only(&request, &Method::GET)?;
        return Ok(trust(server, request.headers()).await);
    }
    let operation = path.strip_prefix(est::PATH).unwrap_or_default();
    match operation {
        "cacerts" => {
            only(&request, &Method::GET)?;
            cacerts(&server.published().list)
        }
        "csrattrs" => {
            only(&request, &Method::GET)?;
            Ok(est_answer(est::CSR_ATTRS, est::CSR_ATTRIBUTES))
        }
        "simpleenroll" => {
            only(&request, &Method::POST)?;
            let credentials = credentials(request.headers())?;
            let key = requested_key(request).await?;
            enroll(server, peer, credentials, key).await
        }
        "simplereenroll" => {
            only(&request, &Method::POST)?;
            let text = "show the certificate that is to be renewed, as TLS client certificate";
            let current = peer.certificate.clone();
            let current = current.ok_or(Answer::refusal(StatusCode::UNAUTHORIZED, text))?;
            let key = requested_key(request).await?;
            reenroll(server, peer, current, key).await
        }
        "fullcmc" | "serverkeygen" => Err(Answer::refusal(
            StatusCode::NOT_IMPLEMENTED,
            "not offered: use simpleenroll or simplereenroll; keys are made where they are used",
        )),
        _ => Err(Answer::refusal(
            StatusCode::NOT_FOUND,
            "there is nothing: EST is at /.well-known/est/cacerts, csrattrs, simpleenroll and simplereenroll",
        )),
    }
}

fn only(request: &Request<Incoming>, method: &Method) -> Result<(), Answer> {
    if request.method() == method {
        return Ok(());
    }
    let text = format!("use {method} here");
    let refusal = Answer::refusal(StatusCode::METHOD_NOT_ALLOWED, &text);
    Err(refusal.with(header::ALLOW, method.as_str()))
}

fn est_answer(kind: &'static str, der: &[u8]) -> Answer {
    Answer::new(kind, est::encode(der))
}

fn cacerts(list: &TrustList) -> Result<Answer, Answer> {
    let certificates: Vec<&[u8]> = [&list.roots, &list.links, &list.issuing]
        .into_iter()
        .flatten()
        .map(Vec::as_slice)
        .collect();
    let message = est::certs_only(&certificates).map_err(|error| internal(&error))?;
    Ok(est_answer(est::CERTS_ONLY, &message))
}

/// `/crl/NAME.crl` is one CRL in DER, `/crl/` alone lists the names.
fn crl(list: &TrustList, name: &str) -> Result<Answer, Answer> {
    let named = |der: &Vec<u8>| crl_name(der).is_some_and(|own| own == name);
    if name.is_empty() {
        let names: String = list
            .crls
            .iter()
            .filter_map(|der| Some(format!("{}\n", crl_name(der)?)))
            .collect();
        return Ok(Answer::new(TEXT, names));
    }
    let found = list.crls.iter().find(|der| named(der));
    found
        .map(|der| Answer::new("application/pkix-crl", der.clone()))
        .ok_or(Answer::refusal(
            StatusCode::NOT_FOUND,
            "no such CRL: /crl/ lists them",
        ))
}

/// `fieldlock-issuing-ca-0a1b2c3d.crl` for "CN=Fieldlock issuing CA 0a1b2c3d".
fn crl_name(der: &[u8]) -> Option<String> {
    let issuer = Crl::parse(der).ok()?.issuer;
    let (_, common_name) = issuer.rsplit_once("CN=")?;
    let name: String = common_name
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '-',
        })
        .collect();
    Some(format!("{name}.crl"))
}

/// The trust list at once, or, to who has it already and asks to wait, when it changes.
async fn trust(server: &Server, headers: &HeaderMap) -> Answer {
    let mut published = server.subscribe();
    let current = published.borrow_and_update().clone();
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == current.etag.as_bytes());
    if !known {
        return trust_answer(&current);
    }
    let wait = preferred_wait(headers).min(MAX_WAIT);
    let changed = timeout(wait, published.changed()).await;
    if matches!(changed, Ok(Ok(()))) {
        return trust_answer(&published.borrow_and_update().clone());
    }
    Answer {
        status: StatusCode::NOT_MODIFIED,
        ..Answer::new(TEXT, "")
    }
    .with(header::ETAG, &current.etag)
}

fn trust_answer(published: &super::Published) -> Answer {
    Answer::new(TEXT, published.list.to_pem()).with(header::ETAG, &published.etag)
}

/// Seconds of `Prefer: wait=N` (RFC 7240, section 4.3).
fn preferred_wait(headers: &HeaderMap) -> Duration {
    let value = headers.get("prefer").and_then(|value| value.to_str().ok());
    let seconds = value
        .and_then(|value| value.trim().strip_prefix("wait="))
        .and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// HTTP Basic: user `ROLE/NAME`, password the token's secret.
fn credentials(headers: &HeaderMap) -> Result<Credentials, Answer> {
    let unauthorized = |text: &str| {
        Answer::refusal(StatusCode::UNAUTHORIZED, text)
            .with(header::WWW_AUTHENTICATE, "Basic realm=\"fieldlock\"")
    };
    let shape = "authenticate with HTTP Basic: user ROLE/NAME, password the secret of a token of `fieldlock ca token`";
    let wrong = || unauthorized(shape);
    let value = headers.get(header::AUTHORIZATION).ok_or_else(wrong)?;
    let value = value.to_str().map_err(|_| wrong())?;
    let (scheme, encoded) = value.split_once(' ').ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 512 {
        return Err(wrong());
    }
    let octets = STANDARD.decode(encoded.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(octets).map_err(|_| wrong())?;
    let text = Zeroizing::new(text);
    let (user, password) = text.split_once(':').ok_or_else(wrong)?;
    let (role, name) = user.split_once('/').ok_or_else(wrong)?;
    let secret: Secret = password.parse().map_err(|_| wrong())?;
    Ok(Credentials {
        role: role.parse().map_err(|_| wrong())?,
        name: name.parse().map_err(|_| wrong())?,
        secret,
    })
}

async fn requested_key(request: Request<Incoming>) -> Result<PublicKey, Answer> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(est::PKCS10) {
        let text = "send a base64 PKCS #10 request with `Content-Type: application/pkcs10`";
        return Err(Answer::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let body = Limited::new(request.into_body(), est::MAX_BODY).collect();
    let body = match timeout(BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = "the request is longer than 64 KiB";
            return Err(Answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Ok(Err(_)) => {
            let text = "the body broke off";
            return Err(Answer::refusal(StatusCode::BAD_REQUEST, text));
        }
        Err(_) => {
            let text = "the body did not arrive in time";
            return Err(Answer::refusal(StatusCode::REQUEST_TIMEOUT, text));
        }
    };
    let bad = |text: String| Answer::refusal(StatusCode::BAD_REQUEST, &text);
    let der = est::decode(&body).map_err(|error| bad(error.to_string()))?;
    PublicKey::from_request_der(&der).map_err(|error| bad(error.to_string()))
}

async fn enroll(
    server: &Arc<Server>,
    peer: &Peer,
    credentials: Credentials,
    key: PublicKey,
) -> Result<Answer, Answer> {
    let asker = Asker::Identity(credentials.role, credentials.name.clone());
    let room = server.limits().may_fail(asker.clone(), Instant::now());
    let outcome = server
        .with_ca(move |ca, keys, now| {
            // Who guesses can't keep those out who have a token.
            if !room && !ca.has_token(&credentials, &key, now)? {
                return Err(CaError::Crowded);
            }
            ca.enroll(keys, &credentials, key, now)
        })
        .await;
    certificate(server, peer, &asker, "a token", outcome)
}

async fn reenroll(
    server: &Arc<Server>,
    peer: &Peer,
    current: Arc<[u8]>,
    key: PublicKey,
) -> Result<Answer, Answer> {
    // The handshake has proven who it is: nobody else can use up its turns.
    let identity = Identity::from_certificate(&current).map_err(|error| internal(&error))?;
    let asker = Asker::Identity(identity.role, identity.name);
    let room = server.limits().may_renew(asker.clone(), Instant::now());
    let outcome = server
        .with_ca(move |ca, keys, now| match room {
            true => ca.reenroll(keys, &current, key, now),
            false => Err(CaError::Crowded),
        })
        .await;
    certificate(server, peer, &asker, "renewal", outcome)
}

fn certificate(
    server: &Server,
    peer: &Peer,
    asker: &Asker,
    by: &str,
    outcome: Result<Issued, CaError>,
) -> Result<Answer, Answer> {
    let address = peer.address;
    match outcome {
        Ok(issued) => {
            let identity = issued.summary.identity.as_ref();
            let identity = identity.map(ToString::to_string).unwrap_or_default();
            info!(%address, serial = %issued.summary.serial, "issued {identity} (by {by})");
            let message = est::certs_only(&[&issued.bundle.leaf]).map_err(|e| internal(&e))?;
            Ok(est_answer(est::CERTS_ONLY, &message))
        }
        Err(refusal) if refusal.is_refusal() => {
            server.limits().failed(asker);
            warn!(%address, "refused {asker} (by {by}): {refusal}");
            let status = match refusal {
                CaError::TokenUnknown => StatusCode::UNAUTHORIZED,
                CaError::Request(_) | CaError::KeyKind { .. } => StatusCode::BAD_REQUEST,
                _ => StatusCode::FORBIDDEN,
            };
            Err(Answer::refusal(status, &refusal.to_string()))
        }
        Err(crowded @ CaError::Crowded) => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            Err(Answer::refusal(status, &crowded.to_string()).with(header::RETRY_AFTER, "60"))
        }
        Err(error) => Err(internal(&error)),
    }
}

fn internal(error: &dyn std::fmt::Display) -> Answer {
    error!("{error}");
    let text = "the CA can't do this now: its log says why";
    Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
}
