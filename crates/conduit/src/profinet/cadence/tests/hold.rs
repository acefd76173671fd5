use super::*;

fn with_hold(age_limit: u64) -> ReceiverConfig {
    ReceiverConfig {
        hold: hold(age_limit),
        ..receiver_config()
    }
}

/// Ten frames over a way of 5 ms whose round trip is known.
fn held_world(config: ReceiverConfig) -> World {
    let mut world = World::new(sender_config(), config);
    world.receiver.set_round_trip(millis(10));
    world.run(0..10, |_| vec![millis(5)]);
    world
}

fn held(world: &World) -> Vec<&Given> {
    world.given.iter().filter(|given| given.held).collect()
}

#[test]
fn the_last_frame_is_repeated_up_to_its_age_and_then_there_is_silence() {
    let mut world = held_world(with_hold(200));
    assert_eq!(held(&world).len(), 0);
    world.until(millis(5_000));
    let held = held(&world);
    let last = world.given[9].clone();
    assert_eq!((last.number, last.held), (9, false));
    // 1.5 cycles after it, then each cycle, until 200 ms less a round trip of 10.
    let times: Vec<_> = held.iter().map(|held| held.at - last.at).collect();
    assert_eq!(times, [48, 80, 112, 144, 176].map(millis));
    for (count, held) in (1..).zip(held) {
        assert_eq!((held.number, held.data_status), (9, RUN));
        assert_eq!(held.tag, last.tag);
        assert_eq!(held.cycle_counter, last.cycle_counter + count);
    }
    let stats = world.receiver.stats();
    assert_eq!((stats.held, stats.longest_hold), (5, millis(176)));
    assert_eq!(world.receiver.poll_timeout(), None);
}

#[test]
fn a_frame_that_comes_late_or_after_the_hold_is_newer_than_its_repetitions() {
    let mut world = held_world(with_hold(400));
    world.run(10..20, |number| match number {
        10..=13 => vec![],
        14 => vec![millis(90)],
        _ => vec![millis(5)],
    });
    let numbers = world.numbers();
    assert!(
        numbers.ends_with(&[9, 9, 9, 9, 15, 16, 17, 18, 19]),
        "{numbers:?}"
    );
    for pair in world.given.windows(2) {
        assert!(is_newer(pair[0].cycle_counter, pair[1].cycle_counter));
    }
}

#[test]
fn a_late_frame_is_taken_though_its_slot_was_held() {
    let alone = SenderConfig {
        redundancy: 0,
        ..sender_config()
    };
    let mut world = World::new(alone, with_hold(400));
    world.receiver.set_round_trip(millis(10));
    world.run(0..10, |_| vec![millis(5)]);
    // From here on each frame takes two cycles longer.
    world.run(10..20, |_| vec![millis(5) + 2 * CYCLE]);
    world.until(world.now + CYCLE);
    let fresh: Vec<_> = world.given.iter().filter(|given| !given.held).collect();
    assert_eq!(fresh.len(), 19);
    assert_eq!(held(&world).len(), 2);
}

#[test]
fn data_older_than_the_limit_is_not_given_out_as_fresh_either() {
    let mut world = held_world(with_hold(100));
    world.run(10..15, |number| match number {
        10..=13 => vec![],
        _ => vec![millis(120)],
    });
    world.until(millis(5_000));
    assert!(!world.numbers().contains(&14));
    assert_eq!(world.receiver.stats().stale, 1);
    for given in &world.given {
        assert!(given.at - CYCLE * given.number <= millis(100), "{given:?}");
    }
}

#[test]
fn a_provider_that_stops_is_not_held_from_when_that_is_known() {
    for status in [
        0x25, // stop
        0x31, // invalid
        0x34, // backup
        0xb5, // to be ignored
    ] {
        for play_out in [None, Some(2 * CYCLE)] {
            let status = DataStatus(status);
            let mut world = held_world(ReceiverConfig {
                play_out,
                ..with_hold(1_000)
            });
            let stopped_at = world.now;
            world.provide(10, status, &[millis(5)]);
            world.until(millis(5_000));
            let after = |given: &&Given| given.at >= stopped_at + millis(5);
            let after: Vec<_> = world.given.iter().filter(after).collect();
            assert!(after.iter().all(|given| !given.held), "{after:?}");
            let last = after.last().unwrap();
            assert_eq!((last.number, last.data_status), (10, status));
        }
    }
}

