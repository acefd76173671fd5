//! One way from the load to the server.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use fieldlock_testkit::modbus::{Client, read};
use fieldlock_testkit::process::Process;
use fieldlock_testkit::wait::wait_until;
use serde::Serialize;

use crate::Failure;
use crate::load::UNIT;
use crate::server::{READ_HOLDING, REGISTERS};

/// From the start of a pair to its first answer.
const READY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// No relay
    #[value(skip)]
    Direct,
    /// HAProxy pair, plain TCP
    Floor,
    /// HAProxy pair, mutual TLS 1.3 between them
    HaproxyTls,
    /// stunnel4 pair, mutual TLS 1.3 between them
    Stunnel,
    /// rathole client and server, Noise over TCP between them
    Rathole,
    /// WireGuard in user space, between two network namespaces (root)
    Boringtun,
    /// OpenVPN over UDP, between two network namespaces (root)
    Openvpn,
    /// Fieldlock pair over QUIC, 8 connections to the device with 16 in flight each
    FieldlockQuic,
    /// The same over TLS on TCP
    FieldlockTls,
    /// Fieldlock pair over QUIC, as by default: 1 connection, 1 in flight
    FieldlockQuic1,
    /// The same over TLS on TCP
    FieldlockTls1,
    /// The pair over QUIC of another build (`--before`)
    #[value(skip)]
    BeforeQuic,
    /// The same over TLS on TCP
    #[value(skip)]
    BeforeTls,
    /// One HAProxy, plain TCP, that opens one connection to the server at a time
    #[value(skip)]
    OneAtATime,
    /// Fieldlock pair over QUIC, 1 connection, 1 in flight, shared reads
    #[value(skip)]
    FieldlockShared,
    /// The same, without shared reads
    #[value(skip)]
    FieldlockUnshared,
}

impl Kind {
    pub(crate) const RELAYS: [Self; 10] = [
        Self::Floor,
        Self::HaproxyTls,
        Self::Stunnel,
        Self::Rathole,
        Self::Boringtun,
        Self::Openvpn,
        Self::FieldlockQuic,
        Self::FieldlockTls,
        Self::FieldlockQuic1,
        Self::FieldlockTls1,
    ];

    /// Of another build.
    pub(crate) fn is_before(self) -> bool {
        matches!(self, Self::BeforeQuic | Self::BeforeTls)
    }

    /// Needs two network namespaces.
    pub(crate) fn is_vpn(self) -> bool {
        matches!(self, Self::Boringtun | Self::Openvpn)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::HaproxyTls => "haproxy-tls",
            Self::Stunnel => "stunnel",
            Self::Rathole => "rathole",
            Self::Boringtun => "boringtun",
            Self::Openvpn => "openvpn",
            Self::FieldlockQuic => "fieldlock-quic",
            Self::FieldlockTls => "fieldlock-tls",
            Self::FieldlockQuic1 => "fieldlock-quic-1",
            Self::FieldlockTls1 => "fieldlock-tls-1",
            Self::BeforeQuic => "before-quic",
            Self::BeforeTls => "before-tls",
            Self::OneAtATime => "haproxy-maxconn-1",
            Self::FieldlockShared => "fieldlock-shared",
            Self::FieldlockUnshared => "fieldlock-unshared",
        }
    }
}

/// A running pair. Its processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    /// Where the load connects to.
    pub(crate) address: SocketAddr,
    /// The relays, without the server.
    pub(crate) processes: Vec<Process>,
}

impl Contender {
    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Waits until a request comes through; says what all processes wrote when none does.
    pub(crate) fn wait_ready(mut self) -> Result<Self, Failure> {
        let address = self.address;
        let processes = &mut self.processes;
        let mut ended = false;
        let answered = wait_until("the first answer", READY, || {
            ended = !processes.iter_mut().all(Process::is_running);
            ended || answers(address)
        });
        if ended || answered.is_err() {
            let logs = self.processes.iter().map(Process::log_tail);
            return Err(Failure::NotReady(logs.collect()));
        }
        Ok(self)
    }
}

fn answers(address: SocketAddr) -> bool {
    let answer = Client::connect(address)
        .and_then(|mut client| client.request(UNIT, &read(READ_HOLDING, 0, REGISTERS)));
    answer.is_ok_and(|pdu| pdu.first() == Some(&READ_HOLDING))
}
