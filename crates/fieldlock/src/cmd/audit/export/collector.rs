//! A collector that takes syslog over TLS.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// To connect, and for any one read or write.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Collector {
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
    /// `files`: the CAs to trust, the certificate to show and its key.
    pub(super) fn new(
        address: &str,
        files: (Option<&Path>, Option<&Path>, Option<&Path>),
    ) -> io::Result<Self> {
        let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        let host = address.rsplit_once(':').map(|(host, _)| host);
        let host = host.map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
        let name = name.ok_or_else(|| wrong(format!("--to {address}: not HOST:PORT")))?;
        let mut roots = RootCertStore::empty();
        for root in files.0.map(certificates).transpose()?.into_iter().flatten() {
            let added = roots.add(root);
            added.map_err(|error| wrong(format!("--ca: {error}")))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match (files.1, files.2) {
            (Some(chain), Some(key)) => {
                let der = PrivateKeyDer::from_pem_slice(&read(key)?);
                let der = der.map_err(|_| wrong(format!("{}: no private key", key.display())))?;
                config
                    .with_client_auth_cert(certificates(chain)?, der)
                    .map_err(|error| wrong(format!("{}: {error}", chain.display())))?
            }
            _ => config.with_no_client_auth(),
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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: {error}", path.display()),
        )
    })
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: no certificate (PEM)", path.display()),
        )
    })
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
