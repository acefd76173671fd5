//! A tunnel peer that does what a test tells it to: an edge that dials or a headend that
//! listens, with any certificate, that says anything.
//!
//! It verifies nothing, so that what refuses a connection is always the agent under test.

mod sessions;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_session::frame::{CONTROL, HEADER_LEN};
use fieldlock_session::{ALPN, DeviceOffer, Frame, Hello, VERSION};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, NamedGroup, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Transport;

pub use sessions::{Early, Returning, Sessions};

/// For one step of a peer; an agent under test gives up sooner.
const STEP: Duration = Duration::from_secs(10);
/// What a rogue calls any server that it dials.
const SERVER: &str = "rogue.example";

/// A certificate chain and its key.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Of a state directory as `enroll install` leaves it.
    pub fn installed(state: &Path) -> Self {
        Self::read(
            &state.join("identity/chain.pem"),
            &state.join("identity/key.pem"),
        )
    }

    /// Of a directory as `ca issue --out` leaves it. What else is in the bundle does no harm.
    pub fn issued(directory: &Path) -> Self {
        Self::read(&directory.join("bundle.pem"), &directory.join("key.pem"))
    }

    fn read(chain: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(chain).unwrap();
        Self {
            chain: chain.map(Result::unwrap).take(2).collect(),
            key: PrivateKeyDer::from_pem_file(key).unwrap(),
        }
    }
}

/// What a rogue shows in the handshake.
#[derive(Debug)]
pub struct Face {
    pub credentials: Option<Credentials>,
    pub alpn: Vec<Vec<u8>>,
    /// The only key exchange group it knows; all that rustls knows otherwise.
    pub group: Option<NamedGroup>,
}

impl Face {
    /// The right ALPN and this certificate.
    pub fn of(credentials: Credentials) -> Self {
        Self {
            credentials: Some(credentials),
            alpn: vec![ALPN.to_vec()],
            group: None,
        }
    }
}

/// One connection of a rogue. Channel 0 is control, 1 the first device.
pub struct Rogue {
    // Before the runtime: its streams end while their driver still runs.
    control: Stream,
    device: Option<Stream>,
    connection: Option<quinn::Connection>,
    _endpoint: Option<quinn::Endpoint>,
    runtime: Arc<Runtime>,
}

impl fmt::Debug for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rogue").finish_non_exhaustive()
    }
}

struct Stream {
    send: Box<dyn AsyncWrite + Send + Unpin>,
    recv: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(
        send: impl AsyncWrite + Send + Unpin + 'static,
        recv: impl AsyncRead + Send + Unpin + 'static,
    ) -> Self {
        Self {
            send: Box::new(send),
            recv: Box::new(recv),
            buffer: Vec::new(),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = async {
            self.send.write_all(bytes).await?;
            self.send.flush().await
        };
        written.await.map_err(|error| error.to_string())
    }

    /// The octets of the next frame, header included.
    async fn frame(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(length) = whole(&self.buffer) {
                return Ok(self.buffer.drain(..length).collect());
            }
            let read = self.recv.read_buf(&mut self.buffer).await;
            match read.map_err(|error| error.to_string())? {
                0 => return Err("the other side closed".into()),
                _ => continue,
            }
        }
    }
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let length = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    let whole = HEADER_LEN - 1 + usize::from(length);
    (bytes.len() >= whole).then_some(whole)
}

impl Rogue {
    /// Dials a headend. The handshake may succeed here and be refused there (TLS 1.3).
    pub fn dial(transport: Transport, address: SocketAddr, face: Face) -> Result<Self, String> {
        Self::dial_as(transport, address, client_config(face))
    }

    fn dial_as(
        transport: Transport,
        address: SocketAddr,
        config: ClientConfig,
    ) -> Result<Self, String> {
        let runtime = runtime();
        let dialled = async {
            match transport {
                Transport::Tls => dial_tls(address, config).await,
                _ => dial_quic(address, config).await,
            }
        };
        let (control, connection, endpoint) = runtime.block_on(limited(dialled))?;
        Ok(Self {
            control,
            device: None,
            connection,
            _endpoint: endpoint,
            runtime,
        })
    }

    /// Dials, says hello as an edge, is ready: a tunnel that the headend counts as up.
    pub fn edge(
        transport: Transport,
        address: SocketAddr,
        face: Face,
        devices: &[&str],
    ) -> Result<Self, String> {
        let (rogue, _) = Self::offer(transport, address, face, &hello(devices))?;
        Ok(rogue)
    }

    /// The same with a hello of one's own; the headend's comes back.
    pub fn offer(
        transport: Transport,
        address: SocketAddr,
        face: Face,
        offered: &Hello,
    ) -> Result<(Self, Hello), String> {
        let mut rogue = Self::dial(transport, address, face)?;
        let theirs = rogue.greet(offered)?;
        Ok((rogue, theirs))
    }

