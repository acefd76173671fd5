use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const WHO: Parties = Parties {
    client: 7,
    device: 0,
    unit: 1,
};

fn asked(at: Instant, pdu: &[u8]) -> Exchange {
    Exchange::asked(at, WHO, &Request::parse(pdu).unwrap())
}

fn pushed(observer: &Observer, ring: &mut Consumer<Observation>) -> Vec<Observation> {
    let seen: Vec<_> = std::iter::from_fn(|| ring.pop().ok()).collect();
    assert_eq!(observer.lost(), 0);
    seen
}

#[test]
fn an_observation_is_small() {
    assert!(
        size_of::<Observation>() <= 128,
        "{}",
        size_of::<Observation>()
    );
}

#[test]
fn where_nobody_looks_on_nothing_is_told() {
    let observer = Observer::default();
    assert!(!observer.is_on());
    let exchange = asked(Instant::now(), &[3, 0, 0, 0, 1]);
    observer.exchange(&exchange, &[3, 2, 0, 1]);
    assert_eq!((observer.taken(), observer.lost()), (0, 0));
}

#[test]
fn a_read_tells_its_range_and_what_was_read() {
    let at = Instant::now();
    let ended = asked(at, &[3, 0, 100, 0, 2]).ended(
        at + Duration::from_micros(250),
        Fate::Answered,
        &[3, 4, 1, 2, 3, 4],
    );
    assert_eq!(
        ended.read.map(|range| (range.start, range.count)),
        Some((100, 2))
    );
    assert_eq!((ended.took, ended.exception, ended.written), (250, 0, None));
    assert_eq!(
        (ended.values.carried(), ended.values.digest),
        (&[1, 2, 3, 4][..], 0)
    );
}

#[test]
fn a_write_tells_what_was_written_whatever_the_answer() {
    let at = Instant::now();
    let multiple = asked(at, &[16, 0, 5, 0, 2, 4, 9, 8, 7, 6]);
    for (fate, pdu, exception) in [
        (Fate::Answered, &[16, 0, 5, 0, 2][..], 0),
        (Fate::Exception, &[0x90, 4], 4),
        (Fate::Unknown, &[0x90, 0x0B], 0x0B),
    ] {
        let ended = multiple.ended(at, fate, pdu);
        assert_eq!(
            ended.written.map(|range| (range.start, range.count)),
            Some((5, 2))
        );
        assert_eq!(
            (ended.values.carried(), ended.exception),
            (&[9, 8, 7, 6][..], exception)
        );
    }
    assert_eq!(asked(at, &[5, 0, 1, 0xFF, 0]).values.carried(), [1]);
    assert_eq!(
        asked(at, &[6, 0, 1, 0x12, 0x34]).values.carried(),
        [0x12, 0x34]
    );
    let coils = asked(at, &[15, 0, 0, 0, 3, 1, 0b101]);
    assert_eq!(coils.values.carried(), [0b101]);
}

#[test]
fn what_a_device_is_comes_whole_in_pieces() {
    let observer = Observer::default();
    let mut ring = observer.turn_on(16);
    let at = Instant::now();
    let mut pdu = vec![17, 198];
    pdu.extend(0..198);
    let ended = asked(at, &[17]).ended(at, Fate::Answered, &pdu);
    observer.exchange(&ended, &pdu);
    let seen = pushed(&observer, &mut ring);
    assert_eq!(seen[0], Observation::Exchange(ended));
    let mut whole: Vec<u8> = Vec::new();
    for piece in &seen[1..] {
        let Observation::Identity(piece) = piece else {
            panic!("{piece:?}");
        };
        assert_eq!(usize::from(piece.offset), whole.len());
        assert_eq!(usize::from(piece.total), pdu.len());
        whole.extend(piece.octets());
    }
    assert_eq!(whole, pdu);
    // An exception tells nothing of that.
    let refused = [0x91, 1];
    observer.exchange(&ended.ended(at, Fate::Exception, &refused), &refused);
    assert_eq!(pushed(&observer, &mut ring).len(), 1);
}

