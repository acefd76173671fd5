//! Modbus/TCP Security on both sides: clients of the headend, and devices behind the edge.
//!
//! The TLS at the other end is OpenSSL's, in pymodbus, `openssl s_client` and socat.

mod clients;
mod devices;
mod openssl;
mod strangers;

use std::net::SocketAddr;
use std::path::PathBuf;

use fieldlock_testkit::ports::free_address;
use fieldlock_tests::{HEADEND, Pair, Setup, Site, Transport};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = clients::trials();
    trials.extend(strangers::trials());
    trials.extend(devices::trials());
    trials
}

/// What MBAPS clients must find in the headend's certificate.
const SERVER: &str = "hd-1.headend.plant1.example";

/// The simulated PLC's answer to a read of holding register 41.
const READ: [u8; 4] = [3, 2, 3, 232];

/// A pair whose headend also listens for MBAPS clients of the device.
struct Secured {
    pair: Pair,
    address: SocketAddr,
}

impl Secured {
    /// `more` of headend.toml: first keys of the `[[device]]`, then tables.
    fn up(setup: Setup, more: &str) -> Self {
        let address = free_address().unwrap();
        let setup = setup.headend(&format!("listen_mbaps = \"{address}\"\n{more}"));
        Self {
            pair: setup.up(),
            address,
        }
    }

    fn open() -> Self {
        Self::up(setup(), "")
    }
}

/// Patient with a disk that other tests keep busy.
fn setup() -> Setup {
    assert_eq!(HEADEND, "hd-1");
    Setup::new(Transport::Quic).answer_within("5s")
}

/// key.pem and bundle.pem of a client of the shared site, with a Modbus role.
fn client(name: &str, role: &str) -> PathBuf {
    Site::shared().issued("client", name, &["--modbus-role", role])
}

/// And of one without.
fn client_without_role(name: &str) -> PathBuf {
    Site::shared().issued("client", name, &[])
}
