//! Connections that a headend passes on to the CA as octets. Here the CA is `openssl s_server`,
//! so that what arrives there is judged by somebody else.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::answers::{read_registers, write_one};
use fieldlock_tests::{Pair, SOON, Setup, Site, Transport, binary, trial, within};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let with_peers = |name: &str, run: fn()| {
        trial::with_peers(&format!("splice::{name}"), &["openssl", "curl"], run)
    };
    vec![
        with_peers("tls_ends_at_the_ca", tls_ends_at_the_ca),
        with_peers("limits_per_address", limits),
        with_peers("not_configured_or_down", not_configured_or_down),
        trial::test(
            "splice::who_joins_is_told_what_is_wrong_where",
            joining_says_what_is_wrong,
        ),
    ]
}

fn tls_ends_at_the_ca() {
    let server = Server::start();
    let pair = setup(server.address).up();
    let said = s_client(pair.tunnel, "http/1.1");
    assert!(said.contains("CN = somebody-elses-ca"), "{said}");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");

    let page = curl(pair.tunnel);
    assert!(page.contains("s_server"), "{page}");
    let ends = || pair.headend.audit_kind(Kind::EnrollClose);
    within(SOON, "both to be on record", || ends().len() == 2);
    for end in ends() {
        let reason = end.reason.unwrap();
        assert!(reason.contains("octets to the CA"), "{reason}");
    }
    assert_eq!(pair.headend.audit_kind(Kind::EnrollOpen).len(), 2);

    // Who offers both wants a tunnel, and is judged as one.
    let both = s_client(pair.tunnel, "fieldlock/1,http/1.1");
    assert!(both.contains("hd-1"), "{both}");
    still_works(&pair);
}

fn limits() {
    let server = Server::start();
    let limits = "max_connections_per_address = 2\nnew_per_minute = 4\n";
    let pair = Setup::new(Transport::Tls)
        .headend(&format!("{}{limits}", authority(server.address)))
        .up();
    let open = |_| Idle::open(pair.tunnel);
    let mut idle: Vec<Idle> = (0..2).map(open).collect();
    within(SOON, "two connections to be passed on", || {
        pair.headend.status()["ca_connections"] == 2
    });
    assert_eq!(
        Idle::open(pair.tunnel).alert(),
        ACCESS_DENIED,
        "a third from the same address"
    );
    still_works(&pair);
    idle.clear();
    within(SOON, "both to be gone", || {
        pair.headend.status()["ca_connections"] == 0
    });
    idle.extend((0..2).map(open));
    within(SOON, "two more", || {
        pair.headend.status()["ca_connections"] == 2
    });
    idle.clear();
    within(SOON, "these to be gone", || {
        pair.headend.status()["ca_connections"] == 0
    });
    assert_eq!(
        Idle::open(pair.tunnel).alert(),
        ACCESS_DENIED,
        "a fifth within a minute"
    );
    let refused = pair.headend.wait_record("the refusal", |r| {
        r.kind == Kind::ClientRefused
            && r.reason
                .as_ref()
                .is_some_and(|text| text.contains("ca.new_per_minute"))
    });
    assert!(refused.client.unwrap().address.is_some());
}

fn not_configured_or_down() {
    let pair = Pair::up(Transport::Quic);
    assert_eq!(Idle::open(pair.tunnel).alert(), NO_APPLICATION_PROTOCOL);
    refused_because(&pair, "no `[ca]` is configured");
    still_works(&pair);

    let nobody = free_address().unwrap();
    let pair = setup(nobody).up();
    assert_eq!(Idle::open(pair.tunnel).alert(), INTERNAL_ERROR);
    refused_because(&pair, "can't be reached");
    still_works(&pair);
}