    /// Says hello as an edge and is ready; the headend's hello comes back.
    pub fn greet(&mut self, offered: &Hello) -> Result<Hello, String> {
        self.send(CONTROL, &Frame::Hello(&offered.encode()))?;
        let answer = self.receive(CONTROL)?;
        let theirs = match Frame::decode(&answer) {
            Ok(Some((CONTROL, Frame::Hello(theirs), _))) => Hello::decode(theirs),
            Ok(Some((_, Frame::Goodbye { code, text }, _))) => {
                let text = String::from_utf8_lossy(text);
                return Err(format!("goodbye {code}: {text}"));
            }
            other => return Err(format!("no hello: {other:?}")),
        };
        self.send(CONTROL, &Frame::Ready)?;
        theirs.map_err(|error| error.to_string())
    }

    /// So many octets of the first stream, whatever they are.
    pub fn octets(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let control = &mut self.control;
        self.runtime.block_on(limited(async {
            while control.buffer.len() < count {
                let read = control.recv.read_buf(&mut control.buffer).await;
                if read.map_err(|error| error.to_string())? == 0 {
                    return Err("the other side closed".into());
                }
            }
            Ok(control.buffer.drain(..count).collect())
        }))
    }

    pub fn send(&mut self, channel: u16, frame: &Frame<'_>) -> Result<(), String> {
        let mut bytes = Vec::new();
        frame.encode(channel, &mut bytes);
        self.send_bytes(channel, &bytes)
    }

    /// Sends octets as they are, on the stream that carries `channel`.
    pub fn send_bytes(&mut self, channel: u16, bytes: &[u8]) -> Result<(), String> {
        let runtime = self.runtime.clone();
        runtime.block_on(limited(self.stream(channel).write(bytes)))
    }

    /// The next frame on the stream that carries `channel`; pings are answered and left out.
    pub fn receive(&mut self, channel: u16) -> Result<Vec<u8>, String> {
        self.receive_within(channel, STEP)
    }

    pub fn receive_within(&mut self, channel: u16, within: Duration) -> Result<Vec<u8>, String> {
        let runtime = self.runtime.clone();
        let stream = self.stream(channel);
        runtime.block_on(async {
            let next = async {
                loop {
                    let frame = stream.frame().await?;
                    let Ok(Some((CONTROL, Frame::Ping(token), _))) = Frame::decode(&frame) else {
                        return Ok(frame);
                    };
                    let mut pong = Vec::new();
                    Frame::Pong(token).encode(CONTROL, &mut pong);
                    stream.write(&pong).await?;
                }
            };
            let late = || format!("no frame within {within:?}");
            timeout(within, next).await.map_err(|_| late())?
        })
    }

    /// Waits for the other side to close; frames before that are dropped.
    pub fn wait_close(&mut self, within: Duration) -> Result<(), String> {
        let runtime = self.runtime.clone();
        let connection = self.connection.clone();
        let control = &mut self.control;
        runtime.block_on(async {
            let closed = async {
                if let Some(connection) = connection {
                    connection.closed().await;
                } else {
                    while control.frame().await.is_ok() {}
                }
            };
            let open = || format!("still open after {within:?}");
            timeout(within, closed).await.map_err(|_| open())
        })
    }

    /// On QUIC, opens the stream of device channel 1, as a headend does.
    pub fn open_device(&mut self) -> Result<(), String> {
        let Some(connection) = self.connection.clone() else {
            return Ok(());
        };
        let opened = self.runtime.block_on(limited(async {
            let opened = connection.open_bi().await;
            opened.map_err(|error| error.to_string())
        }));
        let (send, recv) = opened?;
        self.device = Some(Stream::new(send, recv));
        Ok(())
    }

    /// On QUIC, accepts the stream of device channel 1, as an edge does. It appears with the
    /// headend's first request.
    pub fn accept_device(&mut self) -> Result<(), String> {
        let Some(connection) = self.connection.clone() else {
            return Ok(());
        };
        let accepted = self.runtime.block_on(limited(async {
            let accepted = connection.accept_bi().await;
            accepted.map_err(|error| error.to_string())
        }));
        let (send, recv) = accepted?;
        self.device = Some(Stream::new(send, recv));
        Ok(())
    }

    fn stream(&mut self, channel: u16) -> &mut Stream {
        match &mut self.device {
            Some(device) if channel != CONTROL => device,
            _ => &mut self.control,
        }
    }
}

/// A headend that accepts whom it likes.
#[derive(Debug)]
pub struct RogueHeadend {
    pub address: SocketAddr,
    door: Door,
    runtime: Arc<Runtime>,
}

