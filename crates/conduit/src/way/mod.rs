//! The whole way of a Modbus request in virtual time: clients, headend, tunnels, edge, PLC, and all
//! that can go wrong between them, drawn from one seed, against a ledger of what may be answered.
//!
//! ```text
//! FIELDLOCK_SEED=7 cargo test -p fieldlock-conduit --lib way:: -- --nocapture       one, with its trace
//! FIELDLOCK_SEEDS=0..100000 cargo test -p fieldlock-conduit --lib way::             a campaign
//! ```
//!
//! - [`world`] has the clock and the events, [`faults`] what goes wrong.
//! - [`clients`] ask; [`head`] and [`edge`] are thin shells around the cores: what `agent` does around
//!   them with sockets.
//! - [`tunnel`] is the network between them, [`plc`] the device.
//! - [`ledger`] is the reference: it knows what was asked, what the PLC got and did, and so which
//!   answers may be given.

mod clients;
mod edge;
mod faults;
mod head;
mod ledger;
mod plc;
mod tunnel;
mod world;

use std::ops::Range;

use fieldlock_testkit::seeds;

use self::world::World;

/// As many as a test may cost; a campaign takes more.
const SEEDS: Range<u64> = 0..8000;

#[test]
fn no_order_of_events_breaks_the_way_of_a_request() {
    let test = "-p fieldlock-conduit --lib way::";
    seeds::sweep(test, SEEDS, |seed, traced| {
        World::new(seed, traced).run();
    });
}

/// Two runs of a seed do the same, or no seed could be replayed; and reads are shared, or what the
/// ledger says of them would be said of none.
#[test]
fn a_seed_repeats_and_reads_are_shared() {
    let mut shared = 0;
    for seed in 0..20 {
        let first = World::new(seed, false).run();
        assert_eq!(first, World::new(seed, false).run(), "seed {seed}");
        shared += first.1;
    }
    assert!(shared > 20, "{shared}");
}
