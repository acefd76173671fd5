use super::*;

fn with_play_out(cycles: u32) -> ReceiverConfig {
    ReceiverConfig {
        play_out: Some(CYCLE * cycles),
        ..receiver_config()
    }
}

#[test]
fn without_play_out_frames_leave_as_they_arrive() {
    let mut world = World::new(sender_config(), receiver_config());
    world.run(0..10, |_| vec![millis(20)]);
    assert_eq!(world.numbers(), (0..10).collect::<Vec<_>>());
    assert!(world.gaps().iter().all(|gap| *gap == CYCLE));
    let first = &world.given[0];
    assert_eq!((first.at, first.tag), (millis(20), Some(Tag(0xc000))));
    assert!(world.given.iter().all(|given| given.data_status == RUN));
}

#[test]
fn without_play_out_a_repaired_frame_gives_way_to_the_newer_one_it_came_with() {
    let mut world = World::new(sender_config(), receiver_config());
    world.run(0..6, |number| match number {
        3 => vec![],
        _ => vec![millis(5)],
    });
    assert_eq!(world.numbers(), [0, 1, 2, 4, 5]);
    let stats = world.receiver.stats();
    assert_eq!((stats.gaps, stats.passed_over, stats.repaired), (1, 1, 0));
}

#[test]
fn play_out_gives_a_repaired_frame_its_slot() {
    let mut world = World::new(sender_config(), with_play_out(2));
    world.run(0..20, |number| match number {
        3 | 4 | 9 => vec![],
        _ => vec![millis(5)],
    });
    world.until(world.now + CYCLE);
    assert_eq!(world.numbers(), (0..19).collect::<Vec<_>>());
    assert!(
        world
            .gaps()
            .iter()
            .all(|gap| CYCLE.abs_diff(*gap) < millis(1))
    );
    let stats = world.receiver.stats();
    assert_eq!((stats.gaps, stats.repaired, stats.late), (0, 3, 0));
}

#[test]
fn play_out_takes_jitter_and_disorder_away_and_adds_its_delay() {
    let mut chance = Chance(7);
    let mut world = World::new(sender_config(), with_play_out(3));
    world.run(0..2_000, |_| vec![millis(10 + chance.below(90))]);
    world.until(world.now + 4 * CYCLE);
    assert_eq!(world.numbers(), (0..2_000).collect::<Vec<_>>());
    // After the least delay was found.
    let steady = &world.gaps()[200..];
    assert!(
        steady.iter().all(|gap| CYCLE.abs_diff(*gap) < millis(5)),
        "{steady:?}"
    );
    let ages = world.receiver.ages();
    let half = ages.percentile(0.5);
    assert!((millis(95)..millis(115)).contains(&half), "{half:?}");
    assert_eq!(world.receiver.stats().gaps, 0);
}

#[test]
fn a_frame_behind_its_slot_leaves_at_once_unless_a_newer_one_has() {
    let mut world = World::new(sender_config(), with_play_out(1));
    world.run(0..12, |number| match number {
        // Behind its slot by 18 ms, then by more than a cycle.
        5 => vec![millis(50)],
        8 => vec![millis(100)],
        _ => vec![millis(0)],
    });
    assert_eq!(world.numbers(), (0..11).collect::<Vec<_>>());
    // 8 was repaired by 9 in time, so its own datagram is a duplicate.
    let stats = world.receiver.stats();
    assert_eq!((stats.duplicates, stats.late, stats.gaps), (2, 0, 0));

    let alone = SenderConfig {
        redundancy: 0,
        ..sender_config()
    };
    let mut world = World::new(alone, with_play_out(1));
    world.run(0..12, |number| match number {
        5 => vec![millis(50)],
        8 => vec![millis(100)],
        _ => vec![millis(0)],
    });
    assert_eq!(world.numbers(), [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]);
    assert_eq!(world.given[5].at, 5 * CYCLE + millis(50));
    let stats = world.receiver.stats();
    assert_eq!((stats.duplicates, stats.late, stats.gaps), (0, 1, 1));
}

