//! Requests and answers: EST (RFC 7030, RFC 8951), the trust list, CRL files.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::est;
use fieldlock_pki::{Crl, Identity, Name, Role, Secret, TrustList};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::timeout;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::Server;
use super::limit::Asker;
use crate::authority::Issued;
use crate::enrolment::Credentials;
use crate::error::CaError;
use crate::event::Refusal;

const BODY: Duration = Duration::from_secs(10);
/// Longest wait of a long poll; a headend's splice bears 90 s of silence.
const MAX_WAIT: Duration = Duration::from_secs(60);
const TEXT: &str = "text/plain; charset=utf-8";
/// RFC 7030, section 4.
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

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
    check_request(&request)?;
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
            let credentials = match credentials(request.headers()) {
                Ok(credentials) => credentials,
                Err(wrong) => return Err(unauthorized(server, peer, wrong).await),
            };
            check_body(request.headers())?;
            enroll(server, peer, credentials, request).await
        }
        "simplereenroll" => {
            only(&request, &Method::POST)?;
            let Some(current) = peer.certificate.clone() else {
                // Not 401: nothing that HTTP could carry would help.
                let text = "show the certificate that is to be renewed, as TLS client certificate";
                let refusal = Refusal::of("renewal asked for without a certificate".to_owned());
                server.refuse_stranger(peer.address, refusal).await;
                return Err(Answer::refusal(StatusCode::FORBIDDEN, text));
            };
            check_body(request.headers())?;
            reenroll(server, peer, current, request).await
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

/// Where there is GET there is HEAD; hyper leaves out the body.
fn only(request: &Request<Incoming>, method: &Method) -> Result<(), Answer> {
    let head = method == Method::GET && request.method() == Method::HEAD;
    if request.method() == method || head {
        return Ok(());
    }
    let text = format!("use {method} here");
    let refusal = Answer::refusal(StatusCode::METHOD_NOT_ALLOWED, &text);
    let allowed = match *method == Method::GET {
        true => "GET, HEAD",
        false => method.as_str(),
    };
    Err(refusal.with(header::ALLOW, allowed))
}

/// What every request has to keep to (RFC 9112, sections 3.2 and 6.1; RFC 9110, section 10.1.1).
fn check_request(request: &Request<Incoming>) -> Result<(), Answer> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let one = match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
    };
    if !one {
        let text = "send one `Host` header: the name or address of this server, and its port";
        return Err(Answer::refusal(StatusCode::BAD_REQUEST, text));
    }
    if has_other(headers, header::TRANSFER_ENCODING, "chunked") {
        let text = "no transfer coding but chunked is known here";
        return Err(Answer::refusal(StatusCode::NOT_IMPLEMENTED, text));
    }
    if has_other(headers, header::EXPECT, "100-continue") {
        let text = "nothing can be expected here but `100-continue`";
        return Err(Answer::refusal(StatusCode::EXPECTATION_FAILED, text));
    }
    Ok(())
}

fn is_host(host: &HeaderValue) -> bool {
    let host = host.to_str().unwrap_or("@");
    host.is_empty() || (!host.contains('@') && host.parse::<Authority>().is_ok())
}

/// Whether a header has a value beside `known`, which it need not have.
fn has_other(headers: &HeaderMap, name: HeaderName, known: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| !value.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
}

/// What can be said of a request's body before it is there.
fn check_body(headers: &HeaderMap) -> Result<(), Answer> {
    let unsupported = |text| Answer::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(est::PKCS10) {
        let text = "send a base64 PKCS #10 request with `Content-Type: application/pkcs10`";
        return Err(unsupported(text));
    }
    if has_other(headers, header::CONTENT_ENCODING, "identity") {
        let text = "send the request as it is, without `Content-Encoding`";
        return Err(unsupported(text).with(header::ACCEPT_ENCODING, "identity"));
    }
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > est::MAX_BODY as u64 => Err(too_long()),
        _ => Ok(()),
    }
}

