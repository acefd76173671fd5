//! What reaches the local port for monitoring: of a process of the machine, or of a browser that was
//! led there.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use fieldlock_agent::monitor::http::{self, Question, Told};
use tokio::runtime::Runtime;

use crate::wire::{self, TO_END, Wire, one_answer};

/// Octets of one connection: a head of 8 KiB, and reads that come with it.
const MOST_TAKEN: usize = 32 * 1024;
const MOST_SAID: usize = 1024;
const NAME: &str = "scrape.example";

/// One connection in pieces (1 begins another; 6 is much of the octet after it): at most one answer
/// and the end, and nothing is told unless it is asked for by GET, of one host that is this machine.
pub fn monitor_http(data: &[u8]) {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    let asked = Cell::new(None);
    let told = async |question| {
        assert!(asked.replace(Some(question)).is_none(), "asked twice");
        match question {
            Question::Metrics => Told::Metrics("fieldlock_up 1\n".to_owned()),
            Question::Health => Told::Verdict(Ok(())),
            Question::Ready => Told::Verdict(Err("no tunnel".to_owned())),
        }
    };
    let (&how, text) = data.split_first().unwrap_or((&0, &[]));
    let sent = written(text);
    let wire = Wire::new(sent.clone(), how & 1 != 0);
    let names = [NAME.to_owned()];
    let (ended, talk) = RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.get_or_insert_with(wire::runtime);
        let served = http::converse(wire.clone(), &names, told);
        runtime.block_on(wire.talk(served, async || (), TO_END))
    });
    assert!(ended.is_some(), "it does not end when its client leaves");
    assert!(talk.taken <= MOST_TAKEN, "{} octets read", talk.taken);
    assert!(talk.said.len() <= MOST_SAID, "{} said", talk.said.len());
    let sent = sent.concat();
    if asked.get().is_some() {
        assert!(sent.starts_with(b"GET "), "not by GET");
        assert!(names_this_machine(&sent), "of another host");
    }
    let is_head = sent.starts_with(b"HEAD");
    let Some(answer) = one_answer(&talk.said, is_head) else {
        return;
    };
    match (answer.status, asked.get()) {
        (200, Some(Question::Metrics)) => assert_eq!(answer.body, b"fieldlock_up 1\n"),
        (200, Some(Question::Health)) | (503, Some(Question::Ready)) => {}
        (400 | 403 | 404 | 405 | 414 | 431, None) => {}
        other => panic!("{other:?}"),
    }
}

/// A naive reading of the head: one line `Host`, whose value is this machine.
fn names_this_machine(sent: &[u8]) -> bool {
    let text = String::from_utf8_lossy(sent);
    let lines = text.split('\n').map(str::trim_end).skip(1);
    let head = lines.take_while(|line| !line.is_empty());
    let hosts = head.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    let hosts: Vec<&str> = hosts.collect();
    let [host] = hosts.as_slice() else {
        return false;
    };
    let (_, host) = host.rsplit_once('@').unwrap_or(("", host));
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| {
        let own = ["localhost", NAME];
        name.parse::<IpAddr>().is_ok() || own.iter().any(|own| own.eq_ignore_ascii_case(name))
    })
}

fn written(text: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    let mut octets = text.iter();
    while let Some(&octet) = octets.next() {
        let piece = pieces.last_mut().expect("there is a first one");
        match octet {
            1 => pieces.push(Vec::new()),
            6 => {
                let length = piece.len() + (16 << 10);
                piece.resize(length, octets.next().copied().unwrap_or(b'a'));
            }
            octet => piece.push(octet),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
