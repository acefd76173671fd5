//! Stations and headends that claim what is not theirs.

use std::time::Duration;

use fieldlock_conduit::profinet::{DropReason, Event};
use fieldlock_profinet::{Frame, Mac, eth};

use crate::plant::{DRIVE, End, IO, PLC, Plant, STRANGER};

const SECOND: Duration = Duration::from_secs(1);

fn conflicts(end: &End) -> Vec<Mac> {
    let told = end.events.iter().filter_map(|event| match event {
        Event::Conflict { mac, .. } => Some(*mac),
        _ => None,
    });
    told.collect()
}

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

/// Asks for `target` in the name of `sender`.
fn arp(src: Mac, sender: u8, target: u8) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 1];
    payload.extend_from_slice(&src.0);
    payload.extend_from_slice(&[192, 168, 0, sender, 0, 0, 0, 0, 0, 0, 192, 168, 0, target]);
    frame(Mac([0xff; 6]), src, eth::ARP, &payload)
}

/// Asks for drive-1 by its name.
fn identify(src: Mac) -> Vec<u8> {
    let mut payload = vec![0xfe, 0xfe, 5, 0, 0, 0, 0, src.0[5], 0, 1, 0, 12, 2, 2, 0, 7];
    payload.extend_from_slice(b"drive-1\0");
    frame(Mac::DCP_IDENTIFY, src, eth::PROFINET, &payload)
}

#[test]
fn nobody_speaks_from_the_ip_address_of_another_station() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    plant.on_devices_wire.clear();
    plant.on_controllers_wire.clear();
    let is_arp = |frame: &&Vec<u8>| frame[12..14] == eth::ARP.to_be_bytes();
    // The device as the controller, and the other way round; each in its own name as well.
    plant.say_to_edge(&arp(DRIVE, 1, 1));
    plant.say_to_headend(&arp(PLC, 20, 20));
    plant.headend_claims(&arp(PLC, 20, 20));
    plant.say_to_edge(&arp(DRIVE, 20, 1));
    plant.say_to_headend(&arp(PLC, 1, 20));
    plant.run(SECOND / 10);
    // The last two, and the answers to them.
    assert_eq!(plant.on_controllers_wire.iter().filter(is_arp).count(), 2);
    assert_eq!(plant.on_devices_wire.iter().filter(is_arp).count(), 2);
    assert_eq!(conflicts(&plant.edge), [DRIVE, PLC]);
    assert_eq!(conflicts(&plant.headend), [PLC]);
}

#[test]
fn of_two_that_answer_to_a_name_the_first_one_keeps_it_while_it_speaks() {
    // It may be found, but no AR keeps its address.
    let found = IO.replace("\"io\", \"records\"", "\"identify\"");
    let mut plant = Plant::new(&found.replace("record = [\"any\"]\n", ""));
    plant.run(SECOND / 2);
    let mut said = plant.on_controllers_wire.iter();
    let is_answer = |frame: &&Vec<u8>| frame.windows(4).any(|w| w == [0x88, 0x92, 0xfe, 0xff]);
    let mut twin = said.find(is_answer).unwrap().clone();
    twin[6..12].copy_from_slice(&STRANGER.0);
    for _ in 0..50 {
        plant.say_to_edge(&twin);
    }
    assert_eq!(conflicts(&plant.edge).len(), 50);
    assert_eq!(plant.edge.bridge.parties().stations[0].mac, Some(DRIVE));
    let found = |event: &&Event| matches!(event, Event::Found { .. });
    assert_eq!(plant.edge.events.iter().filter(found).count(), 1);
}

#[test]
fn a_headend_can_t_fill_an_edge_with_controllers() {
    let any = "syntax = 1\n[[allow]]\nname = \"all\"\nvia = [\"hd-1\"]\nstation = [\"drive-1\"]\n\
               service = [\"identify\"]\n";
    let mut plant = Plant::with(IO, any, crate::plant::station(), |_| {}, |_| {});
    let claim = |plant: &mut Plant, from: u8| {
        for number in 0..100 {
            plant.headend_claims(&identify(Mac([2, 0, 0, 0, from, number])));
        }
    };
    claim(&mut plant, 1);
    let known = plant.edge.bridge.parties().controllers.len();
    assert_eq!(known, 32);
    assert_eq!(plant.edge.joined.len(), 1 + known);
    assert!(plant.edge.bridge.drops().get(DropReason::Overload) >= 68);
    // Who has been silent for long makes room.
    plant.run(61 * SECOND);
    claim(&mut plant, 2);
    let parties = plant.edge.bridge.parties();
    assert_eq!(parties.controllers.len(), 32);
    assert_eq!(plant.edge.joined.len(), 33);
    let new = Mac([2, 0, 0, 0, 2, 0]);
    assert!(parties.controller_of(new).is_some());
}
