//! Relations and records that an agent refuses, and who is told.

use std::iter;

use fieldlock_audit::Kind;
use fieldlock_profinet::Mac;
use fieldlock_profinet::ar::Unfit;
use fieldlock_sim::profinet::{Controller, Defect, Event, Record};
use fieldlock_tests::live::Live;
use fieldlock_tests::plant::{
    self, CONTROLLER, STATION, dropped, live_controller, live_device, wait_established,
};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::{OPEN_POLICY, Transport, eventually, trial};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial::on_rig(
            "profinet::isochronous_real_time_is_refused_with_the_reason",
            |rig| {
                unfit(rig, Defect::IrtConnect, Unfit::Irt { reference: 1 });
            },
        ),
        trial::on_rig(
            "profinet::real_time_over_udp_is_refused_with_the_reason",
            |rig| {
                unfit(rig, Defect::RtOverUdp, Unfit::RtOverUdp { reference: 1 });
            },
        ),
        trial::on_rig(
            "profinet::a_connect_that_claims_gigabytes_goes_no_further",
            gigabytes,
        ),
        trial::on_rig(
            "profinet::a_denied_record_is_refused_and_the_ar_lives",
            denied_record,
        ),
        trial::on_rig(
            "profinet::the_edge_refuses_what_its_headend_allows",
            edge_refuses,
        ),
        trial::on_rig(
            "profinet::two_controllers_share_a_device_and_a_third_gets_nothing",
            two_controllers,
        ),
    ]
}

/// PNIORW, IODWriteRes: access denied.
const WRITE_DENIED: u32 = 0xdf80_b600;

fn unfit(rig: &Rig, defect: Defect, why: Unfit) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let device = live_device(rig);
    let controller = live_controller(rig, |config| config.defect = Some(defect));
    let refused = pair.headend.wait_record("the refusal", |record| {
        record.kind == Kind::Denied && record.service.as_deref() == Some("connect")
    });
    assert_eq!(refused.reason.as_deref(), Some(&*why.to_string()));
    assert_eq!(refused.station.as_deref(), Some(STATION));
    assert_eq!(refused.client.unwrap().name.as_deref(), Some(CONTROLLER));
    // The controller is told at once, and in the words of its own protocol.
    let status = u32::from_be_bytes(why.status().octets());
    wait_event(&controller, "the refusal", |event| {
        *event == Event::Refused { status }
    });
    assert_eq!(device.with(|device, _| device.asked().connect), 0);
}

fn gigabytes(rig: &Rig) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let device = live_device(rig);
    let _controller = live_controller(rig, |config| config.defect = Some(Defect::BigNdrCount));
    eventually("the Connect to be dropped", || {
        dropped(&pair.headend, "malformed") > 0
    });
    assert_eq!(device.with(|device, _| device.asked().connect), 0);
}

fn denied_record(rig: &Rig) {
    let policy = format!(
        "{}[[deny]]\nname = \"limits stay\"\nstation = \"any\"\nservice = [\"write\"]\nrecord = [\"0x1234\"]\n",
        plant::io_policy(rig.mac_of(&rig.controller))
    );
    let setup = plant::setup_with(rig, Transport::Quic, "", &policy);
    let pair = rig.among_agents(|| setup.up());
    let device = live_device(rig);
    let controller = live_controller(rig, |_| {});
    wait_established(&pair, &controller);
    let write = |index| {
        let record = Record {
            slot: 2,
            subslot: 1,
            index,
            data: vec![1, 2, 3, 4],
        };
        let queued = controller.with(|controller, now| controller.write(now, record));
        assert!(queued);
    };
    write(0x1234);
    wait_event(&controller, "the refusal", |event| {
        let denied = Event::Refused {
            status: WRITE_DENIED,
        };
        *event == denied
    });
    let denied = pair.headend.wait_record("the refusal", |record| {
        record.kind == Kind::Denied && record.service.as_deref() == Some("write")
    });
    assert_eq!(denied.rule.as_deref(), Some("limits stay"));
    assert_eq!(denied.record, Some(0x1234));
    write(0x1235);
    eventually("the other record to be written", || {
        device.with(|device, _| device.record(2, 1, 0x1235).is_some())
    });
    for agent in [&pair.headend, &pair.edge] {
        let set = agent.wait_record("the write", |record| record.kind == Kind::StationSet);
        assert_eq!(set.record, Some(0x1235));
    }
    assert!(device.with(|device, _| device.record(2, 1, 0x1234).is_none()));
    assert_lives(&controller);
}

fn edge_refuses(rig: &Rig) {
    let setup = plant::setup(rig, Transport::Quic).edge_policy(OPEN_POLICY);
    let pair = rig.among_agents(|| setup.up());
    let device = live_device(rig);
    let _controller = live_controller(rig, |_| {});
    eventually("the edge to drop what its headend let through", || {
        dropped(&pair.edge, "denied") > 0
    });
    assert_eq!(dropped(&pair.headend, "denied"), 0);
    let asked = device.with(|device, _| device.asked());
    assert_eq!((asked.identify, asked.connect), (0, 0));
}

fn two_controllers(rig: &Rig) {
    const SECOND: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const THIRD: Mac = Mac([2, 0, 0, 0, 0, 3]);
    let policy = plant::io_policy(rig.mac_of(&rig.controller))
        + &format!("[[client]]\nname = \"plc-2\"\nmac = [\"{SECOND}\"]\n")
        + &plant::IO_RULE
            .replace(CONTROLLER, "plc-2")
            .replace("line 1", "line 2");
    let more = format!("[[controller]]\nname = \"plc-2\"\nmac = \"{SECOND}\"\n");
    let setup = plant::setup_with_more(rig, Transport::Quic, ["", &more], &policy);
    let pair = rig.among_agents(|| setup.up());
    let device = live_device(rig);
    let first = live_controller(rig, |_| {});
    let another = |number: u8, mac: Mac| {
        live_controller(rig, |config| {
            config.mac = mac;
            config.name = format!("plc-{number}");
            config.ip.address = [192, 168, 0, number].into();
            config.seed = number.into();
        })
    };
    let third = another(3, THIRD);
    let second = another(2, SECOND);
    for controller in [&first, &second] {
        wait_established(&pair, controller);
    }
    assert_eq!(device.with(|device, _| device.established()), 2);
    eventually("the third to be turned away", || {
        dropped(&pair.headend, "not-paired") > 0
    });
    // What one does is nothing to the other.
    second.with(|controller, now| controller.stop(now));
    eventually("the second to be released", || {
        second.with(|controller, _| controller.is_stopped())
    });
    eventually("the device to be left with the first", || {
        device.with(|device, _| device.established()) == 1
    });
    assert_lives(&first);
    assert!(!third.with(|controller, _| controller.is_established()));
}

/// Waits until more data has come, and that without a new start.
#[track_caller]
pub(super) fn assert_lives(controller: &Live<Controller>) {
    let look = || {
        controller.with(|controller, _| {
            let stats = controller.stats();
            (stats.consumed.accepted, (stats.established, stats.aborts))
        })
    };
    let (before, _) = look();
    eventually("more data", || look().0 > before + 6);
    assert_eq!(look().1, (1, 0), "established once, never aborted");
}

#[track_caller]
fn wait_event(controller: &Live<Controller>, what: &str, matches: impl Fn(&Event) -> bool) {
    eventually(what, || {
        controller.with(|controller, _| {
            let mut events = iter::from_fn(|| controller.poll_event());
            events.any(|event| matches(&event))
        })
    });
}
