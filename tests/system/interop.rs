//! Other people's Modbus clients and servers at the two ends of a pair.
//!
//! What a pymodbus client prints through the pair must be what it prints on a direct
//! connection; the scripts are in `tests/peers`.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fieldlock_sim::{Options, Plc};
use fieldlock_testkit::modbus::{self, Client};
use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::answers::{BUSY, NO_PATH, exception, read_one, read_registers, write_one};
use fieldlock_tests::{Hosted, Pair, SOON, Setup, Transport, trial};
use libtest_mimic::Trial;
use tokio_modbus::client::{Reader as _, Writer as _, tcp};
use tokio_modbus::{ExceptionCode, Slave};

const PYMODBUS: &[&str] = &["pymodbus"];

pub(crate) fn trials() -> Vec<Trial> {
    let peers = |name: &str, peers: &[&str], run: fn(Transport)| {
        [Transport::Quic, Transport::Tls].map(|transport| {
            let name = format!("interop::{name}::{transport}");
            trial::with_peers(&name, peers, move || run(transport))
        })
    };
    let mut trials: Vec<Trial> = [
        peers("pymodbus_client", PYMODBUS, pymodbus_client),
        peers(
            "pymodbus_client_and_server",
            PYMODBUS,
            pymodbus_client_and_server,
        ),
        peers(
            "pymodbus_clients_side_by_side",
            PYMODBUS,
            pymodbus_side_by_side,
        ),
        peers("mbpoll", &["mbpoll"], mbpoll),
        trial::both("interop::tokio_modbus", tokio_modbus),
        trial::both("interop::pipelined_requests", pipelined),
        trial::both("interop::requests_in_single_bytes", single_bytes),
        trial::both("interop::more_than_may_be_in_flight", more_than_in_flight),
        trial::both("interop::units_of_a_shared_listener", shared_listener),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend(match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => trial::both("interop::all_over_ipv6", ipv6).into(),
        Err(error) => vec![trial::ignored(
            "interop::all_over_ipv6",
            &format!("no IPv6: {error}"),
        )],
    });
    trials
}

/// Patient with a disk that other tests keep busy: these tests are not about deadlines.
fn setup(transport: Transport) -> Setup {
    Setup::new(transport).answer_within("5s")
}

fn pymodbus_client(transport: Transport) {
    let pair = setup(transport).up();
    let direct = run_client(pair.plc_address, 1);
    assert_eq!(run_client(pair.clients, 1), direct);
}

fn pymodbus_client_and_server(transport: Transport) {
    let server = PymodbusServer::tcp();
    let pair = setup(transport).plc(server.address).up();
    for unit in [1, 2] {
        let direct = run_client(server.address, unit);
        assert_eq!(run_client(pair.clients, unit), direct, "unit {unit}");
    }
}

fn pymodbus_side_by_side(transport: Transport) {
    const CLIENTS: u32 = 8;
    const ROUNDS: u32 = 25;
    let pair = setup(transport).up();
    let arguments = [1, CLIENTS, ROUNDS].map(|number| number.to_string());
    let answered = python("parallel.py", pair.clients, &arguments);
    assert_eq!(answered.trim(), (2 * CLIENTS * ROUNDS).to_string());
    assert_eq!(pair.plc().write_count(), u64::from(CLIENTS * ROUNDS));
}

fn mbpoll(transport: Transport) {
    let pair = setup(transport).up();
    let poll = |options: &str, values: &[&str]| run_mbpoll(&pair, options, values);
    let read = |options: &str| shown(&poll(options, &[]));
    let written = poll("-t 4 -r 42", &["1234", "65535"]);
    assert!(written.contains("Written 2 references."), "{written}");
    assert_eq!(pair.plc().register(42), Some(1234));
    assert_eq!(read("-t 4 -r 42 -c 3"), ["1234", "65535 (-1)", "0"]);
    let written = poll("-t 0 -r 3", &["1"]);
    assert!(written.contains("Written 1 references."), "{written}");
    assert_eq!(read("-t 0 -r 2 -c 3"), ["0", "1", "0"]);
    assert_eq!(read("-t 3 -r 10 -c 2"), ["0", "0"]);
    assert_eq!(read("-t 1 -r 0 -c 4"), ["1", "1", "0", "1"]);
    let beyond = poll("-t 4 -r 5000", &[]);
    assert!(beyond.contains("Illegal data address"), "{beyond}");
}

