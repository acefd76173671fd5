//! `fieldlock policy diff`: what a change opens and closes.

use std::path::PathBuf;
use std::process::ExitCode;

use fieldlock_policy::{Side, diff};
use serde_json::json;

use super::{Error, REFUSED, load, print};

/// Compare two policies by what they mean: what the new one opens and closes.
///
/// A request that the two decide differently touches one of the regions that are printed. Each has
/// an example, a request that is decided differently. Where the elements of a range are allowed by
/// both files and only the request across them is not, the region says "in one request".
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fieldlock policy diff policy.toml policy.new
  fieldlock policy diff --as-edge edge.toml edge.new
  fieldlock policy diff --json policy.toml policy.new

Exit codes: 0 no difference, 1 differences, 2 wrong usage or an invalid policy.")]
pub(super) struct Diff {
    /// The policy in force.
    old: PathBuf,
    /// The one to take its place.
    new: PathBuf,
    /// Judge as an edge does: apart for each headend that a rule names with `via`. Clients are what
    /// a headend states, so what any client opens, a hostile headend can use.
    #[arg(long)]
    as_edge: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Diff) -> Result<ExitCode, Error> {
    let (old, new) = (load(&args.old)?, load(&args.new)?);
    let side = match args.as_edge {
        true => Side::Edge,
        false => Side::Headend,
    };
    let diff = diff(&old, &new, side)?;
    match args.json {
        true => print(json!(diff)),
        false => print(&diff),
    }
    Ok(match diff.is_empty() {
        true => ExitCode::SUCCESS,
        false => REFUSED.into(),
    })
}