#[test]
fn a_problem_of_the_station_ends_no_hold() {
    let mut world = held_world(with_hold(200));
    world.provide(10, DataStatus(0x15), &[millis(5)]);
    world.until(millis(5_000));
    assert_eq!(held(&world).len(), 5);
}

#[test]
fn after_stop_nothing_leaves_and_nothing_is_taken() {
    for reason in [Stop::Release, Stop::Abort, Stop::Tunnel, Stop::Policy] {
        let mut world = held_world(ReceiverConfig {
            play_out: Some(3 * CYCLE),
            ..with_hold(1_000)
        });
        let given = world.given.len();
        world.receiver.stop(reason);
        world.until(millis(5_000));
        assert_eq!(world.given.len(), given);
        assert_eq!(world.receiver.poll_timeout(), None);
        let data = data(11);
        let frame = Frame {
            tag: None,
            cycle_counter: 11 * STEP,
            data_status: RUN,
            data: &data,
        };
        let now = world.start + world.now;
        let mut datagram = Vec::new();
        assert!(world.sender.handle_frame(now, &frame, &mut datagram));
        assert_eq!(
            world.receiver.handle_datagram(now, &datagram),
            Err(Refused::Stopped(reason))
        );
        assert_eq!(world.receiver.poll_frame(now), None);
        assert_eq!(world.receiver.stats().after_stop, 1);
    }
}

#[test]
fn without_a_known_round_trip_or_without_hold_nothing_is_repeated() {
    let mut world = World::new(sender_config(), with_hold(500));
    world.run(0..10, |_| vec![millis(5)]);
    world.until(millis(5_000));
    assert_eq!(world.given.len(), 10);

    let mut world = held_world(receiver_config());
    world.until(millis(5_000));
    assert_eq!(world.given.len(), 10);
}

#[test]
fn the_longest_round_trip_counts() {
    let mut world = held_world(with_hold(200));
    world.receiver.set_round_trip(millis(100));
    world.receiver.set_round_trip(millis(10));
    world.until(millis(5_000));
    assert_eq!(held(&world).len(), 2);
}

#[test]
fn what_can_not_be_is_refused_when_it_is_configured() {
    let refused = |change: &dyn Fn(&mut ReceiverConfig)| {
        let mut config = with_hold(200);
        change(&mut config);
        Receiver::new(config, Instant::now())
            .map(|_| ())
            .unwrap_err()
    };
    let second = millis(1_000);
    assert_eq!(
        refused(&|config| config.cycle = Duration::ZERO),
        ConfigError::Cycle(Duration::ZERO)
    );
    assert_eq!(
        refused(&|config| config.cycle = 2 * second),
        ConfigError::Cycle(2 * second)
    );
    assert_eq!(
        refused(&|config| config.watchdog = millis(31)),
        ConfigError::Watchdog(millis(31))
    );
    assert_eq!(
        refused(&|config| config.watchdog = 2 * second),
        ConfigError::Watchdog(2 * second)
    );
    assert_eq!(
        refused(&|config| config.play_out = Some(257 * CYCLE)),
        ConfigError::PlayOut {
            play_out: 257 * CYCLE,
            most: 256 * CYCLE,
        }
    );
    assert_eq!(
        refused(&|config| config.play_out = Some(millis(168))),
        ConfigError::HoldTooShort {
            age_limit: millis(200),
            needed: millis(200),
        }
    );
    assert_eq!(
        refused(&|config| config.hold = hold(1_921)),
        ConfigError::HoldTooLong(millis(1_921))
    );
    let limit = millis(295);
    assert_eq!(
        refused(&|config| config.hold.as_mut().unwrap().fail_safe_limit = limit),
        ConfigError::FailSafe {
            bound: millis(296),
            limit,
        }
    );
    assert_eq!(with_hold(200).fail_safe_bound(), millis(296));
}
