//! Cyclic data: what feeds a watchdog, and when it expires.

use std::time::Duration;

use fieldlock_sim::profinet::{Abort, Defect, Event, Side};

use crate::world::{DEVICE, Who, World, controller_mac, is_cyclic};

const CYCLE: Duration = Duration::from_millis(32);
const WATCHDOG_EXPIRED: u32 = 0xcf81_fd05;

#[test]
fn an_ar_over_an_ideal_wire_runs_for_an_hour() {
    let mut world = World::established(|_, _| {});
    world.run(Duration::from_secs(3600));
    let now = world.now;
    for stats in [world.controllers[0].stats(), world.device.stats()] {
        assert_eq!((stats.aborts, stats.established, stats.skipped), (0, 1, 0));
        assert!(stats.up(now) >= Duration::from_secs(3600));
        let consumed = &stats.consumed;
        assert!(consumed.accepted >= 3600 * 1000 / 32);
        assert_eq!(
            (consumed.old, consumed.duplicate, consumed.short),
            (0, 0, 0)
        );
        assert_eq!(
            (consumed.invalid, consumed.altered, consumed.repeated),
            (0, 0, 0)
        );
        assert_eq!(consumed.age.min(), Duration::from_millis(1));
        assert_eq!(consumed.age.max(), Duration::from_millis(1));
        assert!(consumed.gap.max().abs_diff(CYCLE) < Duration::from_micros(100));
    }
    let (sent, accepted) = (
        world.controllers[0].stats().sent,
        world.device.stats().consumed.accepted,
    );
    assert!(sent - accepted <= 1, "{sent} {accepted}");
}

/// Cuts the cyclic frames of `from`, and returns who aborted, and when after the last frame.
fn cut(from: Who, factor: u16) -> (Abort, Duration) {
    let mut world = World::established(|controller, _| controller.watchdog_factor = factor);
    world.run(Duration::from_secs(1));
    let since = world.elapsed();
    world.passes = Box::new(move |at, who, frame| at < since || who != from || !is_cyclic(frame));
    let (consumer, other) = match from {
        Who::Device => (Who::Controller(0), Who::Device),
        Who::Controller(_) => (Who::Device, Who::Controller(0)),
    };
    world.run_until(Duration::from_secs(4), |world| {
        world.controllers[0].stats().aborts > 0 && world.device.stats().aborts > 0
    });
    let &[&Event::Aborted(abort)] = world.events_of(consumer).as_slice() else {
        panic!("{:?}", world.events);
    };
    // The other side heard of it, and not by a watchdog of its own.
    let &[&Event::Aborted(told)] = world.events_of(other).as_slice() else {
        panic!("{:?}", world.events);
    };
    assert_eq!((told.side, told.status), (abort.side, abort.status));
    let stats = match from {
        Who::Device => world.controllers[0].stats(),
        Who::Controller(_) => world.device.stats(),
    };
    let fail_safe = stats.last_fail_safe.expect("a watchdog");
    assert_eq!(fail_safe.at, abort.at);
    // Data was a wire's delay old when it was accepted.
    assert_eq!(
        fail_safe.age,
        fail_safe.since_accepted + Duration::from_millis(1)
    );
    (abort, fail_safe.since_accepted)
}

#[test]
fn a_consumer_that_hears_nothing_aborts_after_exactly_its_watchdog() {
    for factor in [1, 3, 10, 60] {
        for (from, side) in [
            (Who::Controller(0), Side::Device),
            (Who::Device, Side::Controller),
        ] {
            let (abort, after) = cut(from, factor);
            assert_eq!((abort.side, abort.status), (side, WATCHDOG_EXPIRED));
            assert_eq!(after, CYCLE * u32::from(factor));
        }
    }
}

#[test]
fn two_lost_frames_in_a_row_are_survived_and_three_are_not() {
    for (lost, aborts) in [(2, 0), (3, 1)] {
        let mut world = World::established(|_, _| {});
        world.run(Duration::from_secs(1));
        let mut left = lost;
        world.passes = Box::new(move |_, who, frame| {
            let cut = left > 0 && who == Who::Device && is_cyclic(frame);
            left -= i32::from(cut);
            !cut
        });
        world.run(Duration::from_millis(500));
        assert_eq!(world.controllers[0].stats().aborts, aborts, "{lost} lost");
    }
}

#[test]
fn an_abort_is_followed_by_a_new_ar() {
    let mut world = World::established(|_, _| {});
    let from = world.elapsed();
    let until = from + Duration::from_millis(300);
    world.passes = Box::new(move |at, _, _| at < from || at > until);
    world.run(Duration::from_secs(10));
    let now = world.now;
    for stats in [world.controllers[0].stats(), world.device.stats()] {
        assert_eq!(
            (stats.aborts, stats.established, stats.reconnects),
            (1, 2, 1)
        );
        assert_eq!(stats.reconnect.count(), 1);
        assert!(stats.reconnect.max() > Duration::from_secs(1));
        assert!(stats.reconnect.max() < Duration::from_secs(2));
        assert!(stats.up(now) < world.now - world.start - Duration::from_secs(1));
    }
}

