//! A client of `ca serve`: EST (RFC 7030) and the trust list. One request on each connection,
//! bounded in time and size; redirects are not followed.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fieldlock_pki::bundle::Bundle;
use fieldlock_pki::est::{self, EstError};
use fieldlock_pki::store::{self, Installed};
use fieldlock_pki::{Identity, Name, Role, Secret, Summary, TrustList, TrustListError, csr};
use fieldlock_tls::words;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use crate::clock::AgentClock;
use crate::verify::{CaVerifier, Known};

const CONNECT: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// Where the CA is, and how it is recognised.
pub struct Client {
    addresses: Vec<String>,
    config: Arc<ClientConfig>,
    clock: Arc<AgentClock>,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// A new certificate for a new key, not installed yet.
pub struct Renewed {
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// DER.
    pub leaf: Vec<u8>,
    /// The CA that signed it, DER.
    pub issuing: Vec<u8>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed(..)")
    }
}

/// A trust list, and the tag by which the CA knows that we have it.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub list: TrustList,
    pub etag: String,
}

impl Client {
    /// Knows nothing of the CA but the SHA-256 of its root's certificate.
    pub fn pinned(
        address: String,
        root: [u8; 32],
        clock: &Arc<AgentClock>,
    ) -> Result<Self, ClientError> {
        // The name is not known yet, and the pin says more than any name.
        let name = ServerName::try_from("ca.invalid").map_err(|_| ClientError::Name)?;
        let mut config = config(Known::Root(root), clock, None)?;
        config.enable_sni = false;
        Ok(Self {
            addresses: vec![address],
            config: Arc::new(config),
            clock: clock.clone(),
            name,
        })
    }

    /// Goes by the installed trust list. `addresses` are `HOST:PORT` and tried in turn; `ca` is
    /// the NAME in the CA's certificate. The installed certificate is shown.
    pub fn installed(
        addresses: Vec<String>,
        installed: &Installed,
        ca: &Name,
        clock: &Arc<AgentClock>,
    ) -> Result<Self, ClientError> {
        let expected = Identity {
            site: installed.identity.site.clone(),
            role: Role::Ca,
            name: ca.clone(),
        };
        let name = ServerName::try_from(expected.dns()).map_err(|_| ClientError::Name)?;
        let known = Known::List(installed.trust.clone(), expected);
        Ok(Self {
            addresses,
            config: Arc::new(config(known, clock, Some(installed))?),
            clock: clock.clone(),
            name,
        })
    }

    /// The certificate (DER) that a token is for. `request` is PEM.
    pub async fn enroll(
        &self,
        role: Role,
        name: &Name,
        secret: &Secret,
        request: &str,
    ) -> Result<Vec<u8>, ClientError> {
        let login = Zeroizing::new(format!("{role}/{name}:{}", *secret.to_text()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(login.as_bytes())));
        let mut authorization = HeaderValue::from_str(&basic).map_err(|_| ClientError::Name)?;
        authorization.set_sensitive(true);
        self.ask("simpleenroll", request, Some(authorization)).await
    }

    /// A certificate for a new key, of the identity that is installed.
    pub async fn reenroll(&self, installed: &Installed) -> Result<Renewed, ClientError> {
        let key = KeyPair::generate().map_err(ClientError::Key)?;
        let identity = &installed.identity;
        let request =
            csr::request(&key, identity.role, &identity.name).map_err(ClientError::Key)?;
        let leaf = self.ask("simplereenroll", &request, None).await?;
        let bundle = Bundle {
            leaf,
            trust: installed.trust.clone(),
        };
        let proof = bundle
            .verify()
            .map_err(|error| ClientError::Unfit(error.to_string()))?;
        if proof.identity != *identity || !store::key_fits(key.serialized_der(), &bundle.leaf) {
            let text = "it is for another key or identity".to_owned();
            return Err(ClientError::Unfit(text));
        }
        Ok(Renewed {
            key_pem: Zeroizing::new(key.serialize_pem()),
            leaf: bundle.leaf,
            issuing: proof.issuing,
        })
    }

