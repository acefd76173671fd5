//! What holds whatever the way does.

use proptest::prelude::*;

use super::*;

/// The longest delay of the way, which is what is known of its round trip.
const SLOWEST: u64 = 200;

#[derive(Debug, Clone)]
enum Step {
    /// The provider sends: its status, the delays of the datagram's copies in milliseconds.
    Frame(DataStatus, Vec<u64>),
    /// The provider is silent for some cycles, but counts on.
    Silence(u32),
    /// The sending agent begins anew.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![12 => Just(RUN), 1 => Just(DataStatus(0x25)), 1 => Just(DataStatus(0x31)), 1 => Just(DataStatus(0xb5))];
    let copies = prop_oneof![
        2 => Just(vec![]),
        8 => proptest::collection::vec(0..SLOWEST, 1..3),
        4 => proptest::collection::vec(0..20_u64, 1),
    ];
    prop_oneof![
        40 => (status, copies).prop_map(|(status, copies)| Step::Frame(status, copies)),
        2 => (1..70_u32).prop_map(Step::Silence),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn whatever_the_way_does(
        steps in proptest::collection::vec(step(), 1..150),
        play_out in proptest::option::of(0..6_u32),
        age_limit in proptest::option::of(SLOWEST + 250..1_900),
        redundancy in 0..8_u8,
        spread in 1..5_u8,
    ) {
        let receiver = ReceiverConfig {
            play_out: play_out.map(|cycles| CYCLE * cycles),
            hold: age_limit.and_then(hold),
            ..receiver_config()
        };
        let sender = SenderConfig { redundancy, spread, ..sender_config() };
        let mut world = World::new(sender.clone(), receiver);
        world.receiver.set_round_trip(millis(SLOWEST));
        world.until(millis(100));
        prop_assert_eq!(world.given.len(), 0);

        let mut provided = BTreeMap::new();
        let mut number = 0;
        let mut first_sequence = sender.first_sequence;
        for step in steps {
            match step {
                Step::Frame(status, copies) => {
                    let fate: Fate = copies.into_iter().map(millis).collect();
                    provided.insert(number, (world.now, status));
                    world.provide(number, status, &fate);
                    number += 1;
                    world.until(world.now + CYCLE);
                }
                Step::Silence(cycles) => {
                    number += cycles;
                    world.until(world.now + CYCLE * cycles);
                }
                Step::Restart => {
                    first_sequence += 1_000_000;
                    let config = SenderConfig { first_sequence, ..sender.clone() };
                    world.sender = Sender::new(config, world.start + world.now);
                }
            }
        }
        world.until(world.now + millis(3_000));

        for pair in world.given.windows(2) {
            prop_assert!(is_newer(pair[0].cycle_counter, pair[1].cycle_counter), "{pair:?}");
            if pair[1].held {
                prop_assert_eq!(pair[0].number, pair[1].number);
            } else {
                prop_assert!(pair[0].number < pair[1].number, "{pair:?}");
            }
        }
        for given in &world.given {
            let (sent, status) = provided[&given.number];
            prop_assert_eq!(given.data_status, status);
            prop_assert_eq!(given.tag, Some(Tag::priority_only(6)));
            prop_assert!(!given.held || status == RUN);
            match age_limit {
                Some(limit) => prop_assert!(given.at - sent <= millis(limit), "{given:?}"),
                None => prop_assert!(!given.held),
            }
        }
        let stats = world.receiver.stats();
        let held = world.given.iter().filter(|given| given.held).count() as u64;
        prop_assert_eq!(stats.held, held);
        prop_assert_eq!(stats.emitted, world.given.len() as u64 - held);
    }

    #[test]
    fn no_datagrams_panic_keep_the_receiver_busy_or_wake_it_in_the_past(
        datagrams in proptest::collection::vec(
            (any::<[u32; 2]>(), any::<[u16; 2]>(), 0..5_000_u64, any::<bool>()), 1..100),
        play_out in proptest::option::of(0..6_u32),
    ) {
        let start = Instant::now();
        let config = ReceiverConfig {
            play_out: play_out.map(|cycles| CYCLE * cycles),
            hold: hold(1_000),
            ..receiver_config()
        };
        let mut receiver = Receiver::new(config, start).unwrap();
        receiver.set_round_trip(millis(1));
        let mut now = start;
        let mut bytes = Vec::new();
        for ([sequence, sent], [counter, other], pause, near) in datagrams {
            now += millis(pause);
            bytes.clear();
            let sequence = if near { sequence % 300 } else { sequence };
            Header { stream: STREAM, sequence, sent, count: 2 }.write(&mut bytes);
            let data = data(0);
            for (age, cycle_counter) in [(0, counter), (127, other)] {
                let frame = Frame { tag: None, cycle_counter, data_status: RUN, data: &data };
                frame.write(age, &mut bytes);
            }
            prop_assert_eq!(receiver.handle_datagram(now, &bytes), Ok(()));
            let mut left = 0;
            while receiver.poll_frame(now).is_some() {
                left += 1;
                prop_assert!(left < 40);
            }
            prop_assert!(receiver.poll_timeout().is_none_or(|at| at > now));
        }
    }
}