/// Once, unit 1, addresses from 0: everything that it prints.
fn run_mbpoll(pair: &Pair, options: &str, values: &[&str]) -> String {
    let port = pair.clients.port().to_string();
    let output = Command::new(Peer::find("mbpoll").unwrap())
        .args(["-m", "tcp", "-1", "-0", "-a", "1", "-p", &port])
        .args(options.split(' '))
        .arg("127.0.0.1")
        .args(values)
        .output()
        .unwrap();
    [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat()
}

/// The values behind the addresses, which stand in brackets.
fn shown(text: &str) -> Vec<String> {
    let value = |line: &str| {
        let (_, value) = line.strip_prefix('[')?.split_once("]:")?;
        Some(value.trim().to_owned())
    };
    text.lines().filter_map(value).collect()
}

fn tokio_modbus(transport: Transport) {
    let pair = setup(transport).up();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = tcp::connect_slave(pair.clients, Slave(1)).await.unwrap();
        let (low, high) = (&[1, 2, 3], &[4, 5]);
        client
            .write_multiple_registers(50, low)
            .await
            .unwrap()
            .unwrap();
        let both = client.read_write_multiple_registers(50, 5, 53, high).await;
        assert_eq!(both.unwrap().unwrap(), [1, 2, 3, 4, 5]);
        client
            .masked_write_register(50, 0xFFF0, 0x0007)
            .await
            .unwrap()
            .unwrap();
        let read = client.read_holding_registers(50, 2).await.unwrap().unwrap();
        assert_eq!(read, [7, 2]);
        client
            .write_multiple_coils(4, &[true, false, true])
            .await
            .unwrap()
            .unwrap();
        let coils = client.read_coils(4, 3).await.unwrap().unwrap();
        assert_eq!(coils, [true, false, true]);
        let beyond = client.read_holding_registers(100, 1).await.unwrap();
        assert_eq!(beyond, Err(ExceptionCode::IllegalDataAddress));
    });
}

fn pipelined(transport: Transport) {
    let pair = setup(transport)
        .modbus_tcp("max_connections = 2, in_flight = 4")
        .up();
    let mut client = pair.client();
    // Neither ascending nor from 1: the ids are the client's own.
    let ids: Vec<u16> = (0..16u16)
        .map(|place| place.wrapping_mul(0x9E37).wrapping_sub(1))
        .collect();
    let mut bytes = Vec::new();
    for (place, id) in (0..).zip(&ids) {
        let pdu = match place % 2 {
            0 => modbus::write_register(42 + place, 100 + place),
            _ => modbus::read(3, 42 + place, 1),
        };
        bytes.extend(modbus::adu(*id, 1, &pdu));
    }
    client.send(&bytes).unwrap();
    let mut waiting: BTreeSet<u16> = ids.iter().copied().collect();
    assert_eq!(waiting.len(), 16);
    while !waiting.is_empty() {
        let answer = client.read_adu(SOON).unwrap();
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        assert!(waiting.remove(&id), "not waited for: {answer:02x?}");
        let place = ids.iter().position(|known| *known == id).unwrap() as u16;
        let expected = match place % 2 {
            0 => modbus::write_register(42 + place, 100 + place).to_vec(),
            _ => vec![3, 2, 0, 0],
        };
        assert_eq!(answer[7..], expected, "request {place}");
    }
    let more = client.read_adu(Duration::from_millis(200));
    assert!(more.is_err(), "more answers than requests: {more:02x?}");
    assert_eq!(pair.plc().write_count(), 8);
}

