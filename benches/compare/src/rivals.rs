//! HAProxy, stunnel and rathole as pairs: what an administrator would set up instead of Fieldlock.
//!
//! Settings are the programs' own defaults except for what makes them comparable: mutual
//! authentication, TLS 1.3, names checked, no Nagle.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::Process;

use crate::Failure;
use crate::contender::{Contender, Kind};

/// Two HAProxy processes, with TLS between them or without.
pub(crate) fn haproxy(
    kind: Kind,
    server: SocketAddr,
    directory: &Path,
    certificates: Option<&Certificates>,
) -> Result<Contender, Failure> {
    let program = &Peer::find_all(&["haproxy"])?[0];
    let (address, between) = (free_address()?, free_address()?);
    let (listen, connect) = certificates.map_or_else(Default::default, |certificates| {
        let ca = certificates.ca.display();
        let edge = certificates.pair("edge");
        let headend = certificates.pair("headend");
        let common = format!("ca-file {ca} verify required ssl-min-ver TLSv1.3");
        (
            format!("ssl crt {} {common}", edge.display()),
            format!(
                "ssl crt {} {common} verifyhost edge.compare.example",
                headend.display()
            ),
        )
    });
    let headend = haproxy_configuration(address, "", between, &connect);
    let edge = haproxy_configuration(between, &listen, server, "");
    let mut processes = Vec::new();
    for (role, text) in [("headend", headend), ("edge", edge)] {
        let name = format!("{}-{role}", kind.name());
        let file = directory.join(format!("{name}.cfg"));
        fs::write(&file, text)?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file);
        processes.push(Process::start(&name, &mut command, directory)?);
    }
    Contender {
        kind,
        address,
        processes,
    }
    .wait_ready()
}

fn haproxy_configuration(from: SocketAddr, from_tls: &str, to: SocketAddr, to_tls: &str) -> String {
    format!(
        "global\n    maxconn 2000\n\
         defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 60s\n    timeout server 60s\n\
         listen relay\n    bind {from} {from_tls}\n    server next {to} {to_tls}\n"
    )
}

/// One HAProxy with a single connection to the server at a time; further clients wait in its queue.
pub(crate) fn one_at_a_time(server: SocketAddr, directory: &Path) -> Result<Contender, Failure> {
    let program = &Peer::find_all(&["haproxy"])?[0];
    let (kind, address) = (Kind::OneAtATime, free_address()?);
    let file = directory.join(format!("{}.cfg", kind.name()));
    fs::write(
        &file,
        haproxy_configuration(address, "", server, "maxconn 1"),
    )?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    let process = Process::start(kind.name(), &mut command, directory)?;
    Contender {
        kind,
        address,
        processes: vec![process],
    }
    .wait_ready()
}

/// Two stunnel processes.
pub(crate) fn stunnel(
    server: SocketAddr,
    directory: &Path,
    certificates: &Certificates,
) -> Result<Contender, Failure> {
    let program = &Peer::find_all(&["stunnel4"])?[0];
    let (address, between) = (free_address()?, free_address()?);
    let sides = [
        ("headend", "edge", "yes", address, between),
        ("edge", "headend", "no", between, server),
    ];
    let mut processes = Vec::new();
    for (role, other, client, accept, connect) in sides {
        let name = format!("{}-{role}", Kind::Stunnel.name());
        let file = directory.join(format!("{name}.conf"));
        let pair = certificates.pair(role);
        let text = format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = 4\n\
             socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
             [relay]\nclient = {client}\naccept = {accept}\nconnect = {connect}\n\
             cert = {pair}\nkey = {pair}\nCAfile = {ca}\nverifyChain = yes\n\
             checkHost = {other}.compare.example\nsslVersionMin = TLSv1.3\n",
            pair = pair.display(),
            ca = certificates.ca.display(),
        );
        fs::write(&file, text)?;
        let mut command = Command::new(program);
        command.arg(file);
        processes.push(Process::start(&name, &mut command, directory)?);
    }
    Contender {
        kind: Kind::Stunnel,
        address,
        processes,
    }
    .wait_ready()
}

/// The client of rathole beside the server dials out, as an edge does.
pub(crate) fn rathole(server: SocketAddr, directory: &Path) -> Result<Contender, Failure> {
    let program = &Peer::find_all(&["rathole"])?[0];
    let (address, between) = (free_address()?, free_address()?);
    let keys = run(Command::new(program).arg("--genkey"))?;
    let keys = String::from_utf8_lossy(&keys.stdout).into_owned();
    let mut keys = keys.lines().filter(|line| line.trim().ends_with('='));
    let (private, public) = (
        keys.next().unwrap_or_default(),
        keys.next().unwrap_or_default(),
    );
    let transport = |role: &str, key: &str| {
        format!(
            "[{role}.transport]\ntype = \"noise\"\n[{role}.transport.tcp]\nnodelay = true\n\
             [{role}.transport.noise]\n{key}\n"
        )
    };
    let sides = [
        format!(
            "[server]\nbind_addr = \"{between}\"\ndefault_token = \"of no worth\"\n{}\
             [server.services.plc]\nbind_addr = \"{address}\"\nnodelay = true\n",
            transport("server", &format!("local_private_key = \"{private}\""))
        ),
        format!(
            "[client]\nremote_addr = \"{between}\"\ndefault_token = \"of no worth\"\n{}\
             [client.services.plc]\nlocal_addr = \"{server}\"\nnodelay = true\n",
            transport("client", &format!("remote_public_key = \"{public}\""))
        ),
    ];
    let mut processes = Vec::new();
    for (role, text) in ["headend", "edge"].into_iter().zip(sides) {
        let name = format!("{}-{role}", Kind::Rathole.name());
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, text)?;
        processes.push(Process::start(
            &name,
            Command::new(program).arg(file),
            directory,
        )?);
    }
    Contender {
        kind: Kind::Rathole,
        address,
        processes,
    }
    .wait_ready()
}

/// A throw-away CA and a certificate for each side (P-256, as Fieldlock's own), made with
/// `openssl`.
#[derive(Debug)]
pub(crate) struct Certificates {
    directory: PathBuf,
    ca: PathBuf,
}

impl Certificates {
    pub(crate) fn make(directory: &Path) -> Result<Self, Failure> {
        let openssl = &Peer::find_all(&["openssl"])?[0];
        let run = |line: &str| {
            let mut command = Command::new(openssl);
            run(command.current_dir(directory).args(line.split(' ')))
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        run(&format!(
            "req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=compare -days 2"
        ))?;
        for role in ["edge", "headend"] {
            let name =
                format!("-subj /CN={role} -addext subjectAltName=DNS:{role}.compare.example");
            run(&format!(
                "req {key} -keyout {role}.key -out {role}.csr {name}"
            ))?;
            let ca = "-CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy";
            run(&format!(
                "x509 -req -in {role}.csr {ca} -out {role}.crt -days 2"
            ))?;
            let mut both = fs::read(directory.join(format!("{role}.crt")))?;
            both.extend(fs::read(directory.join(format!("{role}.key")))?);
            fs::write(directory.join(format!("{role}.pem")), both)?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            ca: directory.join("ca.crt"),
        })
    }

    /// Certificate and key in one file.
    fn pair(&self, role: &str) -> PathBuf {
        self.directory.join(format!("{role}.pem"))
    }
}

/// Runs a command to its end; what it printed is in the error.
pub(crate) fn run(command: &mut Command) -> Result<Output, Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Failure::Command {
        command: format!("{command:?}"),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