#[test]
fn what_goes_no_further_is_told_as_far_as_it_could_be_read() {
    let observer = Observer::default();
    let mut ring = observer.turn_on(4);
    let now = Instant::now();
    let pdu = [6, 0, 1, 0x12, 0x34];
    let request = Request::parse(&pdu).unwrap();
    let end = (Fate::Refused, Exception::IllegalDataValue);
    observer.refused(now, WHO, Ok(&request), end);
    observer.refused(now, WHO, Err(0x41), end);
    let seen = pushed(&observer, &mut ring).into_iter();
    let seen = seen.map(|seen| match seen {
        Observation::Exchange(it) => (it.function, it.exception, it.values.carried().to_vec()),
        Observation::Identity(_) => panic!(),
    });
    let expected = [(6, 3, vec![0x12, 0x34]), (0x41, 3, Vec::new())];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[test]
fn what_finds_no_room_is_lost_and_counted_and_nothing_before_it() {
    let observer = Observer::default();
    let mut ring = observer.turn_on(4);
    let at = Instant::now();
    for address in 0..10 {
        observer.exchange(&asked(at, &[3, 0, address, 0, 1]), &[3, 2, 0, 0]);
    }
    assert_eq!((observer.taken(), observer.lost()), (4, 6));
    let starts = std::iter::from_fn(|| ring.pop().ok()).map(|seen| match seen {
        Observation::Exchange(exchange) => exchange.read.unwrap().start,
        Observation::Identity(_) => panic!(),
    });
    assert_eq!(starts.collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn another_thread_reads_all_in_order_until_it_is_turned_off() {
    let observer = Observer::default();
    let mut ring = observer.turn_on(64);
    let reader = thread::spawn(move || {
        let mut next = 0;
        loop {
            let is_over = ring.is_abandoned();
            match ring.pop() {
                Ok(Observation::Exchange(exchange)) => {
                    assert_eq!(exchange.who.client, next);
                    next += 1;
                }
                Ok(Observation::Identity(_)) => panic!(),
                Err(_) if is_over => return next,
                Err(_) => thread::yield_now(),
            }
        }
    });
    let new = Exchange::new(Instant::now(), WHO, 3);
    while observer.taken() < 10_000 {
        let who = Parties {
            client: observer.taken(),
            ..WHO
        };
        observer.exchange(&Exchange { who, ..new }, &[3, 2, 0, 0]);
    }
    observer.turn_off();
    assert!(!observer.is_on());
    assert_eq!(reader.join().unwrap(), 10_000);
}

proptest! {
    #[test]
    fn any_answer_to_any_request_can_be_told(
        request in proptest::collection::vec(any::<u8>(), 1..=253),
        answer in proptest::collection::vec(any::<u8>(), 0..=253),
    ) {
        let observer = Observer::default();
        let mut ring = observer.turn_on(8);
        let at = Instant::now();
        let asked = match Request::parse(&request) {
            Ok(request) => Exchange::asked(at, WHO, &request),
            Err(_) => Exchange::new(at, WHO, request[0]),
        };
        let ended = asked.ended(at, Fate::Answered, &answer);
        observer.exchange(&ended, &answer);
        let seen = pushed(&observer, &mut ring);
        prop_assert!((1..=5).contains(&seen.len()));
        prop_assert!(ended.values.carried().len() <= CARRIED);
    }

    #[test]
    fn other_values_have_another_digest(a in proptest::collection::vec(any::<u8>(), 33..=250), at in 0..33_usize) {
        let mut b = a.clone();
        b[at] ^= 1;
        prop_assert_ne!(Octets::of(&a).digest, Octets::of(&b).digest);
        prop_assert_eq!(Octets::of(&a), Octets::of(&a.clone()));
    }
}
