//! Alarms: acknowledged, repeated, given up.

use std::time::Duration;

use fieldlock_sim::profinet::{Abort, Defect, Event, Side};

use crate::world::{Who, World, frame_id};

const PROCESS: u16 = 2;
const DIAGNOSIS: u16 = 1;
const LOW: u16 = 0xfe01;
const HIGH: u16 = 0xfc01;

#[test]
fn alarms_of_both_priorities_are_acknowledged_by_the_application() {
    let mut world = World::established(|_, _| {});
    let now = world.now;
    assert!(
        world
            .device
            .raise_alarm(now, true, PROCESS, 1, &[1, 2, 3, 4])
    );
    assert!(world.device.raise_alarm(now, false, DIAGNOSIS, 2, &[]));
    world.run(Duration::from_secs(1));
    let received = |high, kind, slot| Event::AlarmReceived {
        high,
        kind,
        slot,
        subslot: 1,
    };
    assert_eq!(
        world.events_of(Who::Controller(0)),
        [&received(true, PROCESS, 1), &received(false, DIAGNOSIS, 2)]
    );
    assert_eq!(
        world.events_of(Who::Device),
        [
            &Event::AlarmAcknowledged { high: true },
            &Event::AlarmAcknowledged { high: false }
        ]
    );
    assert_eq!(world.device.stats().retransmits, 0);
}

#[test]
fn many_alarms_go_one_after_another_and_too_many_are_refused() {
    let mut world = World::established(|_, _| {});
    let now = world.now;
    let taken = (0..20)
        .filter(|_| world.device.raise_alarm(now, false, DIAGNOSIS, 1, &[]))
        .count();
    assert_eq!(taken, 9);
    world.run(Duration::from_secs(1));
    assert_eq!(world.device.stats().alarms_acknowledged, 9);
    assert_eq!(world.controllers[0].stats().alarms_received, 9);
}

#[test]
fn a_lost_alarm_and_a_lost_acknowledgement_are_repaired_and_seen_once() {
    for lost_of in [Who::Device, Who::Controller(0)] {
        let mut world = World::established(|_, _| {});
        let mut left = 2;
        world.passes = Box::new(move |_, who, frame| {
            let cut = left > 0 && who == lost_of && frame_id(frame) == Some(LOW);
            left -= i32::from(cut);
            !cut
        });
        let now = world.now;
        assert!(world.device.raise_alarm(now, false, DIAGNOSIS, 1, &[]));
        world.run(Duration::from_secs(2));
        assert_eq!(world.controllers[0].stats().alarms_received, 1);
        assert_eq!(world.device.stats().alarms_acknowledged, 1);
        assert_eq!(world.device.stats().aborts, 0);
    }
}

#[test]
fn an_alarm_that_nobody_acknowledges_is_repeated_as_agreed_and_ends_the_ar() {
    let mut world = World::established(|controller, _| {
        controller.defect = Some(Defect::NeverAcknowledgesAlarms);
        controller.rta_timeout_factor = 2;
        controller.rta_retries = 4;
    });
    world.record = true;
    let now = world.now;
    assert!(world.device.raise_alarm(now, true, PROCESS, 1, &[]));
    let raised = world.elapsed();
    world.run(Duration::from_secs(2));
    let times: Vec<Duration> = world
        .sent
        .iter()
        .filter(|(_, frame)| frame_id(frame) == Some(HIGH))
        .map(|(at, _)| *at - raised)
        .collect();
    assert_eq!(times, [0, 200, 400, 600, 800].map(Duration::from_millis));
    let abort = Abort {
        at: now + Duration::from_secs(1),
        side: Side::Device,
        status: 0xcf81_fd08,
    };
    assert_eq!(world.device.stats().abort_log, [abort]);
    // The controller heard it.
    assert_eq!(
        world.controllers[0].stats().abort_log[0].status,
        abort.status
    );
}
