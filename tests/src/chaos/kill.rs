//! One agent after the other, killed while writes go on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use fieldlock_testkit::link::derive;

use super::field::{Field, Setup};
use super::ledger::Account;
use super::load::Load;
use crate::Transport;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub account: Account,
    pub kills: [u32; 2],
}

/// Kills headend or edge, by the seed, and starts it again, after 0.3 to 2.3 s each.
pub fn run(transport: Transport, lasting: Duration, seed: u64) -> Outcome {
    let mut field = Field::start(&Setup {
        seed,
        ..Setup::new(transport)
    });
    field.wait_up();
    let load = Load::start(field.clients(), &field.plan());
    let until = Instant::now() + lasting;
    let mut kills = [0; 2];
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let random = derive(seed, number);
        sleep(Duration::from_millis(300 + random % 2_000));
        match random >> 63 {
            0 => field.headends[0].kill(),
            _ => field.edge.kill(),
        }
        kills[(random >> 63) as usize] += 1;
        field.revive();
    }
    let ended = Instant::now();
    field.wait_up();
    sleep(Duration::from_secs(2));
    let notes = load.stop();
    field.settle();
    Outcome {
        account: Account::of(&notes, &field.plc.made(), ended),
        kills,
    }
}
