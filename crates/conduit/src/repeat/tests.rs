use fieldlock_modbus::Table;

use super::*;

const HOLD: Duration = Duration::from_secs(10);
/// Holding register 7 is set to 1.
const ON: &[u8] = &[6, 0, 7, 0, 1];
const OFF: &[u8] = &[6, 0, 7, 0, 0];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn client(last: u8) -> Who {
    Who::Address([192, 0, 2, last].into())
}

/// One end, with a clock.
struct Harness {
    repeats: Repeats,
    now: Instant,
    /// Connections whose answers were acknowledged.
    delivered: Vec<u64>,
}

impl Harness {
    fn headend() -> Self {
        Self::of(Repeats::at_headend(HOLD))
    }

    fn edge() -> Self {
        Self::of(Repeats::at_edge(HOLD))
    }

    fn of(repeats: Repeats) -> Self {
        Self {
            repeats,
            now: Instant::now(),
            delivered: Vec::new(),
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += ms(millis);
    }

    /// Asks; `Err` is the first that it repeats.
    fn ask(&mut self, (connection, transaction): (u64, u16), pdu: &[u8]) -> Result<Ticket, u64> {
        self.ask_as((&client(1), connection, transaction), (0, 1), pdu)
    }

    fn ask_as(
        &mut self,
        (who, connection, transaction): (&Who, u64, u16),
        (device, unit): (usize, u8),
        pdu: &[u8],
    ) -> Result<Ticket, u64> {
        let request = Request::parse(pdu).unwrap();
        let asked = Asked {
            who,
            connection,
            transaction,
            device,
            unit,
            request: &request,
        };
        let delivered = &self.delivered;
        let first = self
            .repeats
            .first(self.now, &asked, |one| delivered.contains(&one));
        if let Some(first) = first {
            return Err(first);
        }
        let id = self.repeats.next + 100;
        Ok(self.repeats.begin(self.now, &asked, id).unwrap())
    }

    fn end(&mut self, ticket: Ticket, end: End) {
        self.repeats.ended(self.now, &client(1), ticket, end);
    }

    fn read(&mut self, start: u16, count: u16) {
        let range = Range {
            table: Table::HoldingRegister,
            start,
            count,
        };
        self.repeats.read(&client(1), 0, 1, &range, self.now);
    }
}

#[test]
fn a_write_without_an_outcome_is_not_sent_again_for_as_long_as_it_is_held() {
    let mut end = Harness::headend();
    let first = end.ask((1, 1), ON).unwrap();
    end.pass(1000);
    // Under way, on this connection with another id, and on another.
    assert_eq!(end.ask((1, 2), ON), Err(100));
    assert_eq!(end.ask((2, 1), ON), Err(100));
    end.end(first, End::Unknown);
    end.pass(9_999);
    assert_eq!(end.ask((3, 1), ON), Err(100));
    end.pass(1);
    end.ask((3, 1), ON).unwrap();
}

#[test]
fn other_clients_values_units_and_devices_are_their_own() {
    let mut end = Harness::headend();
    let first = end.ask((1, 1), ON).unwrap();
    end.end(first, End::Unknown);
    end.ask((1, 2), OFF).unwrap();
    end.ask((1, 3), &[6, 0, 8, 0, 1]).unwrap();
    end.ask((1, 4), &[16, 0, 7, 0, 1, 2, 0, 1]).unwrap();
    end.ask_as((&client(1), 1, 5), (0, 2), ON).unwrap();
    end.ask_as((&client(1), 1, 6), (1, 1), ON).unwrap();
    end.ask_as((&client(2), 2, 1), (0, 1), ON).unwrap();
    assert_eq!(end.ask((1, 7), ON), Err(100));
}

#[test]
fn what_certainly_was_not_sent_may_come_again() {
    let mut end = Harness::headend();
    let first = end.ask((1, 1), ON).unwrap();
    end.end(first, End::NotSent);
    assert!(end.repeats.is_empty());
    end.ask((1, 1), ON).unwrap();
}

#[test]
fn pipelined_twice_is_meant_twice() {
    let mut end = Harness::headend();
    end.ask((1, 1), ON).unwrap();
    end.pass(199);
    end.ask((1, 2), ON).unwrap();
    assert_eq!(end.ask((2, 1), ON), Err(100));
    end.pass(1);
    assert_eq!(end.ask((1, 3), ON), Err(100));
}

#[test]
fn an_answer_that_arrived_ends_it_and_one_that_was_lost_does_not() {
    for done in [End::Done, End::Refused] {
        let mut end = Harness::headend();
        let first = end.ask((1, 1), ON).unwrap();
        end.pass(10);
        end.end(first, done);
        // The connection is gone, and with it the answer, or the client's system has it.
        assert_eq!(end.ask((2, 1), ON), Err(100));
        end.delivered.push(1);
        end.ask((2, 1), ON).unwrap();
    }
}

#[test]
fn the_same_write_on_the_same_connection_is_a_new_one_by_its_id_or_its_acknowledgement() {
    let mut end = Harness::headend();
    let first = end.ask((1, 1), ON).unwrap();
    end.end(first, End::Done);
    // As a client with a time-out sends it again while the answer is lost.
    assert_eq!(end.ask((1, 1), ON), Err(100));
    end.ask((1, 2), ON).unwrap();
    // A client that always uses the same id.
    end.delivered.push(1);
    end.ask((1, 1), ON).unwrap();
}

#[test]
fn a_repeat_that_crosses_a_late_answer_is_one() {
    for (took, after, is_repeat) in [
        (400, 49, true),
        (399, 49, false),
        (400, 50, false),
        (3000, 0, true),
    ] {
        let mut end = Harness::headend();
        end.delivered.push(1);
        let first = end.ask((1, 1), ON).unwrap();
        end.pass(took);
        end.end(first, End::Done);
        end.pass(after);
        let transaction = if after % 2 == 0 { 1 } else { 2 };
        let asked = end.ask((1, transaction), ON);
        assert_eq!(asked.is_err(), is_repeat, "{took} {after}");
    }
}

#[test]
fn who_asks_something_else_has_its_answers() {
    let mut end = Harness::headend();
    let first = end.ask((1, 1), ON).unwrap();
    assert!(end.repeats.goes_on(&client(1), 1), "it is under way");
    end.end(first, End::Done);
    assert!(!end.repeats.goes_on(&client(1), 2), "another connection");
    assert_eq!(end.ask((2, 1), ON), Err(100));
    assert!(!end.repeats.goes_on(&client(1), 1));
    end.ask((2, 1), ON).unwrap();
    // Nobody knows of this one, whatever else the client asks.
    let mut end = Harness::headend();
    let first = end.ask((1, 1), ON).unwrap();
    end.end(first, End::Unknown);
    assert!(!end.repeats.goes_on(&client(1), 1));
    assert_eq!(end.ask((1, 2), ON), Err(100));
}

#[test]
fn who_has_read_all_of_it_after_its_end_knows() {
    let pdu = &[16, 0, 7, 0, 2, 4, 0, 1, 0, 2];
    for (start, count, knows) in [(7, 2, true), (0, 9, true), (7, 1, false), (8, 5, false)] {
        let mut end = Harness::headend();
        let first = end.ask((1, 1), pdu).unwrap();
        end.read(start, count);
        assert_eq!(end.ask((2, 1), pdu), Err(100), "before its end");
        end.end(first, End::Unknown);
        end.read(start, count);
        assert_eq!(end.ask((2, 1), pdu).is_ok(), knows, "{start} {count}");
    }
}

#[test]
fn another_write_with_success_to_the_same_place_ends_it() {
    for (asked_before, done, is_over) in [
        (false, End::Done, true),
        (false, End::Refused, false),
        (false, End::Unknown, false),
        (true, End::Done, false),
    ] {
        let mut end = Harness::headend();
        let first = end.ask((1, 1), ON).unwrap();
        let early = asked_before.then(|| end.ask((1, 2), OFF).unwrap());
        end.pass(1);
        end.end(first, End::Unknown);
        let other = early.unwrap_or_else(|| end.ask((1, 2), OFF).unwrap());
        end.pass(1);
        end.end(other, done);
        assert_eq!(
            end.ask((1, 3), ON).is_ok(),
            is_over,
            "{asked_before} {done:?}"
        );
    }
}

#[test]
fn an_edge_judges_what_comes_through_another_headend() {
    let through = |process: u64, client: u64| (process << 32 | client, 0);
    for fate in [
        None,
        Some(End::Done),
        Some(End::Refused),
        Some(End::Unknown),
    ] {
        let mut end = Harness::edge();
        let first = end.ask(through(1, 4), ON).unwrap();
        end.pass(300);
        if let Some(fate) = fate {
            end.end(first, fate);
        }
        end.ask(through(1, 5), ON).unwrap();
        assert_eq!(end.ask(through(2, 4), ON), Err(100), "{fate:?}");
    }
    let mut end = Harness::edge();
    let first = end.ask(through(1, 4), ON).unwrap();
    end.end(first, End::Done);
    assert!(!end.repeats.goes_on(&client(1), 1 << 32 | 4));
    end.ask(through(2, 4), ON).unwrap();
}

#[test]
fn nothing_grows_without_bound() {
    let mut end = Harness::headend();
    let value = |n: u16| [&[6, 0, 7][..], &n.to_be_bytes()].concat();
    let first = end.ask((1, 1), &value(0)).unwrap();
    end.end(first, End::Done);
    let rest: Vec<_> = (1..256)
        .map(|n| end.ask((1, 1), &value(n)).unwrap())
        .collect();
    // The answered one makes room.
    end.ask((1, 1), &value(256)).unwrap();
    let request = value(257);
    let request = Request::parse(&request).unwrap();
    let who = client(1);
    let asked = Asked {
        who: &who,
        connection: 1,
        transaction: 1,
        device: 0,
        unit: 1,
        request: &request,
    };
    assert_eq!(end.repeats.begin(end.now, &asked, 1), Err(Full));
    // Other clients have room of their own, and time makes some.
    end.ask_as((&client(2), 2, 1), (0, 1), ON).unwrap();
    for ticket in rest {
        end.end(ticket, End::Unknown);
    }
    end.pass(10_000);
    end.repeats.begin(end.now, &asked, 1).unwrap();
    assert_eq!(end.repeats.writes[&client(1)].len(), 2);
    assert_eq!(end.repeats.writes[&client(2)].len(), 1);
}

/// A hostile headend states as many clients as it likes.
#[test]
fn many_clients_have_no_more_room_than_all() {
    let mut end = Harness::edge();
    let who = |n: u32| Who::Address(std::net::Ipv4Addr::from_bits(n).into());
    let request = Request::parse(ON).unwrap();
    let mut begun = 0;
    for n in 0..20_000 {
        let asked = Asked {
            who: &who(n),
            connection: n.into(),
            transaction: 0,
            device: 0,
            unit: 1,
            request: &request,
        };
        if let Ok(ticket) = end.repeats.begin(end.now, &asked, 1) {
            end.repeats.ended(end.now, &who(n), ticket, End::Done);
            begun += 1;
        }
    }
    assert_eq!((begun, end.repeats.count), (16_384, 16_384));
    // Time makes room, and so does an end.
    assert!(!end.repeats.goes_on(&who(0), 0));
    assert_eq!(end.repeats.count, 16_383);
    end.pass(10_000);
    end.ask((1, 1), ON).unwrap();
    assert_eq!((end.repeats.count, end.repeats.writes.len()), (1, 1));
}
