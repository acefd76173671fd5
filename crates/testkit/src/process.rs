//! Child processes of a test: logs in a file, signals, and an end when dropped.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::{TimedOut, wait_for, wait_until};

/// Lines of a log that are shown when something failed.
const TAIL: usize = 60;

/// A child process. Killed and reaped when dropped; when that happens during a panic, the
/// tail of its log goes to standard error first.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error appended to `NAME.log` in `directory`
    /// and with nothing on standard input. A restart under the same name goes on in the
    /// same log.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> io::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| {
                let program = command.get_program().to_string_lossy();
                io::Error::new(error.kind(), format!("start {name} ({program}): {error}"))
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that was written so far, by earlier processes of this name too.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log under a heading with the process' name.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("--- {} ({})\n{}\n", self.name, self.id(), tail.join("\n"))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `needle` stands in the log; ends early when the process does.
    pub fn wait_log(&mut self, needle: &str, within: Duration) -> Result<(), TimedOut> {
        self.wait_that(&format!("{needle:?} in the log"), within, |process| {
            process.log().contains(needle)
        })
    }

    /// Waits for a condition that only this process can bring about: ends early when the
    /// process does, and shows the tail of the log when it was in vain.
    pub fn wait_that(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), TimedOut> {
        let mut ended = false;
        let waited = wait_until(what, within, || {
            ended = !self.is_running();
            condition(self) || ended
        });
        match waited {
            Ok(()) if !ended || condition(self) => Ok(()),
            Ok(()) => Err(self.explain(&format!("{what}: the process ended"), within)),
            Err(_) => Err(self.explain(what, within)),
        }
    }

    /// Waits for the process to end by itself (or after a signal).
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus, TimedOut> {
        let ended = wait_for("its end", within, || self.child.try_wait().ok().flatten());
        ended.map_err(|_| self.explain("its end", within))
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        // An error means that it has ended already, which is what was asked for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: asks it to read its files again.
    pub fn hang_up(&mut self) {
        self.signal(Signal::HUP);
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: ends a [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // Only while it has not been reaped: afterwards the number may be someone else's.
        if !self.is_running() {
            return;
        }
        if let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    fn explain(&self, what: &str, within: Duration) -> TimedOut {
        TimedOut {
            what: format!("{}: {what}", self.name),
            within,
            detail: format!("\n{}", self.log_tail()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.kill();
    }
}

/// A private directory, removed when dropped. With `FIELDLOCK_KEEP=1`, or when a test
/// panics, it stays and its path is printed.
#[derive(Debug)]
pub struct Directory(Option<TempDir>, PathBuf);

impl Directory {
    pub fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("fieldlock-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let path = directory.path().to_owned();
        Ok(Self(Some(directory), path))
    }

    pub fn path(&self) -> &Path {
        &self.1
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.1.join(name)
    }

    /// Writes a file into the directory and returns its path.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let keep = thread::panicking() || std::env::var_os("FIELDLOCK_KEEP").is_some();
        if let (true, Some(directory)) = (keep, self.0.take()) {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const SOON: Duration = Duration::from_secs(5);

    fn shell(script: &str) -> (Directory, Process) {
        let directory = Directory::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::start("shell", &mut command, directory.path()).unwrap();
        (directory, process)
    }

    #[test]
    fn output_and_errors_end_in_the_log() {
        let (_directory, mut process) = shell("echo out; echo err >&2; sleep 60");
        process.wait_log("out", SOON).unwrap();
        process.wait_log("err", SOON).unwrap();
        assert!(process.is_running());
        assert!(process.log_tail().contains("--- shell"));
    }

    #[test]
    fn a_process_that_ends_is_not_waited_for() {
        let (_directory, mut process) = shell("echo broken; exit 3");
        let error = process
            .wait_log("ready", Duration::from_secs(60))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("the process ended") && text.contains("broken"),
            "{text}"
        );
        assert_eq!(process.wait_exit(SOON).unwrap().code(), Some(3));
    }

    #[test]
    fn signals_arrive() {
        let (_directory, mut process) =
            shell("trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done");
        process.wait_log("ready", SOON).unwrap();
        process.pause();
        process.hang_up();
        let paused = wait_until("nothing", Duration::from_millis(100), || {
            process.log().contains("hup")
        });
        assert!(paused.is_err(), "a stopped process wrote");
        process.resume();
        process.wait_log("hup", SOON).unwrap();
        process.terminate();
        assert_eq!(process.wait_exit(SOON).unwrap().signal(), Some(15));
    }

    #[test]
    fn dropping_kills() {
        let (_directory, process) = shell("sleep 60");
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_directory_is_private_and_goes_away() {
        let directory = Directory::new().unwrap();
        let path = directory.path().to_owned();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(directory);
        assert!(!path.exists() || std::env::var_os("FIELDLOCK_KEEP").is_some());
    }
}
