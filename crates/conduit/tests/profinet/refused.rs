//! What must not cross.

use std::time::Duration;

use fieldlock_conduit::profinet::{DropReason, Event};
use fieldlock_profinet::{Frame, Mac, Service, Tag, eth};
use fieldlock_sim::profinet::Defect;

use crate::plant::{DRIVE, End, IO, PLC, Plant, STRANGER, station};

const SECOND: Duration = Duration::from_secs(1);

fn frame(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let tag = None;
    Frame {
        dst,
        src,
        tag,
        ethertype,
        payload,
    }
    .encode(&mut out);
    out
}

fn refusals(end: &End) -> Vec<(Service, String)> {
    let told = end.events.iter().filter_map(|event| match event {
        Event::Refused {
            service, reason, ..
        } => Some((*service, reason.to_string())),
        _ => None,
    });
    told.collect()
}

fn count(end: &End, drop: DropReason) -> u64 {
    end.bridge.drops().get(drop)
}

#[test]
fn without_a_rule_nothing_crosses() {
    let mut plant = Plant::new("syntax = 1\n");
    plant.run(30 * SECOND);
    assert!(plant.on_devices_wire.is_empty());
    assert!(plant.on_controllers_wire.is_empty());
    assert_eq!(plant.device.asked().identify, 0);
    let (service, reason) = &refusals(&plant.headend)[0];
    assert_eq!(*service, Service::Identify);
    assert!(reason.contains("no rule"), "{reason}");
}

#[test]
fn the_edge_decides_for_itself() {
    let mut plant = Plant::with(IO, "syntax = 1\n", station(), |_| {}, |_| {});
    plant.run(30 * SECOND);
    assert!(plant.on_devices_wire.is_empty());
}

#[test]
fn isochronous_and_routed_real_time_are_refused_with_a_reason() {
    for (defect, word) in [
        (Defect::IrtConnect, "RT_CLASS_3"),
        (Defect::RtOverUdp, "RT_CLASS_UDP"),
    ] {
        let mut plant = Plant::with(IO, IO, station(), |c| c.defect = Some(defect), |_| {});
        plant.run(5 * SECOND);
        assert_eq!(plant.device.asked().connect, 0, "{defect:?}");
        let told = refusals(&plant.headend);
        assert!(
            told.iter().any(|(_, reason)| reason.contains(word)),
            "{told:?}"
        );
        // The controller is told at once, and doesn't have to wait for its time-out.
        assert!(plant.headend.bridge.table().is_empty());
        let answered = plant.on_controllers_wire.iter().any(|frame| {
            frame.windows(4).any(|w| w[0] == 0xdb && w[1] == 0x81) && frame[6..12] == DRIVE.0
        });
        assert!(answered, "{defect:?}");
    }
}

#[test]
fn a_connect_that_lies_about_its_length_is_not_passed_on() {
    let mut plant = Plant::with(
        IO,
        IO,
        station(),
        |c| c.defect = Some(Defect::BigNdrCount),
        |_| {},
    );
    plant.run(5 * SECOND);
    assert_eq!(plant.device.asked().connect, 0);
    assert!(count(&plant.headend, DropReason::Malformed) > 0);
}

#[test]
fn cyclic_data_of_the_wrong_length_or_a_counter_that_stands_still_feeds_nobody() {
    let stands = Some(Defect::WrongCycleCounter);
    let mut plant = Plant::with(IO, IO, station(), |c| c.defect = stands, |_| {});
    plant.run(5 * SECOND);
    assert!(count(&plant.headend, DropReason::Old) > 0);
}

#[test]
fn a_set_is_refused_unless_a_rule_names_it() {
    let set_name = |xid: u8| {
        let mut payload = vec![
            0xfe, 0xfd, 4, 0, 0, 0, 0, xid, 0, 0, 0, 12, 2, 2, 0, 8, 0, 1,
        ];
        payload.extend_from_slice(b"pump-9");
        frame(DRIVE, PLC, eth::PROFINET, &payload)
    };
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    plant.say_to_headend(&set_name(1));
    plant.run(SECOND);
    assert_eq!(plant.device.asked().set_name, 0);
    assert!(
        refusals(&plant.headend)
            .iter()
            .any(|(service, _)| *service == Service::SetName)
    );
    // A headend that was taken over gets no further.
    plant.headend_claims(&set_name(2));
    plant.run(SECOND);
    assert_eq!(plant.device.asked().set_name, 0);
    assert!(
        refusals(&plant.edge)
            .iter()
            .any(|(service, _)| *service == Service::SetName)
    );

    let named = IO.replace("\"io\", ", "\"io\", \"set-name\", ");
    let mut plant = Plant::new(&named);
    plant.run(5 * SECOND);
    // No record, no change.
    plant.edge.may_change = false;
    plant.say_to_headend(&set_name(3));
    plant.run(SECOND);
    assert_eq!(plant.device.asked().set_name, 0);
    assert_eq!(count(&plant.edge, DropReason::NoAudit), 1);
    plant.edge.may_change = true;
    plant.say_to_headend(&set_name(4));
    plant.run(SECOND);
    assert_eq!(plant.device.asked().set_name, 1);
    for end in [&plant.headend, &plant.edge] {
        let told = end.events.iter().any(|event| {
            matches!(event, Event::Changes { service: Service::SetName, value: Some(name), .. }
                if name == "pump-9")
        });
        assert!(told);
    }
}