    /// The CA's trust list, or `None` if it is still the one with `etag` after `wait`.
    pub async fn trust(
        &self,
        etag: Option<&str>,
        wait: Duration,
    ) -> Result<Option<Fetched>, ClientError> {
        let mut request = request(Method::GET, est::TRUST_PATH.to_owned(), Bytes::new());
        let headers = request.headers_mut();
        if let Some(Ok(tag)) = etag.map(HeaderValue::from_str) {
            headers.insert(header::IF_NONE_MATCH, tag);
            let prefer = format!("wait={}", wait.as_secs());
            if let Ok(prefer) = HeaderValue::from_str(&prefer) {
                headers.insert("prefer", prefer);
            }
        }
        let answer = self.exchange(request, Bundle::MAX_PEM, wait).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let answer = answer.check()?;
        let etag = answer.headers.get(header::ETAG);
        let etag = etag.and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let pem = std::str::from_utf8(&answer.body).map_err(|_| EstError::NotCertificates)?;
        Ok(Some(Fetched {
            list: TrustList::parse(pem)?,
            etag: etag.to_owned(),
        }))
    }

    async fn ask(
        &self,
        operation: &str,
        csr_pem: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Vec<u8>, ClientError> {
        let der = pem::parse(csr_pem).map_err(|_| EstError::NotCertificates)?;
        let body = Bytes::from(est::encode(der.contents()));
        let path = format!("{}{operation}", est::PATH);
        let mut request = request(Method::POST, path, body);
        let headers = request.headers_mut();
        let pkcs10 = HeaderValue::from_static(est::PKCS10);
        headers.insert(header::CONTENT_TYPE, pkcs10);
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let answer = self
            .exchange(request, est::MAX_BODY, Duration::ZERO)
            .await?;
        let message = est::decode(&answer.check()?.body)?;
        let key = csr::PublicKey::from_request_der(der.contents());
        let key = key.map_err(|error| ClientError::Unfit(error.to_string()))?;
        certificate_of(&key, est::parse_certs_only(&message)?)
    }

    /// Sends a request once; another address is tried only while nothing was sent.
    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        limit: usize,
        wait: Duration,
    ) -> Result<Answer, ClientError> {
        let (address, stream) = self.connect().await?;
        if let Ok(host) = HeaderValue::from_str(&address) {
            request.headers_mut().insert(header::HOST, host);
        }
        let lost = |error: hyper::Error| ClientError::Lost(error.to_string());
        let exchange = async {
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
            let answer = async {
                let response = sender.send_request(request).await.map_err(lost)?;
                let (head, body) = response.into_parts();
                let body = Limited::new(body, limit).collect().await;
                let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                    true => ClientError::TooLong { limit },
                    false => ClientError::Lost(error.to_string()),
                })?;
                Ok::<_, ClientError>(Answer {
                    status: head.status,
                    headers: head.headers,
                    body: body.to_bytes(),
                })
            };
            let mut answer = std::pin::pin!(answer);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                answer = &mut answer => answer,
                // The connection may end before its last octets have been looked at.
                _ = &mut connection => answer.await,
            }
        };
        let answer = match timeout(ANSWER + wait, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(ClientError::Lost("no answer in time".to_owned())),
        };
        // The CA has the last word on the time: it dates what it signs.
        if let Some(date) = answer.date() {
            self.clock.witness(date);
        }
        Ok(answer)
    }

    async fn connect(&self) -> Result<(String, TlsStream<TcpStream>), ClientError> {
        let mut tried = Vec::new();
        for address in &self.addresses {
            match self.connect_to(address).await {
                Ok(stream) => return Ok((address.clone(), stream)),
                Err(error) => tried.push(format!("{address}: {}", reason(&error))),
            }
        }
        Err(ClientError::Unreachable {
            tried: tried.join("; "),
        })
    }

    async fn connect_to(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let stream = timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| late())??;
        let connector = TlsConnector::from(self.config.clone());
        timeout(HANDSHAKE, connector.connect(self.name.clone(), stream))
            .await
            .map_err(|_| late())?
    }
}

/// The certificate for `key`. A server may send its CAs too, and they are a SET, sorted by their
/// octets (RFC 5652, section 10.2.3): the order says nothing.
fn certificate_of(
    key: &csr::PublicKey,
    certificates: Vec<Vec<u8>>,
) -> Result<Vec<u8>, ClientError> {
    let fits = |der: &Vec<u8>| Summary::of(der).is_ok_and(|shown| shown.key_hash == key.hash());
    let found: Vec<_> = certificates.into_iter().filter(fits).collect();
    <[Vec<u8>; 1]>::try_from(found)
        .map(|[leaf]| leaf)
        .map_err(|found| {
            let text = format!(
                "{} certificates of the answer are for our key, expected one",
                found.len()
            );
            ClientError::Unfit(text)
        })
}

