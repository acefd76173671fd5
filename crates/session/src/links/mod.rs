//! The tunnels of an edge to two headends in virtual time: dialling, hellos, liveness and takeover, and
//! all that can go wrong between them, drawn from one seed, against a reference that knows better.
//!
//! ```text
//! FIELDLOCK_SEED=7 cargo test -p fieldlock-session --lib links:: -- --nocapture     one, with its trace
//! FIELDLOCK_SEEDS=0..100000 cargo test -p fieldlock-session --lib links::           a campaign
//! ```
//!
//! - [`world`] has the clock and the events, [`faults`] what goes wrong.
//! - [`edge`] and [`head`] are thin shells around the cores: what `agent` does around them with sockets.
//! - [`gate`] is where a headend lets handshakes in, with others who want in too.
//! - [`net`] is the network: connections, and the ways that they take.
//! - [`reference`] sees both ends and the network, and says what must hold.

mod edge;
mod faults;
mod gate;
mod head;
mod net;
mod reference;
mod world;

use std::ops::Range;

use fieldlock_testkit::seeds;

use self::world::World;

/// As many as a test may cost; a campaign takes more.
const SEEDS: Range<u64> = 0..5000;

#[test]
fn no_order_of_events_leaves_an_edge_without_its_tunnels_or_with_two() {
    let test = "-p fieldlock-session --lib links::";
    seeds::sweep(test, SEEDS, |seed, traced| {
        World::new(seed, traced).run();
    });
}

/// Two runs of a seed do the same, or no seed could be replayed.
#[test]
fn a_seed_repeats() {
    for seed in 0..20 {
        assert_eq!(
            World::new(seed, false).run(),
            World::new(seed, false).run(),
            "seed {seed}"
        );
    }
}
