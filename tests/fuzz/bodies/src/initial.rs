//! Datagrams of QUIC from addresses that have proven nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Incoming, ServerConfig,
    Transmit,
};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};
use rustls::{Side, SupportedCipherSuite};

use crate::handshake::server_config;
use crate::input::Input;

/// As few as possible, to get to the limit.
const MAX_INCOMING: usize = 4;
/// Octets, of one connection that was not accepted yet; and of all.
const INCOMING_EACH: u64 = 16 * 1024;
const INCOMING_ALL: u64 = 48 * 1024;
const MAX_OPERATIONS: usize = 64;
/// RFC 9000, section 14.1.
const SMALLEST_INITIAL: usize = 1200;
/// Three (RFC 9000, section 8.1), and of each connection one datagram: quinn finishes the one
/// that it has begun within the limit.
const MOST_ANSWERED: usize = 4;

/// Datagrams, some of them Initial packets that are protected as they should be, with frames of
/// the fuzzer's choice; connections are accepted, refused, sent a Retry. Strangers get no
/// more than four times what they sent, what waits is bounded, no handshake comes to its end.
pub fn quic_initial(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::new();
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        run.perform(&mut input);
        run.check();
    }
    for incoming in run.waiting.drain(..) {
        run.endpoint.ignore(incoming);
    }
}

struct Run {
    now: Instant,
    endpoint: Endpoint,
    waiting: Vec<Incoming>,
    connections: HashMap<ConnectionHandle, Connection>,
    /// Octets, of all addresses together: what quinn takes for a connection in its handshake it
    /// counts for that one's address, wherever it came from.
    received: usize,
    sent: usize,
}

impl Run {
    fn new() -> Self {
        static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
        let config = CONFIG.get_or_init(|| {
            let crypto = QuicServerConfig::try_from(server_config()).unwrap();
            let mut config = ServerConfig::with_crypto(Arc::new(crypto));
            config
                .max_incoming(MAX_INCOMING)
                .incoming_buffer_size(INCOMING_EACH)
                .incoming_buffer_size_total(INCOMING_ALL);
            Arc::new(config)
        });
        let of_all = Arc::new(EndpointConfig::default());
        Self {
            now: Instant::now(),
            endpoint: Endpoint::new(of_all, Some(config.clone()), false, Some([7; 32])),
            waiting: Vec::new(),
            connections: HashMap::new(),
            received: 0,
            sent: 0,
        }
    }

    fn perform(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        // Four addresses of a stranger.
        let from = SocketAddr::from(([192, 0, 2, 1 + (choice >> 6)], 4000));
        match choice & 0x0F {
            0..=2 => {
                let length = input.u16() % 1500;
                self.datagram(from, input.take(length.into()));
            }
            3..=8 => {
                let packet = initial(input);
                self.datagram(from, &packet);
            }
            9 | 10 => self.accept(),
            11 => {
                if let Some(incoming) = self.waiting.pop() {
                    let mut out = Vec::new();
                    let transmit = self.endpoint.refuse(incoming, &mut out);
                    self.note(&transmit);
                }
            }
            12 => self.retry(),
            _ => self.pass(Duration::from_millis(input.u16().into())),
        }
    }

    fn datagram(&mut self, from: SocketAddr, octets: &[u8]) {
        self.received += octets.len();
        let mut out = Vec::new();
        let event = self
            .endpoint
            .handle(self.now, from, None, None, octets.into(), &mut out);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => self.waiting.push(incoming),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.handle_event(event);
                    self.drive(handle);
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.note(&transmit),
            None => {}
        }
    }

    fn accept(&mut self) {
        let Some(incoming) = self.waiting.pop() else {
            return;
        };
        let mut out = Vec::new();
        match self.endpoint.accept(incoming, self.now, &mut out, None) {
            Ok((handle, connection)) => {
                self.connections.insert(handle, connection);
                self.drive(handle);
            }
            Err(error) => {
                if let Some(transmit) = &error.response {
                    self.note(transmit);
                }
            }
        }
    }

    fn retry(&mut self) {
        let Some(incoming) = self.waiting.pop() else {
            return;
        };
        let mut out = Vec::new();
        match self.endpoint.retry(incoming, &mut out) {
            Ok(transmit) => self.note(&transmit),
            Err(error) => self.endpoint.ignore(error.into_incoming()),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let handles: Vec<_> = self.connections.keys().copied().collect();
        for handle in handles {
            if let Some(connection) = self.connections.get_mut(&handle)
                && connection.poll_timeout().is_some_and(|at| at <= self.now)
            {
                connection.handle_timeout(self.now);
                self.drive(handle);
            }
        }
    }

    /// Sends what a connection has to send, and tells the endpoint of its end.
    fn drive(&mut self, handle: ConnectionHandle) {
        let Some(mut connection) = self.connections.remove(&handle) else {
            return;
        };
        let mut out = Vec::new();
        while let Some(transmit) = connection.poll_transmit(self.now, 1, &mut out) {
            self.note(&transmit);
            out.clear();
        }
        while connection.poll().is_some() {}
        let mut gone = false;
        while let Some(event) = connection.poll_endpoint_events() {
            gone |= event.is_drained();
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        if !gone {
            // Until a certificate was shown, which none was here.
            assert!(connection.is_handshaking() || connection.is_closed());
            assert!(connection.crypto_session().peer_identity().is_none());
            self.connections.insert(handle, connection);
        }
    }

    fn note(&mut self, transmit: &Transmit) {
        self.sent += transmit.size;
    }

    fn check(&self) {
        let (sent, received) = (self.sent, self.received);
        assert!(
            sent <= received * MOST_ANSWERED,
            "{sent} octets for {received}"
        );
        assert!(self.waiting.len() <= MAX_INCOMING);
        assert!(self.endpoint.incoming_buffer_bytes() <= INCOMING_ALL);
    }
}

/// An Initial packet of a client (RFC 9000, section 17.2.2), protected by the keys that its own
/// destination names (RFC 9001, section 5.2).
fn initial(input: &mut Input<'_>) -> Vec<u8> {
    let destination = [input.below(8) as u8; 8];
    let source = [0x51; 8];
    let number = u32::from(input.u8());
    let token = input.field();
    let length = usize::from(input.u16()) % SMALLEST_INITIAL;
    let mut payload = input.take(length).to_vec();
    payload.resize(SMALLEST_INITIAL, 0);

    // Long header, Initial, a packet number of four octets; version 1.
    let mut header = vec![0xC3, 0, 0, 0, 1];
    for id in [destination, source] {
        header.push(id.len() as u8);
        header.extend(id);
    }
    // Both as variable-length integers of two octets.
    header.extend((0x4000 | token.len() as u16).to_be_bytes());
    header.extend(token);
    header.extend((0x4000 | (4 + payload.len() + 16) as u16).to_be_bytes());
    let at = header.len();
    header.extend(number.to_be_bytes());

    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
        unreachable!("its name says so");
    };
    let keys = Keys::initial(
        Version::V1,
        suite,
        suite.quic.unwrap(),
        &destination,
        Side::Client,
    );
    let local = keys.local;
    let tag = local
        .packet
        .encrypt_in_place(number.into(), &header, &mut payload)
        .unwrap();
    let mut packet = [&header[..], &payload, tag.as_ref()].concat();
    let (front, sample) = packet.split_at_mut(at + 4);
    let (first, front) = front.split_at_mut(1);
    let number = front.len() - 4;
    local
        .header
        .encrypt_in_place(&sample[..16], &mut first[0], &mut front[number..])
        .unwrap();
    packet
}