/// Why no connection to the CA came about. A headend that carries none says so by an alert before any
/// handshake.
fn reason(error: &std::io::Error) -> Cow<'static, str> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    let text = match (tls, error.kind()) {
        (Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)), _) => {
            "this headend passes nothing on to a CA: `[ca]` with the CA's `address` is missing in its \
             headend.toml"
        }
        (Some(rustls::Error::AlertReceived(AlertDescription::InternalError)), _) => {
            "this headend can't reach its CA: is `fieldlock ca serve` running, and is `address` under \
             `[ca]` in headend.toml right?"
        }
        (Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)), _) => {
            "this headend has as many connections to its CA as it may: try again in a minute"
        }
        (Some(rustls::Error::InvalidMessage(_)), _) => {
            "what answers there does not speak TLS: is the port that of a headend's tunnels, or of the \
             CA?"
        }
        (Some(_), _) => return words::io_error(error),
        (None, ErrorKind::ConnectionRefused) => {
            "nobody listens there: are address and port those of a headend's tunnels, or of the CA, \
             and does it run?"
        }
        (None, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            "the connection was closed without a word of TLS: is the port that of a headend's \
             tunnels, or of the CA?"
        }
        (None, ErrorKind::TimedOut) => {
            "no answer in time: is the address right, and does a firewall let it through?"
        }
        _ => return words::io_error(error),
    };
    text.into()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// When it was sent, seconds since 1970 (RFC 9110, section 6.6.1).
    fn date(&self) -> Option<i64> {
        let date = self.headers.get(header::DATE)?.to_str().ok()?;
        let since = httpdate::parse_http_date(date)
            .ok()?
            .duration_since(UNIX_EPOCH);
        i64::try_from(since.ok()?.as_secs()).ok()
    }

    fn check(self) -> Result<Self, ClientError> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text
            .chars()
            .filter(|character| !character.is_control())
            .take(300)
            .collect();
        Err(ClientError::Refused {
            status: self.status.as_u16(),
            text,
        })
    }
}

fn request(method: Method, path: String, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    // The path is one of ours and always parses.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

fn config(
    known: Known,
    clock: &Arc<AgentClock>,
    own: Option<&Installed>,
) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(CaVerifier {
        known,
        clock: clock.clone(),
        provider: provider.clone(),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => {
            let chain = own.chain.iter().cloned().map(CertificateDer::from);
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.key_der.to_vec()));
            builder.with_client_auth_cert(chain.collect(), key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Why the CA gave nothing.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("the CA can't be reached: {tried}")]
    Unreachable { tried: String },
    #[error("the CA refuses ({status}): {text}")]
    Refused { status: u16, text: String },
    #[error("the answer was lost ({0}): it is safe to ask again")]
    Lost(String),
    #[error("the answer is longer than {limit} octets")]
    TooLong { limit: usize },
    #[error("the CA's answer can't be read: {0}")]
    Est(#[from] EstError),
    #[error("the CA's trust list: {0}")]
    Trust(#[from] TrustListError),
    #[error("the CA's certificate is refused: {0}")]
    Unfit(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the key can't be used: {0}")]
    Key(rcgen::Error),
    #[error("a name is not one that TLS can carry")]
    Name,
}

#[cfg(test)]
mod tests {
    use fieldlock_pki::issue::{Authority, Validity};

    use super::*;

    #[test]
    fn the_leaf_is_found_by_its_key_wherever_it_stands() {
        let validity = Validity {
            not_before: 1_700_000_000,
            not_after: 1_900_000_000,
        };
        let site = "plant1.example".parse().unwrap();
        let serial = "41".parse().unwrap();
        let ca = || {
            let key = Box::new(KeyPair::generate().unwrap());
            Authority::root(&site, "1", key, &serial, validity).unwrap()
        };
        let own = KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::default()
            .self_signed(&own)
            .unwrap();
        let leaf = leaf.der().to_vec();
        let key = csr::PublicKey::of(&own).unwrap();
        let other = ca().certificate().to_vec();
        for sent in [
            vec![leaf.clone()],
            vec![leaf.clone(), other.clone()],
            vec![other.clone(), leaf.clone()],
        ] {
            assert_eq!(certificate_of(&key, sent).unwrap(), leaf);
        }
        for sent in [vec![], vec![other], vec![leaf.clone(), leaf]] {
            let refused = certificate_of(&key, sent);
            assert!(matches!(refused, Err(ClientError::Unfit(_))));
        }
    }
}
