//! What the demo looks like: numbered steps, labelled lines, colour only on a terminal.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Where the text of a labelled line begins.
const LABEL: usize = 16;

#[derive(Debug)]
pub(super) struct Screen {
    colour: bool,
    step: u8,
}

impl Screen {
    pub(super) fn new() -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: io::stdout().is_terminal() && !plain,
            step: 0,
        }
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, title: &str) {
        self.step += 1;
        let title = self.paint(BOLD, &format!("{}  {title}", self.step));
        self.line(&format!("\n{title}"));
    }

    /// A command that a person would type for the same.
    pub(super) fn command(&self, command: &str) {
        let command = self.paint(DIM, &format!("$ fieldlock {command}"));
        self.line(&format!("   {command}"));
    }

    pub(super) fn row(&self, label: &str, text: impl Display) {
        self.line(&format!("   {label:<LABEL$}{text}"));
    }

    /// Something allowed, or back.
    pub(super) fn good(&self, label: &str, text: impl Display) {
        self.row(label, self.paint(GREEN, &text.to_string()));
    }

    /// Something refused, or gone.
    pub(super) fn bad(&self, label: &str, text: impl Display) {
        self.row(label, self.paint(RED, &text.to_string()));
    }

    /// A record of an agent's audit log.
    pub(super) fn audit(&self, agent: &str, lines: [String; 2]) {
        let [asked, result] = lines;
        self.row(&format!("audit, {agent}"), asked);
        self.row("", format!("   {result}"));
    }

    pub(super) fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.paint(BOLD, text)));
    }

    /// Says what failed, after it the ends of the agents' logs.
    pub(super) fn fail(&self, what: &impl Display, logs: &str) -> ExitCode {
        let mut err = io::stderr();
        let _ = writeln!(err, "\nerror: {what}");
        let _ = write!(err, "{logs}");
        ExitCode::FAILURE
    }

    pub(super) fn line(&self, text: &str) {
        // Whoever closes the pipe has seen enough.
        let _ = writeln!(io::stdout(), "{text}");
    }

    fn paint(&self, style: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// `0.84 ms`, `1.02 s`.
pub(super) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..0.01 => format!("{:.2} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}
