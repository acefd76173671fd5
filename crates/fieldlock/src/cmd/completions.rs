//! `fieldlock completions`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fieldlock completions bash > /etc/bash_completion.d/fieldlock")]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run<C: CommandFactory>(args: &Args) -> ExitCode {
    let mut command = C::command();
    clap_complete::generate(
        args.shell,
        &mut command,
        "fieldlock",
        &mut std::io::stdout(),
    );
    ExitCode::SUCCESS
}
