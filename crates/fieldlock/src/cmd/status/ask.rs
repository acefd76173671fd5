//! One question to an agent, and what it says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use fieldlock_status::{Refused, Request};
use serde::Deserialize as _;
use serde_json::Value;
use thiserror::Error;

/// For each piece of what it says.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of what is read: several times the status of the largest headend.
const MAX_DOCUMENT: u64 = 256 << 20;

#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The agent's fault.
    #[error("the agent says what is no status: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the agent answers another question")]
    OtherAnswer,
    /// It was asked for what it does not have.
    #[error("the agent says: {0}")]
    Refused(String),
    #[error("this agent is of an older version, and can only be asked for its whole status")]
    Older,
}

impl AskError {
    pub(super) fn hint(&self) -> &'static str {
        let kind = match self {
            Self::Io(error) => error.kind(),
            Self::Unreadable(_) | Self::OtherAnswer => {
                return "is this the control socket of an edge or a headend?";
            }
            Self::Refused(_) => return "docs/control.md has what can be asked",
            Self::Older => return "leave out `--recent`; `fieldlock audit query` reads its log",
        };
        match kind {
            ErrorKind::PermissionDenied => {
                "only root and the user that the agent runs as may ask it: `sudo fieldlock status`"
            }
            ErrorKind::NotFound => {
                "is the agent running, and is this its state directory? `--state DIR` or \
                 `--config FILE` names another"
            }
            ErrorKind::ConnectionRefused => {
                "the agent has ended and left its socket; its log says why, \
                 `journalctl -u 'fieldlock-*'` shows it where systemd runs it"
            }
            _ => "the agent runs and does not answer: is it stopped, or the machine very busy?",
        }
    }
}

/// Everything that an agent says of itself.
#[cfg(feature = "demo")]
pub(crate) fn ask(socket: &Path) -> Result<fieldlock_status::Status, AskError> {
    Ok(fieldlock_status::Status::deserialize(document(socket)?)?)
}

/// The same as it came.
pub(super) fn document(socket: &Path) -> Result<Value, AskError> {
    // To say nothing, and that nothing will come, is a question that agents of all versions
    // understand.
    said_to(socket, "")
}

/// What is said to `request`.
pub(super) fn ask_for(socket: &Path, request: &Request) -> Result<Value, AskError> {
    let value = said_to(socket, &request.to_line())?;
    // An agent that reads no requests says everything, whatever it is asked.
    match value.get("answer") {
        Some(_) => Ok(value),
        None => Err(AskError::Older),
    }
}

fn said_to(socket: &Path, line: &str) -> Result<Value, AskError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // One that reads nothing may have closed by now; what it said can be read all the same.
    let _ = stream.write_all(line.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let text = read(stream)?;
    let value: Value = serde_json::from_slice(&text)?;
    match Refused::deserialize(&value) {
        Ok(Refused { error }) => Err(AskError::Refused(error)),
        Err(_) => Ok(value),
    }
}

fn read(stream: UnixStream) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match stream.take(MAX_DOCUMENT).read_to_end(&mut text) {
        // It closed on what it had not read, after it had said everything.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !text.is_empty() => Ok(text),
        Err(error) => Err(error),
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use fieldlock_status::{Answer, Status};
    use serde_json::json;

    use super::*;

    /// An agent that says `text` to the first who asks. One of 0.1.0 `reads` nothing.
    fn agent(text: String, reads: bool) -> (tempfile::TempDir, thread::JoinHandle<String>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            if reads {
                stream.read_to_string(&mut asked).unwrap();
            }
            stream.write_all(text.as_bytes()).unwrap();
            asked
        });
        (directory, asked)
    }

    const RECENT: Request = Request::Recent {
        kind: None,
        limit: 3,
    };

    #[test]
    fn an_agent_of_any_version_says_everything() {
        // More than a socket holds, of a later version, and with less than this one has.
        let warnings = vec!["w".repeat(1000); 1000];
        let old = json!({
            "role": "headend", "identity": "spiffe://s/headend/h", "policy_warnings": warnings,
            "moons": 2, "devices": [{ "name": "d", "counters": { "answered": 3 } }],
        });
        for reads in [true, false] {
            let (directory, asked) = agent(old.to_string(), reads);
            let document = document(&directory.path().join("socket")).unwrap();
            assert_eq!(document, old);
            assert_eq!(asked.join().unwrap(), "");
            let status: Status = serde_json::from_value(document).unwrap();
            let text = super::super::text::render(&status);
            assert!(text.contains("device d: NOT CONNECTED, edge "), "{text}");
            assert!(text.contains(", answered 3, busy 0"), "{text}");
        }
    }

    #[test]
    fn an_agent_that_reads_no_requests_is_known_by_what_it_says() {
        let (directory, asked) = agent(json!({ "role": "edge" }).to_string(), false);
        let said = ask_for(&directory.path().join("socket"), &RECENT);
        assert!(matches!(said, Err(AskError::Older)), "{said:?}");
        asked.join().unwrap();
    }

    #[test]
    fn an_answer_is_told_from_a_refusal() {
        let answer = Answer::Recent { events: Vec::new() };
        let (directory, asked) = agent(answer.to_line(), true);
        let said = ask_for(&directory.path().join("socket"), &RECENT).unwrap();
        assert_eq!(serde_json::from_value::<Answer>(said).unwrap(), answer);
        assert_eq!(asked.join().unwrap(), RECENT.to_line());

        let (directory, _) = agent(json!({ "error": "no" }).to_string(), true);
        let said = ask_for(&directory.path().join("socket"), &RECENT);
        assert!(matches!(said, Err(AskError::Refused(text)) if text == "no"));

        let (directory, _) = agent("<html>".to_owned(), true);
        let said = document(&directory.path().join("socket"));
        assert!(matches!(said, Err(AskError::Unreadable(_))), "{said:?}");
    }
}