enum Door {
    Tls(TcpListener, TlsAcceptor),
    Quic(quinn::Endpoint),
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl RogueHeadend {
    pub fn listen(transport: Transport, face: Face) -> Self {
        Self::listen_as(transport, server_config(face))
    }

    fn listen_as(transport: Transport, config: ServerConfig) -> Self {
        let runtime = runtime();
        let (address, door) = runtime.block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            match transport {
                Transport::Tls => {
                    let listener = TcpListener::bind(any).await.unwrap();
                    let acceptor = TlsAcceptor::from(Arc::new(config));
                    (
                        listener.local_addr().unwrap(),
                        Door::Tls(listener, acceptor),
                    )
                }
                _ => {
                    let crypto = QuicServerConfig::try_from(config).unwrap();
                    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
                    let endpoint = quinn::Endpoint::server(config, any).unwrap();
                    (endpoint.local_addr().unwrap(), Door::Quic(endpoint))
                }
            }
        });
        Self {
            address,
            door,
            runtime,
        }
    }

    /// The next edge that completes the handshake and opens its control channel.
    pub fn accept(&self) -> Result<Rogue, String> {
        let accepted = async {
            let text = |error: &dyn fmt::Display| error.to_string();
            match &self.door {
                Door::Tls(listener, acceptor) => {
                    let (stream, _) = listener.accept().await.map_err(|e| text(&e))?;
                    let stream = acceptor.accept(stream).await.map_err(|e| text(&e))?;
                    let (recv, send) = tokio::io::split(stream);
                    Ok((Stream::new(send, recv), None))
                }
                Door::Quic(endpoint) => {
                    let incoming = endpoint.accept().await.ok_or("endpoint closed")?;
                    let connection = incoming.await.map_err(|e| text(&e))?;
                    let (send, recv) = connection.accept_bi().await.map_err(|e| text(&e))?;
                    Ok((Stream::new(send, recv), Some(connection)))
                }
            }
        };
        let (control, connection) = self.runtime.block_on(limited(accepted))?;
        Ok(Rogue {
            control,
            device: None,
            connection,
            _endpoint: None,
            runtime: self.runtime.clone(),
        })
    }

    /// Accepts an edge and exchanges hellos: a tunnel that the edge counts as up.
    pub fn tunnel(&self) -> Result<Rogue, String> {
        self.answer(&hello(&[]))
    }

    /// The same with a hello of one's own.
    pub fn answer(&self, own: &Hello) -> Result<Rogue, String> {
        let mut rogue = self.accept()?;
        rogue.receive(CONTROL)?;
        rogue.send(CONTROL, &Frame::Hello(&own.encode()))?;
        rogue.receive(CONTROL)?;
        rogue.open_device()?;
        Ok(rogue)
    }
}

/// A hello of an edge that offers these devices, or with none of a headend.
pub fn hello(devices: &[&str]) -> Hello {
    let offer = |name: &&str| DeviceOffer {
        name: (*name).to_owned(),
        credit: 16,
        answer_within: 1000,
        quirks: 0,
    };
    Hello {
        version: VERSION,
        agent_version: "rogue".into(),
        instance: [0x5A; 16],
        policy: [0; 32],
        trust: None,
        bundle: Some(0),
        tunnel: 0,
        devices: devices.iter().map(offer).collect(),
        stations: Vec::new(),
        cyclic: None,
    }
}

async fn limited<T>(step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(STEP, step).await {
        Ok(done) => done,
        Err(_) => Err(format!("nothing within {STEP:?}")),
    }
}

fn runtime() -> Arc<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    Arc::new(runtime.unwrap())
}

type Dialled = (Stream, Option<quinn::Connection>, Option<quinn::Endpoint>);

async fn dial_tls(address: SocketAddr, config: ClientConfig) -> Result<Dialled, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(SERVER).unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = connected.await.map_err(|error| error.to_string())?;
    let (recv, send) = tokio::io::split(stream);
    Ok((Stream::new(send, recv), None, None))
}

async fn dial_quic(address: SocketAddr, config: ClientConfig) -> Result<Dialled, String> {
    let (endpoint, connecting) = connecting(address, config)?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let (send, recv) = connection.open_bi().await.map_err(|e| e.to_string())?;
    Ok((Stream::new(send, recv), Some(connection), Some(endpoint)))
}

fn connecting(
    address: SocketAddr,
    config: ClientConfig,
) -> Result<(quinn::Endpoint, quinn::Connecting), String> {
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let crypto = QuicClientConfig::try_from(config).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(300)));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint.connect_with(config, address, SERVER);
    let connecting = connecting.map_err(|error| error.to_string())?;
    Ok((endpoint, connecting))
}

fn provider(group: Option<NamedGroup>) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(group) = group {
        provider.kx_groups.retain(|known| known.name() == group);
    }
    Arc::new(provider)
}

fn client_config(face: Face) -> ClientConfig {
    let provider = provider(face.group);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match face.credentials {
        Some(Credentials { chain, key }) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = face.alpn;
    config
}

fn server_config(face: Face) -> ServerConfig {
    let Credentials { chain, key } = face.credentials.expect("a headend shows a certificate");
    let provider = provider(face.group);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = face.alpn;
    config
}

/// Takes any server for what it says it is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
