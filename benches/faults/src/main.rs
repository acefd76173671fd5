//! What goes wrong between clients, agents and a PLC: each fault under load, on real processes in
//! network namespaces, with two ledgers of all writes. Needs root.

mod table;

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use fieldlock_tests::chaos::{fault, kill, soak, trial};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::{Site, Transport};

/// Faults under load, and what clients see of them (root).
#[derive(Debug, Parser)]
#[command(
    name = "fieldlock-chaos",
    after_help = "Examples:
  Every fault, on both transports, and five pairs of two at once:
    fieldlock-chaos matrix --pairs 5 --seed 1 --markdown matrix.md
  Those whose names contain a word:
    fieldlock-chaos matrix --only cut --only NAT
  Agents killed for ten minutes; a soak of an hour:
    fieldlock-chaos kill --minutes 10
    fieldlock-chaos soak --minutes 60"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
    /// quic, tls; for `matrix` auto too [default: all that make sense]
    #[arg(long, value_delimiter = ',', value_parser = transport, global = true)]
    transport: Vec<Transport>,
    /// Where the table goes, row by row; without it, to standard output
    #[arg(long, global = true)]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One row for each fault and transport
    Matrix(Matrix),
    /// kill -9 of either agent in a loop, while clients write
    Kill(Minutes),
    /// Everyday changes for long: do memory and descriptors stay flat?
    Soak(Minutes),
}

#[derive(Debug, Args)]
struct Matrix {
    /// Only faults whose names contain this; may be given again
    #[arg(long)]
    only: Vec<String>,
    /// Two faults at once, chosen by the seed
    #[arg(long, default_value_t = 0)]
    pairs: usize,
}

#[derive(Debug, Args)]
struct Minutes {
    /// Of each transport
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
}

fn transport(name: &str) -> Result<Transport, String> {
    match name {
        "quic" => Ok(Transport::Quic),
        "tls" => Ok(Transport::Tls),
        "auto" => Ok(Transport::Auto),
        _ => Err("quic, tls or auto".into()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(skip) = Rig::possible() {
        eprintln!("error: {skip}");
        return ExitCode::FAILURE;
    }
    let done = match &cli.command {
        Command::Matrix(matrix) => cli.matrix(matrix),
        Command::Kill(minutes) => cli.each(table::KILLS, |transport| {
            let outcome = kill::run(transport, minutes.lasting(), cli.seed);
            (
                table::kills(transport, &outcome),
                outcome.account.is_honest(),
            )
        }),
        Command::Soak(minutes) => cli.each(table::SOAK, |transport| {
            let outcome = soak::run(transport, minutes.lasting(), cli.seed);
            let flat = outcome.growths.iter().all(|it| it.is_flat());
            let honest = outcome.account.is_honest();
            (table::soak(transport, &outcome), honest && flat)
        }),
    };
    Site::forget_shared();
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!(
                "error: {wrong} rows failed, or have writes that were made twice or misreported"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Minutes {
    fn lasting(&self) -> Duration {
        Duration::from_secs_f64((self.minutes * 60.0).clamp(1.0, 86_400.0))
    }
}

impl Cli {
    /// How many rows are not as they must be.
    fn matrix(&self, matrix: &Matrix) -> std::io::Result<usize> {
        let mut out = self.output()?;
        writeln!(out, "{}", table::MATRIX)?;
        let mut wrong = 0;
        for fault in fault::all(matrix.pairs, self.seed) {
            let named = |it: &String| fault.name.contains(it.as_str());
            let wanted = match matrix.only.is_empty() {
                true => !fault.by_hand,
                false => matrix.only.iter().any(named),
            };
            let transports = fault.transports.iter().filter(|_| wanted);
            for &transport in transports.filter(|it| self.is_wanted(**it)) {
                let (row, right) = attempt(&fault.name, transport, || {
                    let outcome = trial::run(&fault, transport, self.seed);
                    let row = table::matrix(&fault, transport, &outcome);
                    (row, outcome.account.is_honest())
                });
                wrong += usize::from(!right);
                writeln!(out, "{row}")?;
                out.flush()?;
            }
        }
        Ok(wrong)
    }

    /// The same for one row for each transport.
    fn each(
        &self,
        head: &str,
        run: impl Fn(Transport) -> (String, bool),
    ) -> std::io::Result<usize> {
        let mut out = self.output()?;
        writeln!(out, "{head}")?;
        let mut wrong = 0;
        for transport in [Transport::Quic, Transport::Tls] {
            if self.is_wanted(transport) {
                let (rows, right) = attempt("run", transport, || run(transport));
                wrong += usize::from(!right);
                writeln!(out, "{rows}")?;
                out.flush()?;
            }
        }
        Ok(wrong)
    }

    fn is_wanted(&self, transport: Transport) -> bool {
        self.transport.is_empty() || self.transport.contains(&transport)
    }

    fn output(&self) -> std::io::Result<Box<dyn Write>> {
        Ok(match &self.markdown {
            Some(path) => Box::new(File::create(path)?),
            None => Box::new(std::io::stdout()),
        })
    }
}

/// One that fails says so on standard error, with the logs of its processes, and the next has its turn.
fn attempt(
    name: &str,
    transport: Transport,
    run: impl FnOnce() -> (String, bool),
) -> (String, bool) {
    let done = catch_unwind(AssertUnwindSafe(run));
    done.unwrap_or_else(|_| (format!("| {name} | {transport} | failed |"), false))
}
