//! Octets that nobody should send.

use std::time::Duration;

use proptest::prelude::*;

use crate::world::{DEVICE, Who, World, controller_mac};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A frame from the wire that is altered somewhere changes much, and breaks nothing.
    #[test]
    fn altered_frames_do_not_stop_the_simulators(
        at in 0_usize..400,
        to in any::<u8>(),
        nth in 0_usize..60,
    ) {
        let mut world = World::new(|_, _| {});
        world.record = true;
        world.run(Duration::from_millis(400));
        let (_, mut frame) = world.sent[nth % world.sent.len()].clone();
        let at = at % frame.len();
        frame[at] = to;
        for who in [Who::Device, Who::Controller(0), Who::Controller(9)] {
            world.inject(who, &frame);
            world.inject(who, &frame[..at]);
        }
        world.run(Duration::from_secs(20));
        prop_assert_eq!(world.device.established(), 1);
    }

    #[test]
    fn random_octets_do_not_stop_the_simulators(
        body in proptest::collection::vec(any::<u8>(), 0..120),
        ethertype in prop_oneof![Just([0x88, 0x92]), Just([0x08, 0x00]), Just([0x08, 0x06])],
        id in prop_oneof![Just([0xfe, 0xfd]), Just([0xfe, 0xfe]), Just([0xfe, 0x01]), any::<[u8; 2]>()],
    ) {
        let mut world = World::established(|_, _| {});
        for dst in [DEVICE, controller_mac(0)] {
            let frame = [&dst.0[..], &[2, 0, 0, 0, 0, 0x99], &ethertype, &id, &body].concat();
            world.inject(Who::Controller(9), &frame);
        }
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.device.established(), 1);
    }
}
