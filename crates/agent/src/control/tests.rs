//! An agent of ten thousand devices, and clients of all kinds.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::time::Instant;

use fieldlock_status::{Answer, Common, DeviceRow, Request, edge};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::timeout;

use super::*;

const DEVICES: u64 = 10_000;

#[derive(Default)]
struct Fake {
    recent: Recent,
    /// Each look at it finds other counters.
    looks: Cell<u64>,
    ticks: bool,
}

impl Reports for Fake {
    fn status(&self) -> Status {
        Status::Edge(Box::new(edge::Edge {
            common: Common {
                policy_warnings: vec!["x".repeat(1000); 4000],
                ..Common::default()
            },
            ..edge::Edge::default()
        }))
    }

    fn state(&self) -> State {
        self.looks.set(self.looks.get() + u64::from(self.ticks));
        let device = |number| DeviceRow {
            name: format!("device-{number:05}"),
            answered: self.looks.get(),
            ..DeviceRow::default()
        };
        State {
            devices: (0..DEVICES).map(device).collect(),
            ..State::default()
        }
    }

    fn edges(&self, _: &Page) -> Option<Listing<EdgeEntry>> {
        None
    }

    fn devices(&self, _: &Page) -> Option<Devices> {
        Some(Devices::Edge(Listing::default()))
    }

    fn device(&self, _: &str) -> Option<OneDevice> {
        None
    }

    fn alarms(&self) -> Vec<Alarm> {
        Vec::new()
    }

    fn recent(&self) -> &Recent {
        &self.recent
    }
}

/// Runs `client` with the path of the socket of an agent.
fn with<F: Future<Output = ()>>(agent: Fake, client: impl FnOnce(PathBuf) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let control = Control::bind(directory.path()).unwrap();
        tokio::task::spawn_local(control.serve(Rc::new(agent)));
        client(directory.path().join(SOCKET)).await;
    });
}

async fn asked(socket: &Path, line: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(line).await.unwrap();
    stream
}

/// All that is said, until the agent closes.
async fn heard(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text).await {
        // It did not read all that was sent.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(text).unwrap(),
    }
}

async fn told(socket: &Path, line: &[u8]) -> String {
    heard(asked(socket, line).await).await
}

const ALARMS: &str = "{\"answer\":\"alarms\",\"alarms\":[]}\n";

#[test]
fn who_says_nothing_gets_everything() {
    with(Fake::default(), async |socket| {
        // As `fieldlock status` of 0.1.0 does.
        let silent = UnixStream::connect(&socket).await.unwrap();
        let text = heard(silent).await;
        assert!(
            text.len() > 4_000_000 && text.ends_with("}\n"),
            "{} {}",
            text.len(),
            &text[text.len().saturating_sub(80)..]
        );
        // Who says that nothing will come need not wait.
        let begun = Instant::now();
        let mut shut = UnixStream::connect(&socket).await.unwrap();
        shut.shutdown().await.unwrap();
        assert_eq!(heard(shut).await, text);
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(
            told(&socket, Request::Status.to_line().as_bytes()).await,
            text
        );
    });
}