#[test]
fn a_frame_that_waits_leaves_before_its_slot_rather_than_after_the_watchdog() {
    let alone = SenderConfig {
        redundancy: 0,
        ..sender_config()
    };
    // Three frames are lost, so four cycles pass between slots; W is three.
    let mut world = World::new(alone, with_play_out(2));
    world.run(0..20, |number| match number {
        5..=7 => vec![],
        _ => vec![millis(5)],
    });
    let (before, after) = (&world.given[4], &world.given[5]);
    assert_eq!((before.number, after.number), (4, 8));
    assert_eq!(after.at - before.at, 3 * CYCLE - CYCLE / 4);
    assert_eq!(world.given[6].number, 9);
    let in_slot = CYCLE.abs_diff(world.given[7].at - world.given[6].at);
    assert!(in_slot < millis(1));
    assert_eq!(world.receiver.stats().gaps, 3);
}

#[test]
fn crystals_that_drift_apart_neither_starve_nor_fill_the_play_out() {
    // Of the provider and the sender against the receiver, in millionths.
    for (provider, sender) in [(200_i64, 200_i64), (-200, -200), (200, -200), (0, 0)] {
        let mut chance = Chance(3);
        let mut world = World::new(sender_config(), with_play_out(2));
        world.drift = sender;
        let hour = 3_600_000 / 32;
        for number in 0..hour {
            world.until(drifted(CYCLE * number, provider));
            let delay = millis(5) + Duration::from_micros(chance.below(20_000));
            world.provide(number, RUN, &[delay]);
        }
        let stats = world.receiver.stats();
        assert_eq!((stats.gaps, stats.late, stats.passed_over), (0, 0, 0));
        assert!(stats.emitted > u64::from(hour - 4));
        let ages = world.receiver.ages();
        assert!(ages.percentile(0.5) < millis(75), "{ages:?}");
        assert!(ages.max() < millis(90), "{:?}", ages.max());
    }
}

#[test]
fn sequences_and_times_wrap() {
    // The microseconds of the sender wrap after 4,295 s.
    let wrapping = SenderConfig {
        first_sequence: u32::MAX - 20,
        ..sender_config()
    };
    let mut world = World::new(wrapping, with_play_out(2));
    world.until(Duration::from_millis(4_294_600));
    world.run(0..60, |number| match number % 5 {
        4 => vec![],
        _ => vec![millis(5)],
    });
    assert_eq!(world.numbers(), (0..58).collect::<Vec<_>>());
    let stats = world.receiver.stats();
    assert_eq!((stats.gaps, stats.restarts), (0, 0));
    assert!(world.receiver.ages().max() < millis(70));
}

#[test]
fn a_sender_that_begins_anew_is_followed() {
    let mut world = World::new(sender_config(), with_play_out(2));
    world.run(0..50, |_| vec![millis(5)]);
    let again = SenderConfig {
        first_sequence: 3_000_000_000,
        ..sender_config()
    };
    // Away for two cycles. What waited is lost with the old sequence.
    world.until(world.now + 2 * CYCLE);
    world.sender = Sender::new(again, world.start + world.now);
    world.run(52..100, |_| vec![millis(5)]);
    let numbers = world.numbers();
    assert_eq!(numbers[..50], (0..50).collect::<Vec<_>>());
    assert_eq!(numbers[50..], (52..98).collect::<Vec<_>>());
    let stats = world.receiver.stats();
    assert_eq!((stats.restarts, stats.gaps), (1, 0));
}

#[test]
fn a_way_that_becomes_longer_for_good_is_followed_within_some_cycles() {
    let mut world = World::new(sender_config(), with_play_out(2));
    world.run(0..100, |_| vec![millis(5)]);
    world.run(100..200, |_| vec![millis(205)]);
    world.until(world.now + 10 * CYCLE);
    let numbers = world.numbers();
    assert_eq!(numbers[..], (0..200).collect::<Vec<_>>());
    // Its play-out delay again: 64 ms behind the arrival.
    let last = world.given.last().unwrap();
    assert!(last.at > 199 * CYCLE + millis(205 + 62), "{last:?}");
}

#[test]
fn a_provider_that_counts_on_after_a_pause_is_followed() {
    let mut world = World::new(sender_config(), with_play_out(2));
    world.run(0..100, |_| vec![millis(5)]);
    world.until(world.now + millis(700));
    world.run(100..200, |_| vec![millis(5)]);
    world.until(world.now + 3 * CYCLE);
    assert_eq!(world.numbers(), (0..200).collect::<Vec<_>>());
    let steady = &world.gaps()[130..];
    assert!(steady.iter().all(|gap| CYCLE.abs_diff(*gap) < millis(1)));
}
