use proptest::prelude::*;

use super::*;
use crate::testing::{FRAGMENT, LAST, Pdu};

fn piece(fragment: u16, last: bool, body: &[u8]) -> Rpc<'static> {
    let flags1 = if last { FRAGMENT | LAST } else { FRAGMENT };
    Pdu {
        flags1,
        fragment,
        ..Pdu::request(3, body)
    }
    .rpc()
}

#[test]
fn pieces_make_a_message_once_the_last_one_is_there() {
    let mut message = Reassembly::default();
    assert_eq!(message.push(&piece(0, false, b"one ")), Ok(None));
    assert_eq!(message.push(&piece(1, false, b"two ")), Ok(None));
    assert_eq!(
        message.push(&piece(2, true, b"three")),
        Ok(Some(&b"one two three"[..]))
    );
}

#[test]
fn pieces_that_are_repeated_change_nothing() {
    let mut message = Reassembly::default();
    for _ in 0..3 {
        assert_eq!(message.push(&piece(0, false, b"a")), Ok(None));
    }
    for _ in 0..3 {
        assert_eq!(message.push(&piece(1, true, b"b")), Ok(Some(&b"ab"[..])));
        assert_eq!(message.push(&piece(0, false, b"a")), Ok(None));
    }
}

#[test]
fn pieces_that_do_not_fit_are_refused_and_leave_the_message_as_it_was() {
    let mut message = Reassembly::default();
    let gap = FragmentError::Gap { got: 1, wanted: 0 };
    assert_eq!(message.push(&piece(1, false, b"b")), Err(gap));
    message.push(&piece(0, false, b"aa")).unwrap();
    let gap = FragmentError::Gap { got: 2, wanted: 1 };
    assert_eq!(message.push(&piece(2, true, b"c")), Err(gap));
    // Other octets, fewer, more, none, or now the last one.
    for (last, body) in [
        (false, &b"ab"[..]),
        (false, b"a"),
        (false, b"aaa"),
        (false, b""),
        (true, b"aa"),
    ] {
        let differs = Err(FragmentError::Differs(0));
        assert_eq!(message.push(&piece(0, last, body)), differs);
    }
    assert_eq!(message.push(&piece(1, true, b"b")), Ok(Some(&b"aab"[..])));
    let differs = Err(FragmentError::Differs(1));
    assert_eq!(message.push(&piece(1, false, b"b")), differs);
    let after = Err(FragmentError::AfterLast(2));
    assert_eq!(message.push(&piece(2, true, b"c")), after);
}

#[test]
fn a_message_has_bounds() {
    let mut many = Reassembly::default();
    for number in 0..MAX_FRAGMENTS {
        assert_eq!(many.push(&piece(number, false, b"")), Ok(None));
    }
    let error = Err(FragmentError::TooMany(MAX_FRAGMENTS));
    assert_eq!(many.push(&piece(MAX_FRAGMENTS, true, b"")), error);
    let mut long = Reassembly::default();
    let half = vec![0; MAX_MESSAGE / 2];
    assert_eq!(long.push(&piece(0, false, &half)), Ok(None));
    assert_eq!(long.push(&piece(1, false, &half)), Ok(None));
    assert_eq!(
        long.push(&piece(2, true, b"x")),
        Err(FragmentError::TooLong)
    );
    let whole = long.push(&piece(2, true, b"")).unwrap();
    assert_eq!(whole.map(<[u8]>::len), Some(MAX_MESSAGE));
}

proptest! {
    #[test]
    fn any_order_of_pieces_gives_the_message_or_nothing(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..6),
        order in prop::collection::vec(0usize..6, 0..40),
    ) {
        let whole = bodies.concat();
        let mut message = Reassembly::default();
        for at in order {
            let Some(body) = bodies.get(at) else { continue };
            let last = at + 1 == bodies.len();
            match message.push(&piece(at as u16, last, body)) {
                Ok(Some(octets)) => {
                    prop_assert!(last);
                    prop_assert_eq!(octets, &whole[..]);
                }
                Ok(None) => prop_assert!(!last),
                Err(error) => {
                    let gap = matches!(error, FragmentError::Gap { .. });
                    prop_assert!(gap);
                }
            }
        }
    }

    #[test]
    fn hostile_pieces_stay_within_the_bounds(pieces in prop::collection::vec((any::<u16>(), any::<bool>(), 0usize..3000), 0..200)) {
        let mut message = Reassembly::default();
        for (number, last, length) in pieces {
            let _ = message.push(&piece(number % 70, last, &vec![0; length]));
            prop_assert!(message.octets.len() <= MAX_MESSAGE);
            prop_assert!(message.ends.len() <= usize::from(MAX_FRAGMENTS));
        }
    }
}
