//! How ARs end, and that they come back: other rules, agents that are killed, a cable that is
//! pulled.

use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_profinet::ar::Ended;
use fieldlock_sim::profinet::{Controller, Device, Side};
use fieldlock_tests::live::Live;
use fieldlock_tests::plant::{self, live_controller, live_device, wait_established};
use fieldlock_tests::rig::{DEVICE_WIRE, Rig, STATION};
use fieldlock_tests::{Agent, OPEN_POLICY, Pair, SOON, Transport, eventually, trial, within};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let one = |name: &str, run: fn(&Rig)| trial::on_rig(name, run);
    let killed = |name: &str, agent: fn(&mut Pair) -> &mut Agent| {
        [Transport::Quic, Transport::Tls].map(|transport| {
            trial::on_rig(&format!("{name}::{transport}"), move |rig| {
                agent_is_killed(rig, transport, agent);
            })
        })
    };
    let mut trials = vec![
        one("profinet::other_rules_at_the_edge_end_an_ar", |rig| {
            other_rules(rig, |pair| &pair.edge);
        }),
        one("profinet::other_rules_at_the_headend_end_an_ar", |rig| {
            other_rules(rig, |pair| &pair.headend);
        }),
        one(
            "profinet::a_pulled_cable_is_an_alarm_until_it_is_plugged_in",
            cable,
        ),
        one(
            "profinet::an_interface_that_is_down_is_an_alarm_until_it_is_up",
            interface,
        ),
    ];
    trials.extend(killed(
        "profinet::stations_outlive_a_killed_headend",
        |pair| &mut pair.headend,
    ));
    trials.extend(killed("profinet::stations_outlive_a_killed_edge", |pair| {
        &mut pair.edge
    }));
    trials
}

/// RTA abort: the consumer's watchdog has expired.
const WATCHDOG: u32 = 0xcf81_fd05;

fn other_rules(rig: &Rig, agent: fn(&Pair) -> &Agent) {
    let (pair, device, controller) = running(rig, Transport::Quic);
    let agent = agent(&pair);
    agent.write_policy(OPEN_POLICY);
    let reload = agent.wait_record("the policy", |record| record.kind == Kind::Reload);
    let down = agent.wait_record("the end", |record| record.kind == Kind::ArDown);
    // The end may be on record before what caused it.
    let took = down.time.unwrap().duration_since(reload.time.unwrap());
    let took = took.unwrap_or_default();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let why = Ended::Withdrawn("the policy").to_string();
    assert_eq!(down.reason.as_deref(), Some(&*why));
    wait_watchdogs(&device, &controller);
    // Nothing more comes of it.
    let consumed = || controller.with(|controller, _| controller.stats().consumed.accepted);
    let before = consumed();
    eventually("the controller to try in vain", || {
        let tried = plant::dropped(&pair.headend, "denied") + plant::dropped(&pair.edge, "denied");
        tried > 0
    });
    assert_eq!(consumed(), before);
}

fn agent_is_killed(rig: &Rig, transport: Transport, agent: fn(&mut Pair) -> &mut Agent) {
    let (mut pair, device, controller) = running(rig, transport);
    agent(&mut pair).kill();
    wait_watchdogs(&device, &controller);
    rig.among_agents(|| {
        agent(&mut pair).start();
        agent(&mut pair).wait_ready();
    });
    within(3 * SOON, "the AR to come back by itself", || {
        controller.with(|controller, _| controller.stats().established) == 2
    });
    wait_established(&pair, &controller);
}

fn cable(rig: &Rig) {
    unplugged(rig, |how| {
        rig.ip(&rig.device, &format!("link set {STATION} {how}"))
    });
}

fn interface(rig: &Rig) {
    unplugged(rig, |how| {
        rig.ip(&rig.agents, &format!("link set {DEVICE_WIRE} {how}"))
    });
}

fn unplugged(rig: &Rig, cable: impl Fn(&str)) {
    let alarm = format!("profinet-interface-down {DEVICE_WIRE}");
    let (pair, device, controller) = running(rig, Transport::Quic);
    cable("down");
    eventually("the alarm", || pair.edge.alarms().contains(&alarm));
    wait_watchdogs(&device, &controller);
    assert!(pair.headend.alarms().is_empty());
    cable("up");
    eventually("the end of the alarm", || pair.edge.alarms().is_empty());
    wait_established(&pair, &controller);
    let alarms = |kind: Kind| pair.edge.audit_kind(kind).len();
    eventually("both on record", || {
        (alarms(Kind::AlarmStart), alarms(Kind::AlarmEnd)) == (1, 1)
    });
}

/// Agents, and stations that exchange data.
fn running(rig: &Rig, transport: Transport) -> (Pair, Live<Device>, Live<Controller>) {
    let pair = rig.among_agents(|| plant::setup(rig, transport).up());
    let device = live_device(rig);
    let controller = live_controller(rig, |_| {});
    wait_established(&pair, &controller);
    // From its first frame on a consumer's watchdog runs.
    eventually("data both ways", || {
        device.with(|device, _| device.stats().consumed.accepted) > 0
            && controller.with(|controller, _| controller.stats().consumed.accepted) > 0
    });
    (pair, device, controller)
}

/// Waits until each station has noticed by its own watchdog that the other is gone.
#[track_caller]
fn wait_watchdogs(device: &Live<Device>, controller: &Live<Controller>) {
    eventually("both stations to end the AR", || {
        device.with(|device, _| device.stats().aborts) > 0
            && controller.with(|controller, _| controller.stats().aborts) > 0
    });
    let first = device.with(|device, _| device.stats().abort_log[0]);
    assert_eq!((first.side, first.status), (Side::Device, WATCHDOG));
    let first = controller.with(|controller, _| controller.stats().abort_log[0]);
    assert_eq!((first.side, first.status), (Side::Controller, WATCHDOG));
}
