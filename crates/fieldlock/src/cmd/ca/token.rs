//! `fieldlock ca token`.

use clap::Parser;
use fieldlock_ca::{Access, CaError, Time, TokenOrder};
use fieldlock_pki::{Name, Role};
use jiff::SignedDuration;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use super::report::print;
use super::{At, open};

/// Make a one-time token, with which a box gets its certificate by itself
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca token --dir ca --role edge --name press-07 --address hd-1.dmz.example:4433
  fieldlock ca token --dir ca --role edge --name press-07 --ttl 8h --qr
On the box: fieldlock enroll join --state /var/lib/fieldlock/edge
Whoever has the token can become this agent once, until it ends: hand it over as a password.")]
pub(super) struct Token {
    #[command(flatten)]
    at: At,
    /// edge, headend, operator, client or device
    #[arg(long)]
    role: Role,
    /// Name of the agent: a-z, 0-9 and `-`
    #[arg(long)]
    name: Name,
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
    /// Print token, role, name and end as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Token) -> Result<(), CaError> {
    let mut ca = open(&args.at.dir, Access::Write)?;
    let configured = ca.settings().serve.address.clone();
    let order = TokenOrder {
        role: args.role,
        name: args.name,
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
            "expires": entry.expires,
        });
        return print(&format!("{value}\n"));
    }
    if args.qr {
        let code = QrCode::new(text.as_bytes()).map_err(|_| CaError::Unreadable)?;
        eprintln!("{}", code.render::<Dense1x2>().build());
    }
    eprintln!(
        "for {}/{}, once, until {}; on the box: fieldlock enroll join",
        entry.role, entry.name, entry.expires
    );
    print(&format!("{}\n", *text))
}

fn ttl(text: &str) -> Result<i64, String> {
    let wrong = || "use a time such as `30m`, `1h` or `2d`".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let length: SignedDuration = span.to_duration(days).map_err(|_| wrong())?;
    let seconds = length.as_secs();
    match (60..=30 * 86_400).contains(&seconds) {
        true => Ok(seconds),
        false => Err("a token lives for a minute to 30 days".to_owned()),
    }
}