fn too_long() -> Answer {
    let text = "the request is longer than 64 KiB";
    Answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// RFC 8951 has made the transfer encoding meaningless; clients of before want to see it.
fn est_answer(kind: &'static str, der: &[u8]) -> Answer {
    Answer::new(kind, est::encode(der)).with(TRANSFER_ENCODING, "base64")
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

/// Every 401 says how to do better (RFC 9110, section 15.5.2).
fn challenge(text: &str) -> Answer {
    Answer::refusal(StatusCode::UNAUTHORIZED, text)
        .with(header::WWW_AUTHENTICATE, "Basic realm=\"fieldlock\"")
}

/// Why a request carries no credentials.
enum NoCredentials {
    /// Many clients ask without first.
    Missing,
    Malformed,
}

async fn unauthorized(server: &Arc<Server>, peer: &Peer, why: NoCredentials) -> Answer {
    let shape = "authenticate with HTTP Basic: user ROLE/NAME, password the secret of a token of `fieldlock ca token`";
    if matches!(why, NoCredentials::Malformed) {
        let reason = "its credentials are not HTTP Basic with user ROLE/NAME and a token's secret";
        let refusal = Refusal::of(reason.to_owned());
        server.refuse_stranger(peer.address, refusal).await;
    }
    challenge(shape)
}

/// HTTP Basic: user `ROLE/NAME`, password the token's secret.
fn credentials(headers: &HeaderMap) -> Result<Credentials, NoCredentials> {
    let wrong = || NoCredentials::Malformed;
    let value = headers.get(header::AUTHORIZATION);
    let value = value.ok_or(NoCredentials::Missing)?;
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

/// The key of a request whose sender was judged already: what is wrong with it is on record as his.
async fn requested_key(
    server: &Arc<Server>,
    peer: &Peer,
    (role, name): (Role, &Name),
    request: Request<Incoming>,
) -> Result<PublicKey, Answer> {
    let wrong = match read_key(request).await {
        Ok(key) => return Ok(key),
        Err(wrong) => wrong,
    };
    let asker = Asker::Identity(role, name.clone());
    let room = server.limits().may_renew(asker.clone(), Instant::now());
    if room {
        let address = peer.address;
        let reason = String::from_utf8_lossy(&wrong.body).trim_end().to_owned();
        warn!(%address, "refused {asker}: {reason}");
        server.limits().failed(&asker);
        let refusal = Refusal {
            role: Some(role),
            name: Some(name.clone()),
            address: Some(address),
            ..Refusal::of(reason)
        };
        server.put_on_record(refusal).await;
    }
    Err(wrong)
}

async fn read_key(request: Request<Incoming>) -> Result<PublicKey, Answer> {
    let body = Limited::new(request.into_body(), est::MAX_BODY).collect();
    let body = match timeout(BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(too_long());
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
    let bad = |text: String| {
        let text = format!("the request is refused: {text}");
        Answer::refusal(StatusCode::BAD_REQUEST, &text)
    };
    let der = est::decode(&body).map_err(|error| bad(error.to_string()))?;
    PublicKey::from_request_der(&der).map_err(|error| bad(error.to_string()))
}

async fn enroll(
    server: &Arc<Server>,
    peer: &Peer,
    credentials: Credentials,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    let (role, name) = (credentials.role, credentials.name.clone());
    let asker = Asker::Identity(role, name.clone());
    let room = |asker: &Asker| server.limits().may_fail(asker.clone(), Instant::now());
    let credentials = Arc::new(credentials);
    // Nobody's body is waited for who has no token.
    let (shown, has_room) = (credentials.clone(), room(&asker));
    let judged = server
        .with_ca(move |ca, _, now| {
            // Who guesses can't keep those out who have a token.
            if !has_room && !ca.has_token(&shown, None, now)? {
                return Err(CaError::Crowded);
            }
            ca.judge_token(&shown, now)
        })
        .await;
    judged.map_err(|error| refused(server, peer, &asker, "a token", &error))?;
    let key = requested_key(server, peer, (role, &name), request).await?;
    let has_room = room(&asker);
    let outcome = server
        .with_ca(move |ca, keys, now| {
            if !has_room && !ca.has_token(&credentials, Some(&key), now)? {
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
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    // The handshake has proven who it is: nobody else can use up its turns.
    let identity = Identity::from_certificate(&current).map_err(|error| internal(&error))?;
    let asker = Asker::Identity(identity.role, identity.name.clone());
    let shown = current.clone();
    let room = server.limits().may_renew(asker.clone(), Instant::now());
    let judged = match room {
        true => {
            let judged = server.with_ca(move |ca, _, now| ca.judge_renewal(&shown, now));
            judged.await
        }
        false => Err(CaError::Crowded),
    };
    judged.map_err(|error| refused(server, peer, &asker, "renewal", &error))?;
    let of = (identity.role, &identity.name);
    let key = requested_key(server, peer, of, request).await?;
    let outcome = server
        .with_ca(move |ca, keys, now| ca.reenroll(keys, &current, key, now))
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
    match outcome {
        Ok(issued) => {
            let identity = issued.summary.identity.as_ref();
            let identity = identity.map(ToString::to_string).unwrap_or_default();
            let address = peer.address;
            info!(%address, serial = %issued.summary.serial, "issued {identity} (by {by})");
            let message = est::certs_only(&[&issued.bundle.leaf]).map_err(|e| internal(&e))?;
            Ok(est_answer(est::CERTS_ONLY, &message))
        }
        Err(error) => Err(refused(server, peer, asker, by, &error)),
    }
}

fn refused(server: &Server, peer: &Peer, asker: &Asker, by: &str, error: &CaError) -> Answer {
    let text = error.to_string();
    match error {
        refusal if refusal.is_refusal() => {
            let address = peer.address;
            server.limits().failed(asker);
            warn!(%address, "refused {asker} (by {by}): {refusal}");
            match refusal {
                CaError::TokenUnknown => challenge(&text),
                CaError::Request(_) | CaError::KeyKind { .. } | CaError::RsaKey { .. } => {
                    Answer::refusal(StatusCode::BAD_REQUEST, &text)
                }
                _ => Answer::refusal(StatusCode::FORBIDDEN, &text),
            }
        }
        CaError::Crowded => {
            let refusal = Answer::refusal(StatusCode::TOO_MANY_REQUESTS, &text);
            refusal.with(header::RETRY_AFTER, "60")
        }
        error => internal(error),
    }
}

fn internal(error: &dyn std::fmt::Display) -> Answer {
    error!("{error}");
    let text = "the CA can't do this now: its log says why";
    Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
}
