//! What a stranger sends to the port of a headend's tunnels before there is any proof of who it
//! is: records of TLS, and datagrams of QUIC. The libraries that read them are configured as the
//! headend has them.

use std::sync::{Arc, OnceLock};

use fieldlock_session::{ALPN, CYCLIC_ALPN};
use fieldlock_transport::client_hello::{self as hello, Wanted};
use rcgen::KeyPair;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::input::pieces;
use crate::wire::Wire;

/// What a server may have to say at most: its certificates and an alert.
const MOST_SAID: usize = 8 * 1024;
/// Octets of a hello that are kept, and those of the read that is one too many.
const MOST_READ: usize = 32 * 1024;

/// The first octets of a TCP connection, in pieces: nobody gets through a handshake without a
/// certificate, nor has the server send without bound.
///
/// And where it goes is said by what it asks for: to the CA goes every octet, and no answer of ours.
pub fn client_hello(data: &[u8]) {
    destination(data);
    let (_, pieces) = pieces(data);
    let mut acceptor = Acceptor::default();
    let mut accepted: Option<ServerConnection> = None;
    let mut said = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            let Some(connection) = &mut accepted else {
                if acceptor.read_tls(&mut piece).is_err() {
                    return;
                }
                match acceptor.accept() {
                    Ok(None) => continue,
                    Err((error, _)) => return assert!(!error.to_string().is_empty()),
                    Ok(Some(hello)) => {
                        let names = hello.client_hello().alpn().map(Iterator::count);
                        assert!(names.is_none_or(|names| names <= data.len()));
                        match hello.into_connection(server_config()) {
                            Ok(connection) => accepted = Some(connection),
                            Err((error, _)) => return assert!(!error.to_string().is_empty()),
                        }
                        continue;
                    }
                }
            };
            let read = connection.read_tls(&mut piece).is_ok();
            let going_on = read && connection.process_new_packets().is_ok();
            let mut out = Vec::new();
            while connection.wants_write() && connection.write_tls(&mut out).is_ok() {}
            said += out.len();
            assert!(said <= MOST_SAID, "{said} octets");
            assert!(connection.is_handshaking());
            assert!(connection.peer_certificates().is_none());
            if !going_on {
                return;
            }
        }
    }
}

fn destination(data: &[u8]) {
    let (stream, pieces) = pieces(data);
    let wire = Wire::new(pieces.map(<[u8]>::to_vec), true);
    let (wanted, talk) = wire.clone().run(hello::read(wire.clone()));
    assert!(talk.taken <= MOST_READ, "{} octets read", talk.taken);
    assert!(talk.said.len() <= MOST_SAID, "{} said", talk.said.len());
    let asks_for = |name: &[u8]| {
        let mut acceptor = Acceptor::default();
        let mut rest = stream;
        while let Ok(1..) = acceptor.read_tls(&mut rest) {
            if let Ok(Some(accepted)) = acceptor.accept() {
                let hello = accepted.client_hello();
                return hello
                    .alpn()
                    .is_some_and(|mut alpn| alpn.any(|own| own == name));
            }
        }
        false
    };
    match wanted {
        Ok(Wanted::Authority(rest, read)) => {
            assert!(asks_for(b"http/1.1") && !asks_for(ALPN));
            assert_eq!(read.len(), talk.taken);
            assert_eq!([read, rest.unread()].concat(), stream);
            assert!(talk.said.is_empty(), "the CA answers");
        }
        Ok(Wanted::Cyclic(_)) => assert!(asks_for(CYCLIC_ALPN) && !asks_for(ALPN)),
        Ok(Wanted::Tunnel(_)) => {
            assert!(asks_for(ALPN) || !asks_for(CYCLIC_ALPN) && !asks_for(b"http/1.1"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// TLS as `fieldlock-transport` configures it for tunnels.
pub(crate) fn server_config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let key = KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["hd-1.example".to_owned()]).unwrap();
        let own = parameters.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(own.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(vec![own.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}
