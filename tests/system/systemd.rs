//! Under a service manager: what it is told, when its watchdog is fed, and how far the units of
//! examples/ confine what they start.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_tests::{OPEN_POLICY, SOON, Setup, Transport, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("systemd::start_reload_state_and_stop_are_told", told),
        trial::test("systemd::a_watchdog_of_another_process_is_not_fed", another),
        trial::test(
            "systemd::a_data_path_that_stands_still_starves_the_watchdog",
            starved,
        ),
        trial::with_peers(
            "systemd::units_are_in_the_best_band",
            &["systemd-analyze"],
            band,
        ),
    ]
}

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    /// The next that it is told; `None` when nothing is for `within`.
    fn hear(&self, within: Duration) -> Option<String> {
        let mut text = [0; 4096];
        self.0.set_read_timeout(Some(within)).unwrap();
        let length = self.0.recv(&mut text).ok()?;
        Some(String::from_utf8(text[..length].to_vec()).unwrap())
    }

    /// Waits to be told what begins with `start`; all that it was told until then.
    #[track_caller]
    fn wait(&self, start: &str) -> Vec<String> {
        let end = Instant::now() + SOON;
        let mut heard = Vec::new();
        while Instant::now() < end {
            heard.extend(self.hear(Duration::from_millis(100)));
            if heard.last().is_some_and(|text| text.starts_with(start)) {
                return heard;
            }
        }
        panic!("not told `{start}`, but {heard:?}");
    }
}

fn told() {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let path = pair.directory.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    pair.edge
        .set_environment("NOTIFY_SOCKET", path.to_str().unwrap());
    pair.edge.set_environment("WATCHDOG_USEC", "300000");
    let path = pair.directory.path().join("of-headend");
    let of_headend = Manager(UnixDatagram::bind(&path).unwrap());
    pair.headend
        .set_environment("NOTIFY_SOCKET", path.to_str().unwrap());
    pair.headend.set_environment("WATCHDOG_USEC", "15000");
    pair.headend.start();
    pair.edge.start();
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    manager.wait("STATUS=tunnels 1, headends 1, devices 1, unreachable 0");
    of_headend.wait("WATCHDOG=1");
    pair.headend.process().terminate();
    of_headend.wait("STOPPING=1");
    // What ends then is no fault.
    while let Some(text) = of_headend.hear(Duration::from_millis(200)) {
        assert!(!text.contains("has ended"), "{text}");
    }
    pair.headend.wait_exit();
    assert!(
        !pair.headend.log().contains("ERROR"),
        "{}",
        pair.headend.log()
    );
    manager.wait("STATUS=tunnels 0, ");
    pair.edge.write_policy(&format!("{OPEN_POLICY}\n# again\n"));
    let reloading = manager.wait("RELOADING=1\nMONOTONIC_USEC=");
    let stamp = reloading.last().unwrap().rsplit('=').next().unwrap();
    assert!(stamp.parse::<u64>().unwrap() > 0, "{stamp}");
    manager.wait("READY=1");
    pair.edge.terminate();
    let last = manager.wait("STOPPING=1");
    assert!(!last.iter().any(|text| text.contains("READY")), "{last:?}");
}

/// By an abstract name, as managers in containers have it.
fn another() {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let name = format!("fieldlock-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    pair.headend
        .set_environment("NOTIFY_SOCKET", &format!("@{name}"));
    pair.headend.set_environment("WATCHDOG_USEC", "30000");
    pair.headend.set_environment("WATCHDOG_PID", "1");
    pair.headend.start();
    manager.wait("READY=1");
    manager.wait("STATUS=tunnels 0, devices 0 of 1, clients 0");
    pair.headend.terminate();
    let until_end = manager.wait("STOPPING=1");
    assert!(
        !until_end.iter().any(|text| text.contains("WATCHDOG")),
        "{until_end:?}"
    );
}

/// A policy that is a pipe nobody writes into holds up the thread that carries requests.
fn starved() {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let path = pair.directory.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    pair.edge
        .set_environment("NOTIFY_SOCKET", path.to_str().unwrap());
    pair.edge.set_environment("WATCHDOG_USEC", "300000");
    pair.edge.start();
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    let pipe = pair.directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    fs::rename(&pipe, pair.edge.policy_file()).unwrap();
    manager.wait("RELOADING=1");
    // More than three times the limit of the watchdog.
    assert_eq!(manager.hear(Duration::from_secs(1)), None);
    fs::write(pair.edge.policy_file(), OPEN_POLICY).unwrap();
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
}

/// What `systemd-analyze security` may say at most, of 10; its best band, "OK", ends at 2. What is
/// left are the network and the sockets, which are an agent's work.
const MOST_EXPOSED: f64 = 1.5;
/// With a PROFINET wire: CAP_NET_RAW and packet sockets, for the moment of its start.
const MOST_EXPOSED_WITH_PROFINET: f64 = 1.8;

fn band() {
    let examples = workspace_root().join("examples/systemd");
    let mut units = 0;
    for unit in files(&examples, "service") {
        let drop_ins = files(&unit.with_extension("service.d"), "conf");
        // Alone, and with each of its drop-ins.
        for drop_in in [None].into_iter().chain(drop_ins.iter().map(Some)) {
            let (exposure, said) = exposure(&unit, drop_in);
            let profinet = drop_in.is_some_and(|file| file.ends_with("profinet.conf"));
            let most = if profinet {
                MOST_EXPOSED_WITH_PROFINET
            } else {
                MOST_EXPOSED
            };
            assert!(
                exposure <= most,
                "{} with {drop_in:?}: {exposure}\n{said}",
                unit.display()
            );
            units += 1;
        }
    }
    assert!(units >= 7, "{units}");
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension) && file.is_file());
    files.sort();
    files
}

/// The figure in "Overall exposure level for fieldlock-edge.service: 1.4 OK", and all that is said.
fn exposure(unit: &Path, drop_in: Option<&PathBuf>) -> (f64, String) {
    let directory = fieldlock_testkit::process::Directory::new().unwrap();
    let copy = directory.path().join(unit.file_name().unwrap());
    let mut text = fs::read_to_string(unit).unwrap();
    // It refuses units whose program is not there. What a drop-in says last counts.
    text = text.replace("/usr/local/bin/fieldlock", "/bin/true");
    if let Some(drop_in) = drop_in {
        let own = fs::read_to_string(drop_in).unwrap();
        let (unit, install) = text.split_once("[Install]").unwrap();
        text = format!("{unit}\n{own}\n[Install]{install}");
    }
    fs::write(&copy, text).unwrap();
    let output = Command::new(Peer::find("systemd-analyze").unwrap())
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&copy)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let figure = said.lines().find_map(|line| {
        let (_, behind) = line.split_once("Overall exposure level for ")?;
        behind.split(": ").nth(1)?.split(' ').next()?.parse().ok()
    });
    let Some(figure) = figure else {
        panic!("{}: {said}", unit.display());
    };
    (figure, said)
}
