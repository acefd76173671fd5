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

    /// Closes in good order: the collector has read all when it says that it closes as well.
    /// One that just goes away may have read nothing of it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.0.conn.send_close_notify();
        self.0.flush()?;
        let mut ignored = [0; 1024];
        while self.0.read(&mut ignored)? > 0 {}
        Ok(())
    }
}
