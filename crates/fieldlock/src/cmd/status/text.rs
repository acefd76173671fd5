//! A status, for people.

use std::fmt::{Result, Write as _};

use fieldlock_status::{Common, Sandbox, Status, edge, headend};

use super::profinet;

pub(super) fn render(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = render_into(&mut out, status);
    out
}

fn render_into(out: &mut String, status: &Status) -> Result {
    let common = status.common();
    header(out, status.role(), common)?;
    if let Status::Edge(edge) = status {
        bundle(out, edge.bundle.as_ref())?;
    }
    sandbox(out, common.sandbox.as_ref())?;
    for alarm in &common.alarms {
        let since = duration(alarm.seconds);
        writeln!(out, "ALARM {} ({since}): {}", alarm.name, alarm.text)?;
    }
    for warning in &common.policy_warnings {
        writeln!(out, "warning: {warning}")?;
    }
    match status {
        Status::Edge(edge) => of_edge(out, edge)?,
        Status::Headend(headend) => of_headend(out, headend)?,
    }
    match status.profinet() {
        Some(profinet) => profinet::render(out, profinet),
        None => Ok(()),
    }
}

fn header(out: &mut String, role: &str, common: &Common) -> Result {
    writeln!(
        out,
        "{role} {}  fieldlock {}  up {}",
        common.identity,
        common.version,
        duration(common.up_seconds),
    )?;
    let certificate = &common.certificate;
    writeln!(
        out,
        "certificate expires {}, CRL next update {}",
        certificate.expires, certificate.crl_next_update,
    )?;
    let audit = &common.audit;
    writeln!(
        out,
        "policy {}, audit log {}, {} records, signed to {}",
        common.policy,
        match audit.writable {
            true => "writable",
            false => "CAN'T BE WRITTEN",
        },
        audit.durable_seq,
        audit.signed_seq.unwrap_or_default(),
    )
}

/// Where it is not as it should be.
fn sandbox(out: &mut String, sandbox: Option<&Sandbox>) -> Result {
    match sandbox {
        Some(sandbox) if sandbox.files != "full" || sandbox.calls != "full" => writeln!(
            out,
            "sandbox: files {}, system calls {}",
            sandbox.files, sandbox.calls
        ),
        _ => Ok(()),
    }
}

fn bundle(out: &mut String, bundle: Option<&edge::Bundle>) -> Result {
    let Some(bundle) = bundle else {
        return Ok(());
    };
    if let Some(signer) = &bundle.signer {
        writeln!(
            out,
            "policy bundle {}, signed by {signer}, since {}",
            bundle.version,
            or_dash(bundle.since.as_ref()),
        )?;
    } else if let Some(reason) = &bundle.missing {
        writeln!(out, "NO POLICY BUNDLE: {reason}")?;
    }
    match &bundle.waiting {
        Some(waiting) => writeln!(
            out,
            "policy bundle {} waits until {}",
            waiting.version, waiting.not_before,
        ),
        None => Ok(()),
    }
}

fn of_edge(out: &mut String, edge: &edge::Edge) -> Result {
    for headend in &edge.headends {
        let name = &headend.name;
        for tunnel in &headend.tunnels {
            writeln!(out, "tunnel to headend {name}: {}", Line::from(tunnel))?;
        }
        if headend.tunnels.is_empty() {
            let error = or_dash(headend.last_error.as_ref());
            writeln!(out, "no tunnel to headend {name}: {error}")?;
        }
    }
    for device in &edge.devices {
        device_of_edge(out, device)?;
    }
    Ok(())
}

fn of_headend(out: &mut String, headend: &headend::Headend) -> Result {
    for tunnel in &headend.tunnels {
        write!(
            out,
            "tunnel of edge {}: {}",
            tunnel.edge,
            Line::from(tunnel)
        )?;
        carried(out, tunnel.bundle.as_ref())?;
        writeln!(out)?;
    }
    for refusal in &headend.refusals {
        writeln!(
            out,
            "TURNED AWAY: {} from {}, {} times, last {} ago: {}",
            refusal.who,
            refusal.address,
            refusal.count,
            duration(refusal.seconds),
            refusal.reason,
        )?;
    }
    for device in &headend.devices {
        device_of_headend(out, device)?;
    }
    clients(out, &headend.clients)
}

/// What both ends say of a tunnel.
struct Line<'a> {
    transport: &'a str,
    address: &'a str,
    key_exchange: &'a str,
    round_trip_ms: Option<f64>,
    up_seconds: u64,
    same_policy: bool,
    policy: Option<&'a String>,
}