#[test]
fn a_repeated_frame_and_an_old_one_do_not_feed_the_watchdog() {
    let mut world = World::established(|_, _| {});
    world.record = true;
    world.run(Duration::from_secs(1));
    let from_device: Vec<Vec<u8>> = world
        .sent
        .iter()
        .map(|(_, frame)| frame.clone())
        .filter(|frame| is_cyclic(frame) && frame[6..12] == DEVICE.0)
        .collect();
    // No more real ones: the last frame, the one before, and one of 160 ms ago, which by its
    // counter is new again.
    let since = world.elapsed();
    world.passes =
        Box::new(move |at, who, frame| at < since || who != Who::Device || !is_cyclic(frame));
    let [.., old, last] = from_device.as_slice() else {
        panic!("{} frames", from_device.len());
    };
    world.run(Duration::from_millis(40));
    world.inject(Who::Device, last);
    world.inject(Who::Device, old);
    world.run(Duration::from_millis(10));
    let consumed = &world.controllers[0].stats().consumed;
    assert_eq!((consumed.duplicate, consumed.old), (1, 1));
    world.run(Duration::from_millis(100));
    assert_eq!(world.controllers[0].stats().aborts, 1);
}

#[test]
fn the_window_of_the_cycle_counter_ends_where_the_standard_says() {
    // Counters behind the last by up to 4095 ticks are old; by 4096 they are new again.
    for (behind, accepted) in [(1, false), (4095, false), (4096, true), (40_000, true)] {
        let mut world = World::established(|_, _| {});
        world.record = true;
        world.run(Duration::from_secs(1));
        let last = world
            .sent
            .iter()
            .rev()
            .map(|(_, frame)| frame.clone())
            .find(|frame| is_cyclic(frame) && frame[6..12] == DEVICE.0)
            .expect("a cyclic frame");
        let mut forged = last.clone();
        let at = forged.len() - 4;
        let counter = u16::from_be_bytes([forged[at], forged[at + 1]]).wrapping_sub(behind);
        forged[at..at + 2].copy_from_slice(&counter.to_be_bytes());
        world.run(Duration::from_millis(2));
        let before = world.controllers[0].stats().consumed.accepted;
        world.inject(Who::Device, &forged);
        world.run(Duration::from_millis(2));
        let after = world.controllers[0].stats().consumed.accepted;
        assert_eq!(after - before, u64::from(accepted), "{behind} behind");
    }
}

#[test]
fn a_counter_that_stands_still_and_a_wrong_length_starve_the_watchdog() {
    for defect in [Defect::WrongCycleCounter, Defect::WrongDataLength] {
        let mut world = World::new(|controller, _| controller.defect = Some(defect));
        world.run(Duration::from_secs(30));
        assert!(world.device.stats().aborts > 0, "{defect:?}");
        let consumed = &world.device.stats().consumed;
        match defect {
            Defect::WrongCycleCounter => assert!(consumed.duplicate > 0),
            _ => assert!(consumed.invalid > 0 && consumed.accepted == 0),
        }
    }
}

#[test]
fn data_of_a_provider_in_stop_is_not_used_and_feeds_the_watchdog() {
    let mut world = World::established(|_, _| {});
    world.controller().set_running(false);
    let aged = world.device.stats().consumed.age.count();
    world.run(Duration::from_secs(1));
    let stats = world.device.stats();
    assert_eq!(stats.aborts, 0);
    assert!(stats.consumed.bad >= 30);
    assert!(stats.consumed.age.count() <= aged + 1);
}

#[test]
fn data_that_is_repeated_under_fresh_counters_keeps_the_ar_and_its_age_grows() {
    let mut world = World::established(|_, _| {});
    world.record = true;
    world.run(Duration::from_secs(1));
    let mut held = world
        .sent
        .iter()
        .rev()
        .map(|(_, frame)| frame.clone())
        .find(|frame| is_cyclic(frame) && frame[6..12] == DEVICE.0)
        .expect("a cyclic frame");
    world.passes = Box::new(|_, who, frame| who != Who::Device || !is_cyclic(frame));
    let at = held.len() - 4;
    for _ in 0..10 {
        let counter = u16::from_be_bytes([held[at], held[at + 1]]).wrapping_add(1024);
        held[at..at + 2].copy_from_slice(&counter.to_be_bytes());
        world.inject(Who::Device, &held);
        world.run(CYCLE);
    }
    let stats = world.controllers[0].stats();
    assert_eq!(stats.aborts, 0);
    assert!(stats.consumed.repeated >= 9);
    assert!(stats.consumed.age.max() > CYCLE * 9);
    // The watchdog is the last of it: the data is old by then.
    world.run(CYCLE * 4);
    let fail_safe = world.controllers[0]
        .stats()
        .last_fail_safe
        .expect("a watchdog");
    assert_eq!(fail_safe.since_accepted, CYCLE * 3);
    assert!(fail_safe.age > CYCLE * 12);
}

#[test]
fn frames_of_another_source_are_not_consumed() {
    let mut world = World::established(|_, _| {});
    world.record = true;
    world.run(Duration::from_millis(100));
    let (_, mut forged) = world
        .sent
        .iter()
        .find(|(_, frame)| is_cyclic(frame) && frame[6..12] == controller_mac(0).0)
        .cloned()
        .expect("a cyclic frame");
    forged[11] ^= 0x40;
    let before = world.device.asked().unknown_cyclic;
    world.inject(Who::Controller(0), &forged);
    world.run(Duration::from_millis(2));
    assert_eq!(world.device.asked().unknown_cyclic, before + 1);
}