#[test]
fn strangers_and_what_is_local_to_a_wire_stay_there() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    plant.on_devices_wire.clear();
    let identify = frame(
        Mac::DCP_IDENTIFY,
        STRANGER,
        eth::PROFINET,
        &[0xfe, 0xfe, 5, 0, 0, 0, 0, 9, 0, 1, 0, 4, 0xff, 0xff, 0, 0],
    );
    let local = [
        (eth::LLDP, &[2, 7, 4][..]),
        (eth::MRP, &[0, 1]),
        (eth::PROFINET, &[0xff, 0x00, 1]),
        (eth::PROFINET, &[0x01, 0x00, 1]),
        (eth::PROFINET, &[0xfe, 0x02, 1]),
        (eth::PROFINET, &[0xff, 0x80, 1]),
        (eth::PROFINET, &[0xf8, 0x00, 1]),
        (eth::PROFINET, &[0xfc, 0x00, 1]),
        (0x86dd, &[0x60; 40]),
        (eth::IPV4, &[0x45; 40]),
    ];
    plant.say_to_headend(&identify);
    for source in [STRANGER, PLC] {
        for (ethertype, payload) in local {
            plant.say_to_headend(&frame(DRIVE, source, ethertype, payload));
        }
    }
    // Forged data: the right FrameID and pair of another station, and the other way round.
    let id = plant.edge.bridge.table().iter().next().unwrap().crs[1]
        .frame_id
        .unwrap();
    let mut forged = id.0.to_be_bytes().to_vec();
    forged.resize(60, 0x80);
    plant.say_to_headend(&frame(DRIVE, STRANGER, eth::PROFINET, &forged));
    plant.say_to_headend(&frame(PLC, DRIVE, eth::PROFINET, &forged));
    // A VLAN that is none of ours.
    let mut tagged = Vec::new();
    let tag = Some(Tag(0xc005));
    let payload = &forged[..];
    Frame {
        dst: DRIVE,
        src: PLC,
        tag,
        ethertype: eth::PROFINET,
        payload,
    }
    .encode(&mut tagged);
    plant.say_to_headend(&tagged);
    plant.run(Duration::from_millis(10));
    let leaked: Vec<_> = plant
        .on_devices_wire
        .iter()
        .filter(|frame| frame[12..18] != [0x81, 0x00, 0xc0, 0x00, 0x88, 0x92])
        .collect();
    assert_eq!(leaked, Vec::<&Vec<u8>>::new());
    assert!(count(&plant.headend, DropReason::LinkLocal) >= 3);
    assert!(count(&plant.headend, DropReason::Vlan) == 1);
    assert!(count(&plant.headend, DropReason::ForeignSource) >= 1);
    assert!(
        plant
            .headend
            .events
            .iter()
            .any(|event| { matches!(event, Event::Conflict { mac, .. } if *mac == DRIVE) })
    );
    plant.run(5 * SECOND);
    assert_eq!(plant.controller.stats().aborts, 0);
}

#[test]
fn an_abort_in_somebody_else_s_name_ends_nothing() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    let abort = [
        0xfe, 0x01, 0, 0, 0, 0, 0x14, 1, 0xff, 0xff, 0xff, 0xff, 0, 4, 0xcf, 0x81, 0xfd, 5,
    ];
    plant.say_to_headend(&frame(DRIVE, STRANGER, eth::PROFINET, &abort));
    plant.say_to_edge(&frame(PLC, STRANGER, eth::PROFINET, &abort));
    // References that are not those of the AR, from the right address.
    let mut wrong = abort;
    wrong[2] = 0x55;
    plant.say_to_headend(&frame(DRIVE, PLC, eth::PROFINET, &wrong));
    plant.run(5 * SECOND);
    let stats = plant.controller.stats();
    assert_eq!((stats.established, stats.aborts), (1, 0));
}