#[test]
fn a_request_is_answered_in_pieces_or_not_and_garbage_is_refused() {
    with(Fake::default(), async |socket| {
        let line = Request::Alarms.to_line();
        assert_eq!(told(&socket, line.as_bytes()).await, ALARMS);
        let mut slow = UnixStream::connect(&socket).await.unwrap();
        for octet in line.as_bytes() {
            slow.write_all(&[*octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(heard(slow).await, ALARMS);
        for (line, part) in [
            (&b"hello\n"[..], "JSON object"),
            (b"\n", "JSON object"),
            (b"\xff\xfe\x00\n", "JSON object"),
            (
                b"{\"request\":\"alarms\"}\n{\"request\":\"alarms\"}\n",
                "nothing comes after it",
            ),
            (b"{\"request\":\"edges\"}\n", "this is an edge"),
            (
                b"{\"request\":\"device\",\"name\":\"x\"}\n",
                "no device of that name",
            ),
            (b"{\"request\":\"recent\",\"kind\":\"x\"}\n", "no such kind"),
            (
                b"{\"request\":\"recent\",\"kind\":\"other\"}\n",
                "no such kind",
            ),
            (&[b' '; 100_000], "at most 4096 octets"),
            // No line feed, and nothing after it.
            (b"{", "did not end within 2 s"),
        ] {
            let said = told(&socket, line).await;
            assert!(
                said.starts_with("{\"error\":\"") && said.ends_with("\"}\n"),
                "{said}"
            );
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(told(&socket, line.as_bytes()).await, ALARMS);
    });
}

#[test]
fn those_who_do_not_read_are_cut_and_keep_no_others_out_for_long() {
    with(Fake::default(), async |socket| {
        let mut deaf = Vec::new();
        for _ in 0..CONNECTIONS {
            deaf.push(asked(&socket, Request::Status.to_line().as_bytes()).await);
        }
        // Each has a place, and the agent says that there are no more.
        let line = Request::Alarms.to_line();
        let said = told(&socket, line.as_bytes()).await;
        assert!(said.contains("16 connections are open"), "{said}");
        let waited = async {
            while told(&socket, line.as_bytes()).await != ALARMS {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(5), waited).await.unwrap();
        // The first ones have lost the rest of their document.
        assert!(heard(deaf.remove(0)).await.len() < 1_000_000);
    });
}

async fn next(reader: &mut BufReader<UnixStream>) -> Option<Answer> {
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
}

#[test]
fn a_ninth_subscriber_is_refused_until_one_has_gone() {
    with(Fake::default(), async |socket| {
        let line = Request::Subscribe.to_line();
        let mut followers = Vec::new();
        for _ in 0..feed::FOLLOWERS {
            let mut reader = BufReader::new(asked(&socket, line.as_bytes()).await);
            assert!(matches!(next(&mut reader).await, Some(Answer::State(_))));
            followers.push(reader);
        }
        let said = told(&socket, line.as_bytes()).await;
        assert!(said.contains("8 subscribers"), "{said}");
        // They take no place from those who ask.
        let line = Request::Alarms.to_line();
        assert_eq!(told(&socket, line.as_bytes()).await, ALARMS);
        drop(followers.split_off(4));
        // An agent where nothing happens says so, and finds who has gone.
        let quiet = timeout(Duration::from_secs(10), next(&mut followers[0])).await;
        assert_eq!(quiet.unwrap(), Some(Answer::Delta(Default::default())));
        let line = Request::Subscribe.to_line();
        let waited = async {
            while told_first(&socket, line.as_bytes())
                .await
                .starts_with("{\"error\"")
            {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(10), waited).await.unwrap();
    });
}

async fn told_first(socket: &Path, line: &[u8]) -> String {
    let mut reader = BufReader::new(asked(socket, line).await);
    let mut first = String::new();
    reader.read_line(&mut first).await.unwrap();
    first
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_and_the_others_follow() {
    let agent = Fake {
        ticks: true,
        ..Fake::default()
    };
    with(agent, async |socket| {
        let line = Request::Subscribe.to_line();
        let mut reader = BufReader::new(asked(&socket, line.as_bytes()).await);
        let Some(Answer::State(mut state)) = next(&mut reader).await else {
            panic!("no state");
        };
        let deaf = asked(&socket, line.as_bytes()).await;
        let begun = Instant::now();
        for look in 2..8 {
            let Some(Answer::Delta(delta)) = next(&mut reader).await else {
                panic!("no delta");
            };
            assert_eq!(delta.devices.len() as u64, DEVICES);
            state.apply(delta);
            assert_eq!(state.devices[7].answered, look);
        }
        // At most one a second.
        assert!(begun.elapsed() > Duration::from_secs(5));
        let text = timeout(Duration::from_secs(1), heard(deaf)).await.unwrap();
        assert!(!text.is_empty() && !text.ends_with('\n'));
    });
}