impl<'a> From<&'a edge::Tunnel> for Line<'a> {
    fn from(tunnel: &'a edge::Tunnel) -> Self {
        Self {
            transport: &tunnel.transport,
            address: &tunnel.address,
            key_exchange: &tunnel.key_exchange,
            round_trip_ms: tunnel.round_trip_ms,
            up_seconds: tunnel.up_seconds,
            same_policy: tunnel.same_policy,
            policy: tunnel.policy.as_ref(),
        }
    }
}

impl<'a> From<&'a headend::Tunnel> for Line<'a> {
    fn from(tunnel: &'a headend::Tunnel) -> Self {
        Self {
            transport: &tunnel.transport,
            address: &tunnel.address,
            key_exchange: &tunnel.key_exchange,
            round_trip_ms: tunnel.round_trip_ms,
            up_seconds: tunnel.up_seconds,
            same_policy: tunnel.same_policy,
            policy: Some(&tunnel.policy),
        }
    }
}

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> Result {
        let policy = match self.same_policy {
            true => "same policy",
            false => "other policy",
        };
        let round_trip = self.round_trip_ms.map(|ms| ms.to_string());
        write!(
            f,
            "{} {}, {}, round trip {} ms, up {}, {policy} {}",
            self.transport,
            self.address,
            self.key_exchange,
            or_dash(round_trip.as_ref()),
            duration(self.up_seconds),
            or_dash(self.policy),
        )
    }
}

/// What an edge has of policy bundles.
fn carried(out: &mut String, bundle: Option<&headend::Bundle>) -> Result {
    let Some(bundle) = bundle else {
        return Ok(());
    };
    match bundle.version {
        0 => write!(out, ", NO BUNDLE")?,
        version => write!(out, ", bundle {version}")?,
    }
    for (pending, word) in [(&bundle.waiting, "waits"), (&bundle.refused, "REFUSED")] {
        if let Some(pending) = pending {
            let (version, why) = (pending.version, &pending.text);
            write!(out, ", bundle {version} {word}: {why}")?;
        }
    }
    Ok(())
}

fn device_of_headend(out: &mut String, device: &headend::Device) -> Result {
    let is = match device.connected {
        true => "connected through",
        false => "NOT CONNECTED,",
    };
    write!(out, "device {}: {is} edge {}", device.name, device.edge)?;
    counters(out, device.counters.named())?;
    writeln!(out)
}

fn device_of_edge(out: &mut String, device: &edge::Device) -> Result {
    write!(
        out,
        "device {}: {}{}, {} connections, {} in flight, {} queued",
        device.name,
        device.address,
        match device.reachable {
            Some(true) => ", reachable",
            Some(false) => ", NOT REACHABLE",
            None => "",
        },
        device.connections,
        device.in_flight,
        device.queued,
    )?;
    counters(out, device.counters.named())?;
    for unit in &device.units_held_off {
        write!(out, ", unit {unit} does not answer and is held off")?;
    }
    if let Some(error) = &device.last_error {
        write!(out, ": {error}")?;
    }
    for quirk in &device.quirks {
        write!(out, ", quirk {} borne {} times", quirk.name, quirk.borne)?;
    }
    if let Some(fault) = &device.last_fault {
        write!(out, ", last refused: {fault}")?;
    }
    writeln!(out)
}

fn counters(out: &mut String, named: impl Iterator<Item = (&'static str, u64)>) -> Result {
    for (name, count) in named {
        write!(out, ", {} {count}", name.replace('_', " "))?;
    }
    Ok(())
}

/// Clients that are shown: a person looks.
const CLIENTS: usize = 20;

fn clients(out: &mut String, clients: &headend::Clients) -> Result {
    writeln!(out, "clients: {}", clients.count)?;
    for client in clients.connections.iter().take(CLIENTS) {
        write!(
            out,
            "  {} {}",
            client.address,
            or_dash(client.name.as_ref())
        )?;
        if let Some(identity) = &client.identity {
            let role = client.modbus_role.as_deref().unwrap_or("none");
            write!(out, ", {identity}, Modbus role {role}")?;
        }
        write!(
            out,
            ", {} requests, {} in flight",
            client.requests, client.in_flight,
        )?;
        if let count @ 1.. = client.given_up {
            write!(
                out,
                ", {count} answers after the client asked again: its time-out is below answer_within"
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

pub(crate) fn or_dash(text: Option<&String>) -> &str {
    text.map_or("-", String::as_str)
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
