//! `fieldlock demo`: everything at once on this machine, with what it does shown.

mod agent;
mod client;
mod launch;
mod log;
mod screen;
mod site;
mod story;
mod trouble;

use std::ffi::OsString;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use screen::Screen;
use site::Site;
use story::Story;
use trouble::Trouble;

/// As a shell reports a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldlock demo\n  \
    fieldlock demo --keep     # and point your own Modbus client at the address it prints\n\n\
    Needs no root, no configuration and no network: everything is on loopback, on ports that \
    are free, in a private directory that goes away at the end.")]
pub(crate) struct Args {
    /// Leave it running until Ctrl-C, for your own Modbus client
    #[arg(long)]
    keep: bool,
    /// Internal: become an agent that ends with the process of this id
    #[arg(long, hide = true, value_name = "PARENT", requires = "command")]
    launch: Option<i32>,
    #[arg(hide = true, last = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if let Some(parent) = args.launch {
        let error = launch::become_agent(parent, &args.command);
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let mut screen = Screen::new();
    let site = match Site::new() {
        Ok(site) => site,
        Err(trouble) => return screen.fail(&trouble, ""),
    };
    match perform(args.keep, &site, &mut screen) {
        Ok(code) => code,
        Err(trouble) => screen.fail(&trouble, &site.log_tails()),
    }
}

/// A signal drops the story, which ends the agents, and then the caller's site, which
/// removes the directory.
fn perform(keep: bool, site: &Site, screen: &mut Screen) -> Result<ExitCode, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::io("start"))?;
    let done = runtime.block_on(async {
        tokio::select! {
            stopped = stop_signal() => stopped.map(|()| false),
            told = tell(keep, site, screen) => told.map(|()| true),
        }
    });
    runtime.shutdown_background();
    Ok(match done? {
        true => ExitCode::SUCCESS,
        // With --keep this is how it ends.
        false if keep => ExitCode::SUCCESS,
        false => ExitCode::from(INTERRUPTED),
    })
}

async fn tell(keep: bool, site: &Site, screen: &mut Screen) -> Result<(), Trouble> {
    let mut story = Story::begin(site, screen).await?;
    story.read_process().await?;
    story.write_setpoint().await?;
    story.try_forbidden_writes().await?;
    story.lose_the_headend().await?;
    story.cut_and_restore().await?;
    story.show_evidence().await?;
    story.sum_up();
    if keep {
        story.keep().await?;
    }
    Ok(())
}

async fn stop_signal() -> Result<(), Trouble> {
    let listen = |kind| signal(kind).map_err(Trouble::io("listen for signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
