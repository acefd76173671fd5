//! A serial line of two pseudo-terminals, and a device at its end that can misbehave.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::{SOON, within};

/// Two ends that socat joins; [`unplug`](Line::unplug) makes both disappear.
pub(crate) struct Line {
    socat: Option<Process>,
    directory: Directory,
}

impl Line {
    pub(crate) fn plugged() -> Self {
        let mut line = Self {
            socat: None,
            directory: Directory::new().unwrap(),
        };
        line.plug();
        line
    }

    /// The edge's end.
    pub(crate) fn near(&self) -> PathBuf {
        self.directory.join("near")
    }

    /// The device's end.
    pub(crate) fn far(&self) -> PathBuf {
        self.directory.join("far")
    }

    pub(crate) fn plug(&mut self) {
        let end = |path: PathBuf| format!("pty,raw,echo=0,link={}", path.display());
        let mut command = Command::new(Peer::find("socat").unwrap());
        command.args([end(self.near()), end(self.far())]);
        let socat = Process::start("socat", &mut command, self.directory.path()).unwrap();
        self.socat = Some(socat);
        within(SOON, "both ends of the line", || {
            self.near().exists() && self.far().exists()
        });
    }

    pub(crate) fn unplug(&mut self) {
        if let Some(mut socat) = self.socat.take() {
            socat.terminate();
            let _ = socat.wait_exit(SOON);
        }
    }
}

/// What a [`Device`] does after it heard a request.
pub(crate) enum Reply {
    Answer(Vec<u8>),
    /// After this long.
    Late(Duration, Vec<u8>),
    WrongCrc(Vec<u8>),
    /// An octet 0x00 before it.
    BehindZero(Vec<u8>),
    /// The request comes back first, and then this, if anything.
    Echoed(Option<Vec<u8>>),
    Silence,
}

/// Unit and PDU of each request.
type Heard = Mutex<Vec<(u8, Vec<u8>)>>;

/// Everything on a line behind the adapter: units and their registers. Opens its end again
/// whenever it is plugged.
pub(crate) struct Device {
    heard: Arc<Heard>,
    stopped: Arc<AtomicBool>,
}

impl Device {
    /// `judge` sees unit, request and the regular answer, and says what happens.
    pub(crate) fn start(
        end: &Path,
        mut judge: impl FnMut(u8, &[u8], Vec<u8>) -> Reply + Send + 'static,
    ) -> Self {
        let device = Self {
            heard: Arc::default(),
            stopped: Arc::default(),
        };
        let (heard, stopped) = (device.heard.clone(), device.stopped.clone());
        let end = end.to_owned();
        thread::spawn(move || {
            let mut registers = HashMap::new();
            while !stopped.load(Ordering::SeqCst) {
                match File::options().read(true).write(true).open(&end) {
                    Ok(port) => serve(port, &heard, |unit, pdu| {
                        let regular = answer(&mut registers, unit, pdu);
                        match unit {
                            0 => Reply::Silence,
                            _ => judge(unit, pdu, regular),
                        }
                    }),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        device
    }

    /// A device without faults.
    pub(crate) fn regular(end: &Path) -> Self {
        Self::start(end, |_, _, regular| Reply::Answer(regular))
    }

    /// Unit and PDU of each request so far.
    pub(crate) fn heard(&self) -> Vec<(u8, Vec<u8>)> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Its thread ends when the line is unplugged.
        self.stopped.store(true, Ordering::SeqCst);
    }
}

fn serve(mut port: File, heard: &Heard, mut reply: impl FnMut(u8, &[u8]) -> Reply) {
    let mut frame = Vec::new();
    let mut chunk = [0; 256];
    while let Ok(count @ 1..) = port.read(&mut chunk) {
        frame.extend_from_slice(&chunk[..count]);
        // The CRC over a frame and its own CRC is 0.
        if frame.len() < 4 || crc(&frame) != 0 {
            continue;
        }
        let (unit, pdu) = (frame[0], frame[1..frame.len() - 2].to_vec());
        frame.clear();
        heard.lock().unwrap().push((unit, pdu.clone()));
        let bytes = match reply(unit, &pdu) {
            Reply::Answer(answer) => {
                // A pseudo-terminal has no speed: at once would be sooner than the line carries the
                // request, and be taken for its echo.
                thread::sleep(Duration::from_millis(1));
                sealed(unit, &answer, 0)
            }
            Reply::Late(delay, answer) => {
                thread::sleep(delay);
                sealed(unit, &answer, 0)
            }
            Reply::WrongCrc(answer) => sealed(unit, &answer, 1),
            Reply::BehindZero(answer) => [vec![0], sealed(unit, &answer, 0)].concat(),
            Reply::Echoed(answer) => {
                let answer = answer.map(|answer| sealed(unit, &answer, 0));
                [sealed(unit, &pdu, 0), answer.unwrap_or_default()].concat()
            }
            Reply::Silence => continue,
        };
        if port.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Reads (3) and writes (6, 16) of registers 0 to 99; broadcasts reach units 1 to 9.
fn answer(registers: &mut HashMap<(u8, u16), u16>, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
    if pdu.len() < 5 || !matches!(pdu[0], 3 | 6 | 16) {
        return vec![pdu[0] | 0x80, 1];
    }
    let (first, count) = (word(1), if pdu[0] == 6 { 1 } else { word(3) });
    if first + count > 100 {
        return vec![pdu[0] | 0x80, 2];
    }
    if pdu[0] == 3 {
        let values = (first..first + count).map(|at| registers.get(&(unit, at)).unwrap_or(&0));
        let bytes = values.flat_map(|value| value.to_be_bytes());
        return [3, count as u8 * 2].into_iter().chain(bytes).collect();
    }
    let values_at = if pdu[0] == 6 { 3 } else { 6 };
    for place in 0..count {
        let value = word(values_at + 2 * usize::from(place));
        let units = if unit == 0 { 1..=9 } else { unit..=unit };
        registers.extend(units.map(|unit| ((unit, first + place), value)));
    }
    pdu[..5].to_vec()
}

fn sealed(unit: u8, pdu: &[u8], damage: u16) -> Vec<u8> {
    let mut frame = vec![unit];
    frame.extend_from_slice(pdu);
    let crc = crc(&frame) ^ damage;
    frame.extend(crc.to_le_bytes());
    frame
}

/// Bit by bit, as the specification's appendix has it; on purpose not the product's.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xA001,
            _ => crc >> 1,
        })
    })
}
