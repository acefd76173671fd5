//! `openssl s_client` as a pipe: Modbus goes in and comes out, TLS is OpenSSL's.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fieldlock_testkit::modbus;
use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::process::Directory;
use fieldlock_tests::SOON;

/// A connection; the process is killed when it is dropped.
pub(super) struct Openssl {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    received: Vec<u8>,
    transaction: u16,
    directory: Directory,
}

impl Openssl {
    /// With key.pem and bundle.pem of `folder`.
    pub(super) fn connect(address: SocketAddr, folder: &Path, more: &[&str]) -> Self {
        Self::connect_as(address, folder, folder, more)
    }

    /// The same, trusting what bundle.pem of `trusted` says.
    pub(super) fn connect_as(
        address: SocketAddr,
        folder: &Path,
        trusted: &Path,
        more: &[&str],
    ) -> Self {
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (key, bundle) = (file("key.pem"), file("bundle.pem"));
        let own = ["-cert", &bundle, "-cert_chain", &bundle, "-key", &key];
        Self::anonymous(address, trusted, &[&own, more].concat())
    }

    /// Without a certificate.
    pub(super) fn anonymous(address: SocketAddr, trusted: &Path, more: &[&str]) -> Self {
        let directory = Directory::new().unwrap();
        let said = fs::File::create(directory.join("said")).unwrap();
        let mut child = Command::new(Peer::find("openssl").unwrap())
            .args(["s_client", "-quiet", "-nocommands", "-verify_quiet"])
            .args(["-connect", &address.to_string()])
            .args(["-verify_return_error", "-CAfile"])
            .arg(trusted.join("bundle.pem"))
            .args(["-verify_hostname", super::SERVER])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                if sender.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            input: child.stdin.take().unwrap(),
            child,
            output,
            received: Vec::new(),
            transaction: 0,
            directory,
        }
    }

    /// The answer's PDU; `None` when the connection ended instead.
    pub(super) fn ask(&mut self, pdu: &[u8]) -> Option<Vec<u8>> {
        self.transaction += 1;
        let adu = modbus::adu(self.transaction, 1, pdu);
        self.input.write_all(&adu).ok()?;
        let answer = self.read_adu()?;
        assert_eq!(answer[..2], self.transaction.to_be_bytes());
        Some(answer[7..].to_vec())
    }

    /// The same when the connection must stand.
    #[track_caller]
    pub(super) fn request(&mut self, pdu: &[u8]) -> Vec<u8> {
        let answer = self.ask(pdu);
        answer.unwrap_or_else(|| panic!("the connection ended: {}", self.said()))
    }

    /// Sends these requests at once, with transaction ids from 1; the answers' PDUs in that order.
    pub(super) fn pipeline(&mut self, pdus: &[&[u8]]) -> Vec<Vec<u8>> {
        let adus = (1..).zip(pdus).map(|(id, pdu)| modbus::adu(id, 1, pdu));
        self.input
            .write_all(&adus.collect::<Vec<_>>().concat())
            .unwrap();
        let mut answers = vec![Vec::new(); pdus.len()];
        for _ in pdus {
            let answer = self.read_adu().unwrap();
            let id = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
            assert!(answers[id - 1].is_empty(), "{id} is answered twice");
            answers[id - 1] = answer[7..].to_vec();
        }
        answers
    }

    fn read_adu(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(header) = self.received.first_chunk::<6>() {
                let size = 6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
                if self.received.len() >= size {
                    return Some(self.received.drain(..size).collect());
                }
            }
            match self.output.recv_timeout(SOON) {
                Ok(piece) => self.received.extend(piece),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no answer: {}", self.said()),
            }
        }
    }

    /// Waits for the other side to end the connection; how long it took.
    #[track_caller]
    pub(super) fn wait_end(&mut self, within: Duration) -> Duration {
        let started = Instant::now();
        loop {
            let left = within.saturating_sub(started.elapsed());
            match self.output.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return started.elapsed(),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still connected after {within:?}: {}", self.said())
                }
            }
        }
    }

    /// What OpenSSL has to say.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.directory.join("said")).unwrap_or_default()
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