fn single_bytes(transport: Transport) {
    let pair = setup(transport).up();
    let mut client = pair.client();
    let bytes = [
        modbus::adu(7, 1, &modbus::write_register(42, 0x1234)),
        modbus::adu(8, 1, &read_one(42)),
    ]
    .concat();
    for byte in &bytes {
        client.send(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let first = client.read_adu(SOON).unwrap();
    assert_eq!(first[..2], [0, 7]);
    let second = client.read_adu(SOON).unwrap();
    assert_eq!(second, modbus::adu(8, 1, &[3, 2, 0x12, 0x34]));
}

/// Each request is answered once, by the device or as busy.
fn more_than_in_flight(transport: Transport) {
    const REQUESTS: usize = 60;
    let pair = setup(transport).headend("[client]\nin_flight = 16\n").up();
    pair.plc().set_answer_delay(Duration::from_millis(5));
    let mut client = pair.client();
    let pdu = read_one(42);
    let answers = client.pipeline(1, &[&pdu[..]; REQUESTS]).unwrap();
    let busy = answers.iter().filter(|pdu| exception(pdu) == Some(BUSY));
    let busy = busy.count();
    let good = answers.iter().filter(|pdu| **pdu == [3, 2, 0, 0]).count();
    assert_eq!(good + busy, REQUESTS, "{answers:02x?}");
    assert!(good >= 16 && busy > 0, "{good} answered, {busy} busy");
    assert_eq!(pair.plc().requests(), good as u64);
}

fn shared_listener(transport: Transport) {
    let shared = free_address().unwrap();
    let pair = setup(transport)
        .headend(&format!(
            "[[listener]]\naddress = \"{shared}\"\nunit = [\
             {{ unit = 7, device = \"{device}\", device_unit = 1 }}, \
             {{ unit = 8, device = \"{device}\", device_unit = 2 }}, \
             {{ unit = 2, device = \"{device}\" }}]\n",
            device = fieldlock_tests::DEVICE
        ))
        .up();
    let mut client = Client::connect(shared).unwrap();
    for (unit, value) in [(7, 70), (8, 80), (2, 20)] {
        let write = modbus::write_register(42, value);
        // The client checks that the answer carries the unit it asked.
        assert_eq!(client.request(unit, &write).unwrap(), write);
    }
    let units: Vec<u8> = pair.plc().writes().iter().map(|write| write.unit).collect();
    assert_eq!(units, [1, 2, 2]);
    for unit in [0, 1, 9, 255] {
        let answer = client.request(unit, &read_one(42)).unwrap();
        assert_eq!(answer, [0x83, NO_PATH], "unit {unit}");
    }
    let write = pair
        .headend
        .wait_record("a write", |record| record.client_unit == Some(7));
    assert_eq!(write.unit, Some(1));
}

fn ipv6(transport: Transport) {
    let local = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let plc = Hosted::start(Plc::start(local(0), Options::default()));
    let mut pair = setup(transport).plc(plc.address()).prepare();
    let (tunnel, clients) = (local(pair.tunnel.port()), local(pair.clients.port()));
    let six = |text: &str| {
        text.replace(&pair.tunnel.to_string(), &tunnel.to_string())
            .replace(&pair.clients.to_string(), &clients.to_string())
    };
    pair.headend.write_config(&six(&pair.headend_config));
    pair.edge.write_config(&six(&pair.edge_config));
    pair.clients = clients;
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let mut client = pair.client();
    write_one(&mut client, 42, 6);
    assert_eq!(read_registers(&mut client, 42, 1), [6]);
    assert_eq!(plc.register(42), Some(6));
    let write = pair
        .headend
        .wait_record("the write", |r| r.quantity.is_some());
    let address = write.client.and_then(|client| client.address);
    assert_eq!(address, Some(Ipv6Addr::LOCALHOST.into()));
}

/// A pymodbus server as a child process.
pub(crate) struct PymodbusServer {
    pub(crate) address: SocketAddr,
    _process: Process,
    _directory: Directory,
}

impl PymodbusServer {
    pub(crate) fn tcp() -> Self {
        let address = free_address().unwrap();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        Self::start(address, &["tcp", &host, &port])
    }

    /// With TLS: with key.pem and bundle.pem of `folder`, and versions from and to.
    pub(crate) fn tls(folder: &Path, versions: [&str; 2]) -> Self {
        let address = free_address().unwrap();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let folder = folder.to_string_lossy();
        let [least, most] = versions;
        Self::start(address, &["tls", &host, &port, &folder, least, most])
    }

    /// On a serial line; the address means nothing then.
    pub(crate) fn serial(path: &Path) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::start(nowhere, &["serial", &path.to_string_lossy(), "19200"])
    }

    fn start(address: SocketAddr, arguments: &[&str]) -> Self {
        let directory = Directory::new().unwrap();
        let mut command = Command::new(Peer::find("pymodbus").unwrap());
        command.arg(script("server.py")).args(arguments);
        let mut process = Process::start("server", &mut command, directory.path()).unwrap();
        if let Err(error) = process.wait_log("ready", SOON) {
            panic!("{error}");
        }
        Self {
            address,
            _process: process,
            _directory: directory,
        }
    }
}

/// What the pymodbus client prints about everything it asks this unit.
pub(crate) fn run_client(server: SocketAddr, unit: u8) -> String {
    python("client.py", server, &[unit.to_string()])
}

/// The same over TLS, with key.pem and bundle.pem of `folder`, to a server called `name`.
pub(crate) fn run_tls_client(server: SocketAddr, unit: u8, folder: &Path, name: &str) -> String {
    let folder = folder.to_string_lossy().into_owned();
    python(
        "client.py",
        server,
        &[unit.to_string(), folder, name.to_owned()],
    )
}

fn python(name: &str, server: SocketAddr, arguments: &[String]) -> String {
    let mut command = Command::new(Peer::find("pymodbus").unwrap());
    command
        .arg(script(name))
        .args([server.ip().to_string(), server.port().to_string()])
        .args(arguments);
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{name}: {}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

fn script(name: &str) -> PathBuf {
    workspace_root().join("tests/peers").join(name)
}
