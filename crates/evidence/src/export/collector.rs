//! A collector that takes syslog over TLS.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// To connect, and for any one read or write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where it is and whom to take for it.
#[derive(Debug)]
pub struct Collector {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Collector {
    /// At `address`, `HOST:PORT`, with a certificate from one of the CAs in the file `roots`; it is
    /// shown the certificate chain and key of the files `own`.
    ///
    /// # Errors
    /// The address or a file is not what it has to be.
    pub fn new(
        address: &str,
        roots: Option<&Path>,
        own: Option<(&Path, &Path)>,
    ) -> Result<Self, CollectorError> {
        let host = address.rsplit_once(':').map(|(host, _)| host);
        let host = host.map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
        let name = name.ok_or_else(|| CollectorError::Address {
            address: address.to_owned(),
        })?;
        let mut store = RootCertStore::empty();
        for root in roots.map(certificates).transpose()?.into_iter().flatten() {
            store.add(root).map_err(CollectorError::Root)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CollectorError::Tls)?
            .with_root_certificates(store);
        let config = match own {
            Some((chain, key)) => {
                let der = PrivateKeyDer::from_pem_slice(&read(key)?);
                let der = der.map_err(|_| CollectorError::NoKey {
                    path: key.to_owned(),
                })?;
                config
                    .with_client_auth_cert(certificates(chain)?, der)
                    .map_err(|error| CollectorError::Own {
                        path: chain.to_owned(),
                        error,
                    })?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self {
            address: address.to_owned(),
            name,
            config: Arc::new(config),
        })
    }

    pub(super) fn connect(&self) -> io::Result<Connection> {
        let mut failure = io::Error::other("the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return self.handshake(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn handshake(&self, mut tcp: TcpStream) -> io::Result<Connection> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Connection(StreamOwned::new(tls, tcp)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CollectorError> {
    fs::read(path).map_err(|source| CollectorError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CollectorError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| CollectorError::NoCertificate {
        path: path.to_owned(),
    })
}

/// Why a collector can't be tried.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    #[error("--to {address}: not HOST:PORT")]
    Address { address: String },
    #[error("{path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: no certificate (PEM)", path = .path.display())]
    NoCertificate { path: PathBuf },
    #[error("--ca: {0}")]
    Root(rustls::Error),
    #[error("{path}: no private key", path = .path.display())]
    NoKey { path: PathBuf },
    /// The certificate to show is not one that TLS can use, or not that key's.
    #[error("{path}: {error}", path = .path.display())]
    Own { path: PathBuf, error: rustls::Error },
    /// Not the arguments' fault.
    #[error(transparent)]
    Tls(rustls::Error),
}

pub(super) struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    pub(super) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.write_all(octets)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    /// Closes in good order, and waits for the collector to close as well.
    pub(super) fn finish(mut self) -> io::Result<Ending> {
        self.0.flush()?;
        self.check_open()?;
        self.0.conn.send_close_notify();
        self.0.flush()?;
        let mut ignored = [0; 1024];
        loop {
            match self.0.read(&mut ignored) {
                Ok(0) => return Ok(Ending::Confirmed),
                Ok(_) => {}
                // Without TLS's word, but not with a reset, as where there was more to read.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Ending::Silent);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One that has closed by itself did so without having read all.
    fn check_open(&mut self) -> io::Result<()> {
        let (tls, tcp) = (&mut self.0.conn, &mut self.0.sock);
        tcp.set_nonblocking(true)?;
        let came = loop {
            match tls.read_tls(tcp) {
                Ok(0) => break Ok(true),
                Ok(_) => match tls.process_new_packets() {
                    Ok(state) if state.peer_has_closed() => break Ok(true),
                    Ok(_) => {}
                    Err(error) => break Err(io::Error::other(error)),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        tcp.set_nonblocking(false)?;
        match came? {
            true => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the collector closed the connection",
            )),
            false => Ok(()),
        }
    }
}

/// What a collector did when the connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It closed as well, by TLS's close_notify: it has read all.
    Confirmed,
    /// It went away without: it may have read all, or have been ended in the middle of it.
    Silent,
}
