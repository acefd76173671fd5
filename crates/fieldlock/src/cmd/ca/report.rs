//! What `fieldlock ca` says: data on standard output, the rest on standard error.

use std::io::{self, Write};
use std::path::Path;

use fieldlock_ca::authority::{Revocable, State};
use fieldlock_ca::{Ca, CaError, Entry, Issued, Source, Time};
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Crl, Summary};
use serde_json::json;

/// A certificate and where it stands.
pub(super) type Known = (Entry, State);

pub(super) fn tell_issued(issued: &Issued) {
    describe("certificate", &issued.summary);
    if issued.cut_short {
        eprintln!("note: it expires early, with the issuing CA: renew the CA soon");
    }
    for serial in &issued.still_valid {
        eprintln!(
            "note: an earlier certificate of this name is still valid: {serial} (`fieldlock ca revoke {serial} --reason superseded` revokes it)"
        );
    }
}

/// Whom it hit, and what the same identity can still show.
pub(super) fn tell_revoked(
    ca: &Ca,
    revoked: &Revocable,
    reason: Reason,
    now: Time,
) -> Result<(), CaError> {
    let identity = match (revoked.entries.first(), revoked.tokens.first()) {
        (Some(entry), _) => (entry.role, entry.name.clone()),
        (None, Some(token)) => (token.role, token.name.clone()),
        (None, None) => return Ok(()),
    };
    let (role, name) = identity;
    for entry in &revoked.entries {
        let until = match entry.not_after >= now {
            true => "valid until",
            false => "expired on",
        };
        eprintln!(
            "revoked {role}/{name}: certificate {}, {until} {} ({reason})",
            entry.serial, entry.not_after
        );
    }
    for token in &revoked.tokens {
        eprintln!(
            "cancelled a token of {role}/{name} that could be used until {}",
            token.expires
        );
    }
    for entry in ca.valid_certificates(role, &name, now)? {
        eprintln!(
            "note: {role}/{name} has another certificate, {}, valid until {} (`fieldlock ca revoke {role}/{name}` takes all)",
            entry.serial, entry.not_after
        );
    }
    let mut open = ca.open_tokens(now)?;
    open.retain(|token| token.role == role && token.name == name);
    for token in open {
        eprintln!(
            "note: {role}/{name} has a token that can be used until {} (`fieldlock ca tokens --cancel {role}/{name}` cancels it)",
            token.expires
        );
    }
    Ok(())
}

pub(super) fn tell_crl(crl: &Crl) {
    eprintln!(
        "CRL {} of {}: {} revoked, next one due {}",
        crl.number,
        crl.issuer,
        crl.revoked().len(),
        Time(crl.next_update)
    );
}

pub(super) fn describe(what: &str, summary: &Summary) {
    let name = summary
        .identity
        .as_ref()
        .map_or_else(|| summary.subject.clone(), ToString::to_string);
    eprintln!("{what}: {name}");
    eprintln!("  serial       {}", summary.serial);
    eprintln!(
        "  valid        {} to {}",
        Time(summary.not_before),
        Time(summary.not_after)
    );
    if let Some(role) = &summary.modbus_role {
        eprintln!("  Modbus role  {role}");
    }
    eprintln!("  fingerprint  {}", summary.fingerprint);
}

pub(super) fn details(ca: &Ca, (entry, state): &Known) -> String {
    let state = match state {
        State::Revoked { time, reason } => format!("revoked {time} ({reason})"),
        state => state.as_str().to_owned(),
    };
    let source = match &entry.source {
        Source::Request(file) => format!("request {file:?}"),
        Source::Token(hash) => {
            format!("one-time token {}", hash.get(..8).unwrap_or_default())
        }
        Source::Renewal(serial) => format!("renewal of {serial}"),
        Source::Made => "made with the certificate".to_owned(),
    };
    let role = entry.modbus_role.as_ref();
    let role = role.map_or(String::new(), |role| format!("  Modbus    role {role}\n"));
    format!(
        "{identity}\n{role}  serial    {serial}\n  state     {state}\n  valid     {from} to {to}\n  key       {source}\n  key hash  {hash}\n",
        identity = entry.identity(&ca.settings().site),
        serial = entry.serial,
        from = entry.not_before,
        to = entry.not_after,
        hash = entry.key_hash,
    )
}

pub(super) fn print_json(ca: &Ca, known: &[Known], now: Time) -> Result<(), CaError> {
    let list: Vec<serde_json::Value> = known
        .iter()
        .map(|(entry, state)| {
            let revoked = match state {
                State::Revoked { time, reason } => json!({ "time": time, "reason": reason }),
                _ => serde_json::Value::Null,
            };
            json!({
                "identity": entry.identity(&ca.settings().site).uri(),
                "role": entry.role,
                "name": entry.name,
                "modbus_role": entry.modbus_role,
                "serial": entry.serial,
                "state": state.as_str(),
                "revoked": revoked,
                "not_before": entry.not_before,
                "not_after": entry.not_after,
                "days_left": entry.not_after.days_from(now),
                "key_hash": entry.key_hash,
                "source": entry.source,
            })
        })
        .collect();
    print(&format!("{:#}\n", serde_json::Value::Array(list)))
}

/// Names and serials come from small alphabets without commas, quotes or signs that a spreadsheet
/// takes for the beginning of a formula; `-` begins none of them.
pub(super) fn print_csv(known: &[Known]) -> Result<(), CaError> {
    let mut text = "role,name,state,not_before,not_after,serial,key_hash\n".to_owned();
    for (entry, state) in known {
        text.push_str(&format!(
            "{},{},{},{},{},{},{}\n",
            entry.role,
            entry.name,
            state.as_str(),
            entry.not_before,
            entry.not_after,
            entry.serial,
            entry.key_hash
        ));
    }
    print(&text)
}

pub(super) fn output(file: Option<&Path>, text: &str) -> Result<(), CaError> {
    match file {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| CaError::io(path, error))?;
            eprintln!("written to {}", path.display());
            Ok(())
        }
        None => print(text),
    }
}

pub(super) fn print(text: &str) -> Result<(), CaError> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| CaError::io(Path::new("standard output"), error))
}
