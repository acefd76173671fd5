//! `fieldlock ca token` and `tokens`.

use clap::Parser;
use fieldlock_ca::event::TokenEntry;
use fieldlock_ca::{Access, Ca, CaError, Time, TokenOrder};
use fieldlock_pki::{ModbusRole, Name, NameError, Role};
use jiff::SignedDuration;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use super::At;
use super::report::print;
use crate::cmd::enroll::default_state;

/// Make a one-time token, with which a box gets its certificate by itself
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca token --dir ca --role edge --name press-07 --address hd-1.dmz.example:4433
  fieldlock ca token --dir ca --role edge --name press-07 --ttl 8h --qr
On the box: fieldlock enroll join --state /var/lib/fieldlock/edge
Whoever has the token can become this agent once, until it expires: hand it over as a password.")]
pub(super) struct Token {
    #[command(flatten)]
    at: At,
    /// edge, headend, operator, client or device
    #[arg(long)]
    role: Role,
    /// Name of the agent: a-z, 0-9 and `-`
    #[arg(long)]
    name: Name,
    /// Role for Modbus/TCP Security, such as `Operator`; for client (or edge) only
    #[arg(long, value_name = "NAME")]
    modbus_role: Option<ModbusRole>,
    /// How long it can be used: `30m`, `1h`, `2d`
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = ttl)]
    ttl: i64,
    /// Where the box finds the CA: a headend that passes connections on, or the CA itself
    /// [default: `address` under [serve] in ca.toml]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Print it as a QR code too
    #[arg(long)]
    qr: bool,
    /// Print token, role, name and expiry as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Token) -> Result<(), CaError> {
    let mut ca = Ca::open(&args.at.dir, Access::Write)?;
    let configured = ca.settings().serve.address.clone();
    let order = TokenOrder {
        role: args.role,
        name: args.name,
        modbus_role: args.modbus_role,
        address: args.address.or(configured).ok_or(CaError::NoAddress)?,
        life: args.ttl,
    };
    let (token, entry) = ca.token(order, Time::now())?;
    let text = token.to_text();
    if args.json {
        let value = json!({
            "token": &*text,
            "role": entry.role,
            "name": entry.name,
            "modbus_role": entry.modbus_role,
            "expires": entry.expires,
        });
        return print(&format!("{value}\n"));
    }
    if args.qr {
        let code = QrCode::new(text.as_bytes()).map_err(|_| CaError::Unreadable)?;
        eprintln!("{}", code.render::<Dense1x2>().build());
    }
    eprintln!(
        "for {}/{}, once, until {}. On the box, as the user that runs the agent:",
        entry.role, entry.name, entry.expires
    );
    eprintln!(
        "  fieldlock enroll join --state {}",
        default_state(entry.role).display()
    );
    print(&format!("{}\n", *text))
}

/// List the tokens that can still be used, or cancel those of an identity
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca tokens --dir ca
  fieldlock ca tokens --dir ca --cancel edge/press-07")]
pub(super) struct Tokens {
    #[command(flatten)]
    at: At,
    /// Cancel every open token of this identity
    #[arg(long, value_name = "ROLE/NAME", value_parser = identity)]
    cancel: Option<(Role, Name)>,
    #[arg(long, conflicts_with = "cancel")]
    json: bool,
}

pub(super) fn list(args: &Tokens) -> Result<(), CaError> {
    let now = Time::now();
    if let Some((role, name)) = &args.cancel {
        let mut ca = Ca::open(&args.at.dir, Access::Write)?;
        return match ca.cancel_tokens(*role, name, now)? {
            0 => Err(CaError::NoToken {
                role: *role,
                name: name.clone(),
            }),
            count => {
                eprintln!("{count} cancelled");
                Ok(())
            }
        };
    }
    let open = Ca::open(&args.at.dir, Access::Read)?.open_tokens(now)?;
    if args.json {
        let text = serde_json::to_string_pretty(&open).map_err(|_| CaError::Unreadable)?;
        return print(&format!("{text}\n"));
    }
    let line = |token: TokenEntry| {
        let role = token.modbus_role.as_ref();
        format!(
            "{:<9} {:<24} until {}{}\n",
            token.role,
            token.name,
            token.expires,
            role.map_or(String::new(), |role| format!(", Modbus role {role}"))
        )
    };
    print(&open.into_iter().map(line).collect::<String>())
}

fn identity(text: &str) -> Result<(Role, Name), ArgumentError> {
    let (role, name) = text.split_once('/').ok_or(ArgumentError::Identity)?;
    Ok((role.parse()?, name.parse()?))
}

fn ttl(text: &str) -> Result<i64, ArgumentError> {
    let span: jiff::Span = text.parse().map_err(|_| ArgumentError::Time)?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let length: SignedDuration = span.to_duration(days).map_err(|_| ArgumentError::Time)?;
    let seconds = length.as_secs();
    match (60..=30 * 86_400).contains(&seconds) {
        true => Ok(seconds),
        false => Err(ArgumentError::Life),
    }
}

#[derive(Debug, thiserror::Error)]
enum ArgumentError {
    #[error("write it as `edge/press-07`")]
    Identity,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("use a time such as `30m`, `1h` or `2d`")]
    Time,
    #[error("a token lives for a minute to 30 days")]
    Life,
}
