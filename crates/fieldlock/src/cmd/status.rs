//! `fieldlock status`: asks a running agent over its local socket.

mod profinet;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fieldlock_agent::settings::{SettingsError, state_in};
use serde_json::Value;

/// Where agents keep their state when nobody says otherwise.
const STATES: [&str; 2] = ["/var/lib/fieldlock/headend", "/var/lib/fieldlock/edge"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldlock status\n  \
    fieldlock status --state /var/lib/fieldlock/edge\n  \
    fieldlock status --config /etc/fieldlock/headend.toml --json")]
pub(crate) struct Args {
    /// The agent's state directory; by default that of the agent on this machine
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The agent's configuration file, which names its state directory
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
    /// The agent's control socket itself
    #[arg(long, value_name = "PATH", conflicts_with_all = ["state", "config"])]
    socket: Option<PathBuf>,
    /// Everything, as one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let socket = match args.socket() {
        Ok(Some(socket)) => socket,
        Ok(None) => {
            eprintln!(
                "error: no agent's socket under {}\nhint: is the agent running? `--state DIR` or \
                 `--config FILE` says where it keeps its state",
                STATES.join(" or ")
            );
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match ask(&socket) {
        Ok(status) => {
            let text = match args.json {
                true => format!("{status:#}\n"),
                false => render(&status),
            };
            // A reader that closes the pipe early, such as `head`, is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!(
                "error: {}: {error}\nhint: {}",
                socket.display(),
                hint(error.kind())
            );
            ExitCode::FAILURE
        }
    }
}

impl Args {
    /// `None`: nobody said which, and there is none where agents keep their state.
    fn socket(&self) -> Result<Option<PathBuf>, SettingsError> {
        let state = match &self.config {
            Some(file) => Some(state_in(file)?),
            None => self.state.clone(),
        };
        let socket = state.map(|state| state.join(fieldlock_agent::SOCKET));
        Ok(self.socket.clone().or(socket).or_else(default_socket))
    }
}

fn default_socket() -> Option<PathBuf> {
    STATES
        .iter()
        .map(|state| Path::new(state).join(fieldlock_agent::SOCKET))
        // One that can't be looked at is there for all that is known, and asking it says why.
        .find(|path| path.try_exists().unwrap_or(true))
}

fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => {
            "only root and the user that the agent runs as may ask it: `sudo fieldlock status`"
        }
        ErrorKind::NotFound => {
            "is the agent running, and is this its state directory? `--state DIR` or \
             `--config FILE` names another"
        }
        ErrorKind::ConnectionRefused => {
            "the agent has ended and left its socket; its log says why, \
             `journalctl -u 'fieldlock-*'` shows it where systemd runs it"
        }
        _ => "the agent runs and does not answer: is it stopped, or the machine very busy?",
    }
}

/// Reads the one document that an agent answers with.
pub(crate) fn ask(socket: &Path) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(std::io::Error::from)
}

fn render(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = render_into(&mut out, status);
    out
}

fn render_into(out: &mut String, status: &Value) -> std::fmt::Result {
    writeln!(
        out,
        "{} {}  fieldlock {}  up {}",
        text(&status["role"]),
        text(&status["identity"]),
        text(&status["version"]),
        duration(&status["up_seconds"]),
    )?;
    let certificate = &status["certificate"];
    writeln!(
        out,
        "certificate expires {}, CRL next update {}",
        text(&certificate["expires"]),
        text(&certificate["crl_next_update"]),
    )?;
    writeln!(
        out,
        "policy {}, audit log {}, {} records, signed to {}",
        text(&status["policy"]),
        if status["audit"]["writable"] == true {
            "writable"
        } else {
            "CAN'T BE WRITTEN"
        },
        status["audit"]["durable_seq"].as_u64().unwrap_or_default(),
        status["audit"]["signed_seq"].as_u64().unwrap_or_default(),
    )?;
    bundle(out, &status["bundle"])?;
    sandbox(out, &status["sandbox"])?;
    for alarm in list(&status["alarms"]) {
        let since = duration(&alarm["seconds"]);
        writeln!(
            out,
            "ALARM {} ({since}): {}",
            text(&alarm["name"]),
            text(&alarm["text"])
        )?;
    }
    for warning in list(&status["policy_warnings"]) {
        writeln!(out, "warning: {}", text(warning))?;
    }
    tunnels(out, status)?;
    refusals(out, status)?;
    devices(out, status)?;
    clients(out, status)?;
    profinet::render(out, &status["profinet"])
}

/// Where it is not as it should be.
fn sandbox(out: &mut String, sandbox: &Value) -> std::fmt::Result {
    let (files, calls) = (&sandbox["files"], &sandbox["calls"]);
    match files == "full" && calls == "full" {
        true => Ok(()),
        false => writeln!(
            out,
            "sandbox: files {}, system calls {}",
            text(files),
            text(calls)
        ),
    }
}

