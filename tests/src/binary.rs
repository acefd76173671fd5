//! The `fieldlock` binary that is tested.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// `FIELDLOCK_BIN`, else the binary that cargo put two folders above the test program
/// (`target/PROFILE/deps/system-...`); built first, so that it is never an older one.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match env::var_os("FIELDLOCK_BIN") {
        Some(path) => PathBuf::from(path),
        None => built(&["--package", "fieldlock"], "fieldlock"),
    })
}

/// A program of `examples/profinet/`, likewise.
pub fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let what = ["--package", "fieldlock-sim", "--examples"];
    let folder = FOLDER.get_or_init(|| built(&what, "examples"));
    folder.join(name)
}

/// A program of `benches/`, likewise.
pub fn bench(name: &str) -> PathBuf {
    built(&["--package", name], name)
}

/// `fieldlock-wire`, likewise.
pub fn wire() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built(&["--package", "fieldlock-wire"], "fieldlock-wire"))
}

/// Builds `what`, which is then at `place` of the profile's folder. Quick when the workspace has
/// been built already, as `./test` does.
fn built(what: &[&str], place: &str) -> PathBuf {
    let this = env::current_exe().unwrap();
    // A test program is one folder further down than the others.
    let up = this.parent().is_some_and(|it| it.ends_with("deps"));
    let folder = this.ancestors().nth(if up { 2 } else { 1 }).unwrap();
    let target = folder.parent().unwrap();
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("{}: not in a cargo target folder", this.display()),
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(fieldlock_testkit::peers::workspace_root())
        .args(["build", "--quiet", "--profile", profile])
        .args(what)
        .arg("--target-dir")
        .arg(target)
        .output();
    let path = folder.join(place);
    match output {
        Ok(output) if output.status.success() => path,
        // A test program that was carried to another machine, with the binary beside it.
        Err(_) if path.exists() => path,
        Ok(output) => panic!(
            "`cargo build {}` failed; the system tests need what it builds:\n{}",
            what.join(" "),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!(
            "no binary at {} and cargo can't be run to build it: {error}",
            path.display()
        ),
    }
}

/// The command, without settings that the developer's own environment may hold.
pub fn command() -> Command {
    command_under(&[])
}

/// Likewise, started by another command.
pub fn command_under(other: &[String]) -> Command {
    let mut command = match other {
        [] => Command::new(path()),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(path());
            command
        }
    };
    for (key, _) in env::vars_os() {
        if key.to_string_lossy().starts_with("FIELDLOCK_") {
            command.env_remove(key);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// Runs `fieldlock ARGUMENTS` to its end, whatever that is.
pub fn run(arguments: &[&dyn AsRef<OsStr>]) -> Output {
    let mut command = command();
    for argument in arguments {
        command.arg(argument);
    }
    command.output().unwrap()
}

/// Runs `fieldlock ARGUMENTS`, which must succeed; its standard output.
#[track_caller]
pub fn run_ok(arguments: &[&dyn AsRef<OsStr>]) -> String {
    let output = run(arguments);
    if !output.status.success() {
        let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref()).collect();
        panic!("fieldlock {arguments:?}: {}", text(&output));
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit status and everything that a finished command wrote.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
