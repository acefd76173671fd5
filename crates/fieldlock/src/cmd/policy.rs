//! `fieldlock policy`: checks a policy file, explains what it decides, compares two, judges
//! captures, suggests a policy from what was seen, and signs one for a fleet.

mod diff;
mod file;
mod replay;
mod schema;
mod sign;
mod station;
mod suggest;
mod traffic;

use std::fmt::Display;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Subcommand};
use fieldlock_modbus::{FunctionCode, Request};
use fieldlock_policy::{
    Asked, Client, Explanation, Now, NumberType, Origin, Policy, Sample, Side, Span, WordOrder,
    ceiling, explain, explain_named, parse_address, parse_function, summary, warnings,
};
use fieldlock_profinet::StationName;
use fieldlock_signed::PublicKey;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use file::Loaded;

/// Check policy files, explain what they decide, see what a change does, sign them for a fleet.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Explain(Box<Explain>),
    Diff(diff::Diff),
    Replay(replay::ReplayArgs),
    Schema(schema::Schema),
    Suggest(suggest::Suggest),
    Key(sign::Key),
    Sign(sign::Sign),
}

/// Check policy files and bundles: every error with its line, then what probably was not meant.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fieldlock policy check /etc/fieldlock/policy.toml
  fieldlock policy check --json policies/*.toml
  fieldlock policy check fleet.bundle --signer $(fieldlock policy key policy.key --print)

Exit codes: 0 every file is valid, 2 one is not. Warnings do not change the exit code.")]
struct Check {
    /// Policy files, or bundles of `policy sign`: of those the signature is checked as well.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The only key that bundles may be signed with, as `policy key` prints it; may be given several
    /// times, and then no plain policy file is valid.
    #[arg(long, value_name = "KEY")]
    signer: Vec<PublicKey>,
    /// Print one JSON object for each file.
    #[arg(long)]
    json: bool,
}

/// Explain what the policy decides about one request, rule by rule, or with --as-edge what a
/// hostile headend can reach at most.
#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("who").args(["client", "client_name"])),
    group(ArgGroup::new("what").args(["function", "pdu", "service"])),
    after_help = "\
Examples:
  fieldlock policy explain --policy policy.toml --client 10.1.1.20 \\
      --device press-07 --unit 1 --function 3 --address \"holding 0-9\"
  fieldlock policy explain --policy policy.toml --client-name hmi-1 \\
      --device press-07 --unit 1 --function write-single-register --address 4x00041 --value 1300
  fieldlock policy explain --policy policy.toml --client-name hmi-1 --via hd-1 \\
      --device press-07 --unit 1 --pdu 10002800020400010002
  fieldlock policy explain --policy policy.toml --client-name hmi-1 --device press-07 \\
      --function 6 --address \"holding 40\" --value 900 --at 2026-03-02T07:00:00+01:00
  fieldlock policy explain --policy policy.toml --client-name hmi-1 --device press-07 \\
      --function 16 --address \"holding 50\" --type float32 --word-order little --value 20.5
  fieldlock policy explain --policy policy.toml --client-name plc-1 \\
      --station drive-1 --service write --record 0x8001 --slot 1.1
  fieldlock policy explain --policy policy.toml --as-edge --via hd-1
  fieldlock policy explain --policy fleet.bundle --narrowed-by local.toml --as-edge

Exit codes: 0 allowed (or the ceiling printed), 1 refused, 2 wrong usage or an invalid policy."
)]
struct Explain {
    /// The policy file or bundle.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The edge's local policy file, which has to allow a request as well.
    #[arg(long, value_name = "FILE", conflicts_with = "client_name")]
    narrowed_by: Option<PathBuf>,
    /// Print what a hostile headend can reach through an edge with this policy, whatever clients
    /// it states; with --via that headend alone.
    #[arg(long, conflicts_with_all = ["who", "what", "device", "station"])]
    as_edge: bool,
    /// The client's address, as the headend sees it.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// A client by its name in the policy; may be given several times.
    #[arg(long, value_name = "NAME")]
    client_name: Vec<String>,
    /// The identity that the client's certificate proves.
    #[arg(long, value_name = "URI", conflicts_with = "client_name")]
    identity: Option<String>,
    /// The role that the client's certificate states.
    #[arg(long, conflicts_with = "client_name")]
    role: Option<String>,
    /// Decide as the edge does for requests through this headend; without it, as a headend.
    #[arg(long, value_name = "HEADEND")]
    via: Option<String>,
    /// The device's name.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["as_edge", "station"])]
    device: Option<String>,
    /// The unit as the device knows it.
    #[arg(long, default_value_t = 1)]
    unit: u8,
    /// A function's number, or its name such as read-holding-registers.
    #[arg(long, value_name = "FUNCTION", value_parser = function, required_unless_present_any = ["as_edge", "pdu", "station"])]
    function: Option<FunctionCode>,
    /// Address or range: "holding 40", "coil 0-15", 4x00041. For functions that have one.
    #[arg(long, value_parser = parse_address, conflicts_with = "pdu")]
    address: Option<Span>,
    /// Number of elements, where the address is not a range.
    #[arg(long, conflicts_with = "pdu")]
    quantity: Option<u16>,
    /// The value to be written to every element.
    #[arg(long, conflicts_with = "pdu", allow_negative_numbers = true)]
    value: Option<String>,
    /// What that value is, where it is no plain register: int16, int32, uint32, float32, float64.
    #[arg(long = "type", value_name = "TYPE", requires = "value")]
    number: Option<NumberType>,
    /// Which of its registers comes first, the most significant (big, ABCD) or the least (little, CDAB).
    #[arg(long, value_name = "ORDER", requires = "number", default_value = "big")]
    word_order: WordOrder,
    /// The whole PDU in hexadecimal, in place of function, address and value.
    #[arg(long, value_name = "HEX")]
    pdu: Option<String>,
    #[command(flatten)]
    of_station: station::StationArgs,
    /// Decide as at this time, such as 2026-03-02T07:00:00+01:00; as now if left out.
    #[arg(long, value_name = "TIME", conflicts_with = "as_edge")]
    at: Option<Timestamp>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Check(check) => run_check(&check),
        Command::Explain(explain) => or_invalid(run_explain(&explain)),
        Command::Diff(args) => or_invalid(diff::run(&args)),
        Command::Replay(args) => or_invalid(replay::run(&args)),
        Command::Schema(args) => schema::run(&args),
        Command::Suggest(args) => or_invalid(suggest::run(&args)),
        Command::Key(key) => done(sign::key(&key)),
        Command::Sign(sign) => done(sign::sign(&sign)),
    }
}

fn done(result: Result<(), sign::SignError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error.is_usage() {
                true => INVALID.into(),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn or_invalid(result: Result<ExitCode, Error>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        INVALID.into()
    })
}

const REFUSED: u8 = 1;
const INVALID: u8 = 2;

/// Why nothing could be explained or checked.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    File(#[from] file::FileError),
    #[error("{0}")]
    Capture(#[from] fieldlock_capture::CaptureError),
    #[error("{0}")]
    Source(#[from] fieldlock_learn::suggest::SourceError),
    #[error(
        "error: --port, --device and --frames are for a capture; a log names its devices itself"
    )]
    ScopeOfLog,
    #[error("{0}")]
    Diff(#[from] fieldlock_policy::TooLarge),
    #[error("{0}")]
    UnknownClient(#[from] fieldlock_policy::UnknownClient),
    #[error("--value {text:?} is no {number}{}", match .number {
        NumberType::Uint16 => "; give its type, such as --type int16",
        _ => "",
    })]
    Value { text: String, number: NumberType },
    #[error("the request does not fit together: {0}")]
    Sample(#[from] fieldlock_policy::SampleError),
    #[error("the call does not fit together: {0}")]
    Call(#[from] fieldlock_policy::CallError),
    #[error(
        "--pdu is not hexadecimal: an even number of digits 0-9 and a-f, colons and spaces allowed"
    )]
    Hex,
    #[error(
        "not a valid request, so refused with exception {exception:#04x} before any policy: {what}"
    )]
    Malformed { exception: u8, what: String },
}

fn load(path: &Path) -> Result<Policy, Error> {
    Ok(Loaded::read(path, &[])?.policy)
}

fn run_check(check: &Check) -> ExitCode {
    let mut all_valid = true;
    for path in &check.files {
        let file = path.display();
        match Loaded::read(path, &check.signer).map_err(Error::from) {
            Ok(loaded) if check.json => print(checked_json(path, &loaded)),
            Ok(loaded) => print_checked(path, &loaded),
            Err(error) => {
                all_valid = false;
                eprintln!("{error}");
                if check.json {
                    let report = json!({ "file": file.to_string(), "valid": false, "errors": errors_json(&error) });
                    print(report);
                }
            }
        }
    }
    if all_valid {
        ExitCode::SUCCESS
    } else {
        INVALID.into()
    }
}

fn print_checked(path: &Path, loaded: &Loaded) {
    let file = path.display();
    let policy = &loaded.policy;
    print(format_args!("{file}: valid"));
    if let Some(bundle) = &loaded.bundle {
        print(file::describe(bundle));
    }
    print(summary(policy));
    for warning in warnings(policy, Timestamp::now().as_second()) {
        eprintln!("{file}: warning: {warning}");
    }
}

fn checked_json(path: &Path, loaded: &Loaded) -> serde_json::Value {
    let policy = &loaded.policy;
    let warnings = warnings(policy, Timestamp::now().as_second());
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    json!({
        "file": path.display().to_string(),
        "valid": true,
        "bundle": loaded.bundle.as_ref().map(file::describe_json),
        "summary": summary(policy),
        "warnings": warnings,
    })
}

fn errors_json(error: &Error) -> Vec<serde_json::Value> {
    let Error::File(file::FileError::Policy(errors)) = error else {
        return vec![json!({ "message": error.to_string() })];
    };
    let places = errors.errors.iter();
    places
        .map(|error| {
            json!({
                "line": error.line,
                "column": error.column,
                "key": error.key,
                "message": error.problem.to_string(),
            })
        })
        .collect()
}

/// A reader that closes the pipe early, such as `head`, is no error.
fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run_explain(args: &Explain) -> Result<ExitCode, Error> {
    let policy = load(&args.policy)?;
    let local = args.narrowed_by.as_deref().map(load).transpose()?;
    if args.as_edge {
        let reach = |policy: &Policy| ceiling(policy, args.via.as_deref());
        print_both(args, &reach(&policy), local.as_ref().map(reach).as_ref());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = args.of_station.station() {
        return run_explain_station(args, &policy, local.as_ref(), name);
    }
    let pdu = request_pdu(args)?;
    let request = Request::parse(&pdu).map_err(|malformed| Error::Malformed {
        exception: malformed.exception.code(),
        what: malformed.to_string(),
    })?;
    let explain = |policy: &Policy| explained(args, policy, &request);
    let explanation = explain(&policy)?;
    let narrowing = local.as_ref().map(explain).transpose()?;
    print_both(args, &explanation, narrowing.as_ref());
    let narrowed = narrowing.is_none_or(|narrowing| narrowing.allowed);
    Ok(match explanation.allowed && narrowed {
        true => ExitCode::SUCCESS,
        false => REFUSED.into(),
    })
}

fn run_explain_station(
    args: &Explain,
    policy: &Policy,
    local: Option<&Policy>,
    station: &StationName,
) -> Result<ExitCode, Error> {
    let (call, now) = (args.of_station.call()?, args.now());
    let (clients, via) = (&args.client_name, args.via.as_deref());
    let asked = (station, &call, now);
    let explain = |policy| args.of_station.explain(policy, clients, via, asked);
    let explanation = explain(policy)?;
    let narrowing = local.map(explain).transpose()?;
    print_both(args, &explanation, narrowing.as_ref());
    let narrowed = narrowing.is_none_or(|narrowing| narrowing.allowed);
    Ok(match explanation.allowed && narrowed {
        true => ExitCode::SUCCESS,
        false => REFUSED.into(),
    })
}

impl Explain {
    fn now(&self) -> Now {
        Now::At(self.at.unwrap_or_else(Timestamp::now).as_second())
    }
}

/// What a policy says, and then what the one that narrows it says of the same.
fn print_both<T: Display + Serialize>(args: &Explain, policy: &T, narrowing: Option<&T>) {
    match (args.json, narrowing) {
        (true, None) => print(json!(policy)),
        (true, Some(narrowing)) => print(json!({ "policy": policy, "narrowed_by": narrowing })),
        (false, None) => print(policy),
        (false, Some(narrowing)) => {
            let files = [Some(&args.policy), args.narrowed_by.as_ref()];
            let [file, local] = files.map(|file| file.map_or("".into(), |f| f.to_string_lossy()));
            print(format_args!("{file}:\n{policy}\n"));
            print(format_args!(
                "and {local}, which has to allow it too:\n{narrowing}"
            ));
        }
    }
}

fn explained(args: &Explain, policy: &Policy, request: &Request<'_>) -> Result<Explanation, Error> {
    let via = args.via.as_deref();
    let side = match via {
        Some(_) => Side::Edge,
        None => Side::Headend,
    };
    let asked = Asked {
        device: args.device.as_deref().unwrap_or_default(),
        unit: args.unit,
        request,
        now: args.now(),
    };
    if !args.client_name.is_empty() {
        let names = &args.client_name;
        return Ok(explain_named(policy, names, side, via, asked)?);
    }
    let client = Client {
        address: args.client,
        identity: args.identity.as_deref(),
        role: args.role.as_deref(),
    };
    let origin = Origin { side, via, client };
    Ok(explain(policy, &origin, asked))
}

fn request_pdu(args: &Explain) -> Result<Vec<u8>, Error> {
    if let Some(hex) = &args.pdu {
        return decode_hex(hex).ok_or(Error::Hex);
    }
    let function = args.function.unwrap_or(FunctionCode(0));
    let number = args.number.unwrap_or(NumberType::Uint16);
    let text = args.value.as_deref().unwrap_or("0");
    let value = number.parse(text).ok_or_else(|| Error::Value {
        text: text.to_owned(),
        number,
    })?;
    let written = (value, args.word_order);
    let sample = Sample::new(function, args.address, args.quantity, written)?;
    Ok(sample.pdu())
}

fn function(text: &str) -> Result<FunctionCode, NotAFunction> {
    parse_function(text).ok_or(NotAFunction)
}

#[derive(Debug, thiserror::Error)]
#[error("write a number from 1 to 127 or a name such as read-holding-registers")]
struct NotAFunction;

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|digit| !matches!(digit, ' ' | ':'))
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