fn bundle(out: &mut String, bundle: &Value) -> std::fmt::Result {
    if let Some(signer) = bundle["signer"].as_str() {
        writeln!(
            out,
            "policy bundle {}, signed by {signer}, since {}",
            bundle["version"],
            text(&bundle["since"]),
        )?;
    } else if let Some(reason) = bundle["missing"].as_str() {
        writeln!(out, "NO POLICY BUNDLE: {reason}")?;
    }
    let waiting = &bundle["waiting"];
    if !waiting.is_null() {
        writeln!(
            out,
            "policy bundle {} waits until {}",
            waiting["version"],
            text(&waiting["not_before"]),
        )?;
    }
    Ok(())
}

fn tunnels(out: &mut String, status: &Value) -> std::fmt::Result {
    for tunnel in list(&status["tunnels"]) {
        tunnel_line(
            out,
            &format!("tunnel of edge {}", text(&tunnel["edge"])),
            tunnel,
        )?;
    }
    for headend in list(&status["headends"]) {
        let name = text(&headend["name"]);
        for tunnel in list(&headend["tunnels"]) {
            tunnel_line(out, &format!("tunnel to headend {name}"), tunnel)?;
        }
        if list(&headend["tunnels"]).is_empty() {
            let error = text(&headend["last_error"]);
            writeln!(out, "no tunnel to headend {name}: {error}")?;
        }
    }
    Ok(())
}

fn tunnel_line(out: &mut String, name: &str, tunnel: &Value) -> std::fmt::Result {
    let policy = if tunnel["same_policy"] == true {
        "same policy"
    } else {
        "other policy"
    };
    write!(
        out,
        "{name}: {} {}, {}, round trip {} ms, up {}, {policy} {}",
        text(&tunnel["transport"]),
        text(&tunnel["address"]),
        text(&tunnel["key_exchange"]),
        text(&tunnel["round_trip_ms"]),
        duration(&tunnel["up_seconds"]),
        text(&tunnel["policy"]),
    )?;
    let bundle = &tunnel["bundle"];
    match bundle["version"].as_u64() {
        Some(0) => write!(out, ", NO BUNDLE")?,
        Some(version) => write!(out, ", bundle {version}")?,
        None => {}
    }
    for (fate, word) in [("waiting", "waits"), ("refused", "REFUSED")] {
        let pending = &bundle[fate];
        if !pending.is_null() {
            let (version, why) = (&pending["version"], text(&pending["text"]));
            write!(out, ", bundle {version} {word}: {why}")?;
        }
    }
    writeln!(out)
}

/// Edges that were turned away lately.
fn refusals(out: &mut String, status: &Value) -> std::fmt::Result {
    for refusal in list(&status["refusals"]) {
        writeln!(
            out,
            "TURNED AWAY: {} from {}, {} times, last {} ago: {}",
            text(&refusal["who"]),
            text(&refusal["address"]),
            refusal["count"],
            duration(&refusal["seconds"]),
            text(&refusal["reason"]),
        )?;
    }
    Ok(())
}

fn devices(out: &mut String, status: &Value) -> std::fmt::Result {
    for device in list(&status["devices"]) {
        write!(out, "device {}:", text(&device["name"]))?;
        match device["connected"].as_bool() {
            Some(true) => write!(out, " connected through edge {}", text(&device["edge"]))?,
            Some(false) => write!(out, " NOT CONNECTED, edge {}", text(&device["edge"]))?,
            None => write!(
                out,
                " {}{}, {} connections, {} in flight, {} queued",
                text(&device["address"]),
                match device["reachable"].as_bool() {
                    Some(true) => ", reachable",
                    Some(false) => ", NOT REACHABLE",
                    None => "",
                },
                device["connections"],
                device["in_flight"],
                device["queued"],
            )?,
        }
        if let Some(counters) = device["counters"].as_object() {
            for (name, count) in counters {
                write!(out, ", {} {count}", name.replace('_', " "))?;
            }
        }
        for unit in list(&device["units_held_off"]) {
            write!(out, ", unit {unit} does not answer and is held off")?;
        }
        if let Some(error) = device["last_error"].as_str() {
            write!(out, ": {error}")?;
        }
        for quirk in list(&device["quirks"]) {
            let name = text(&quirk["name"]);
            write!(out, ", quirk {name} borne {} times", quirk["borne"])?;
        }
        if let Some(fault) = device["last_fault"].as_str() {
            write!(out, ", last refused: {fault}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn clients(out: &mut String, status: &Value) -> std::fmt::Result {
    let clients = &status["clients"];
    if clients.is_null() {
        return Ok(());
    }
    writeln!(out, "clients: {}", clients["count"])?;
    for client in list(&clients["connections"]).iter().take(20) {
        write!(
            out,
            "  {} {}",
            text(&client["address"]),
            text(&client["name"]),
        )?;
        if let Some(identity) = client["identity"].as_str() {
            let role = client["modbus_role"].as_str().unwrap_or("none");
            write!(out, ", {identity}, Modbus role {role}")?;
        }
        write!(
            out,
            ", {} requests, {} in flight",
            client["requests"], client["in_flight"],
        )?;
        if let Some(count @ 1..) = client["given_up"].as_u64() {
            write!(
                out,
                ", {count} answers after the client asked again: its time-out is below answer_within"
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        value => value.to_string(),
    }
}

fn duration(seconds: &Value) -> String {
    let seconds = seconds.as_u64().unwrap_or(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