/// Who joins is told what is wrong where: at the headend, behind it, or in the address.
fn joining_says_what_is_wrong() {
    let site = Site::shared();
    let told = |address: SocketAddr| {
        let directory = Directory::new().unwrap();
        let token = site.token("edge", "joining-07", address);
        let token = directory.write("token", &token).unwrap();
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        let mut command = binary::command();
        command.args(["enroll", "join", "--state"]);
        command
            .arg(directory.join("state"))
            .arg("--token-file")
            .arg(token);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", binary::text(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let without = Pair::up(Transport::Tls);
    let said = told(without.tunnel);
    assert!(said.contains("passes nothing on to a CA"), "{said}");
    let down = setup(free_address().unwrap()).up();
    let said = told(down.tunnel);
    assert!(said.contains("this headend can't reach its CA"), "{said}");
    // A port where nobody is, and one that speaks something else.
    let said = told(free_address().unwrap());
    assert!(said.contains("nobody listens there"), "{said}");
    let wrong = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = wrong.local_addr().unwrap();
    let speaks = std::thread::spawn(move || {
        let (mut stream, _) = wrong.accept().unwrap();
        stream
            .write_all(b"220 mail.plant1.example ESMTP\r\n")
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let said = told(address);
    assert!(said.contains("does not speak TLS"), "{said}");
    speaks.join().unwrap();
}

fn refused_because(pair: &Pair, text: &str) {
    pair.headend.wait_record(text, |r| {
        r.kind == Kind::ClientRefused && r.reason.as_ref().is_some_and(|r| r.contains(text))
    });
}

fn still_works(pair: &Pair) {
    let mut client = pair.client();
    write_one(&mut client, 40, 7);
    assert_eq!(read_registers(&mut client, 40, 1), [7]);
}

/// Alerts (RFC 8446, section 6).
const NO_APPLICATION_PROTOCOL: u8 = 120;
const ACCESS_DENIED: u8 = 49;
const INTERNAL_ERROR: u8 = 80;

fn authority(address: SocketAddr) -> String {
    format!("[ca]\naddress = \"{address}\"\n")
}

fn setup(address: SocketAddr) -> Setup {
    Setup::new(Transport::Tls).headend(&authority(address))
}

fn s_client(to: SocketAddr, alpn: &str) -> String {
    let output = Command::new(Peer::find("openssl").unwrap())
        .args(["s_client", "-connect", &to.to_string(), "-alpn", alpn])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    binary::text(&output)
}

fn curl(from: SocketAddr) -> String {
    let output = Command::new(Peer::find("curl").unwrap())
        .args(["-sk", "--http1.1", "--max-time", "10"])
        .arg(format!("https://{from}/"))
        .output()
        .unwrap();
    binary::text(&output)
}

/// A connection that has sent its ClientHello and then says nothing more.
struct Idle(TcpStream);

impl Idle {
    fn open(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&client_hello()).unwrap();
        Self(stream)
    }

    /// The fatal alert with which it is ended, and nothing else.
    #[track_caller]
    fn alert(&mut self) -> u8 {
        let mut said = Vec::new();
        self.0.read_to_end(&mut said).unwrap();
        match said[..] {
            [0x15, 3, 3, 0, 2, 2, alert] => alert,
            _ => panic!("{said:02x?}"),
        }
    }
}

/// The smallest ClientHello that offers ALPN `http/1.1` (RFC 8446, section 4.1.2).
fn client_hello() -> Vec<u8> {
    let vector16 = |octets: &[u8]| {
        let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
        [&length, octets].concat()
    };
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &vector16(body)].concat();
    let alpn = [&[8_u8][..], b"http/1.1"].concat();
    let extensions = [
        extension(0x2b, &[2, 3, 4]),
        extension(0x0d, &vector16(&[4, 3])),
        extension(0x0a, &vector16(&[0, 0x17])),
        extension(0x33, &vector16(&[])),
        extension(0x10, &vector16(&alpn)),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &vector16(&[0x13, 1]),
        &[1, 0],
        &vector16(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &vector16(&handshake)].concat()
}

struct Server {
    address: SocketAddr,
    _process: Process,
    _directory: Directory,
}

impl Server {
    fn start() -> Self {
        let directory = Directory::new().unwrap();
        let openssl = Peer::find("openssl").unwrap();
        let made = Command::new(&openssl)
            .current_dir(directory.path())
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-keyout", "key.pem", "-out", "cert.pem"])
            .args(["-subj", "/CN=somebody-elses-ca"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", binary::text(&made));
        let address = free_address().unwrap();
        let mut command = Command::new(&openssl);
        command
            .current_dir(directory.path())
            .args(["s_server", "-www", "-alpn", "http/1.1"])
            .args(["-key", "key.pem", "-cert", "cert.pem"])
            .args(["-accept", &address.to_string()]);
        let mut process = Process::start("s_server", &mut command, directory.path()).unwrap();
        process.wait_log("ACCEPT", Duration::from_secs(10)).unwrap();
        Self {
            address,
            _process: process,
            _directory: directory,
        }
    }
}
