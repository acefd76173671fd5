//! The local control socket behind `fieldlock status`.
//!
//! A client connects to `STATE/control.sock` and reads one JSON document. Only the agent's
//! own user and root can open the socket: it lies in the 0700 state directory.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldlock_status::Status;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};

use crate::StartError;

/// Name of the socket inside the state directory.
pub const SOCKET: &str = "control.sock";
const WRITE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Takes the socket over from an agent that has died; the audit log's lock has told by
    /// now that no other lives.
    pub fn bind(state: &Path) -> Result<Self, StartError> {
        let path = state.join(SOCKET);
        let bound = (|| {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        })();
        match bound {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(StartError::Control { path, source }),
        }
    }

    /// Answers each connection with what `status` says then.
    pub async fn serve(self, status: impl Fn() -> Status) {
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Texts, numbers and lists of them: there is nothing in it that JSON can't say.
            let mut text = serde_json::to_string(&status()).unwrap_or_default();
            text.push('\n');
            tokio::task::spawn_local(async move {
                let _ = timeout(WRITE, stream.write_all(text.as_bytes())).await;
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
