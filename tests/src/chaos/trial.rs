//! One fault under load.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::field::Field;
use super::ledger::Account;
use super::load::Load;
use crate::{SOON, Transport, within};

/// Before a fault, and after the first good answer that follows it.
const CALM: Duration = Duration::from_secs(2);
/// The edge looks for QUIC after 5 s, 10 s, and so on.
const RETURN: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub account: Account,
    /// Before, while it lasted, and at the end; empty: none.
    pub transports: [String; 3],
    /// On `auto`: from the end of the fault until the tunnel was QUIC again.
    pub returned: Option<Duration>,
}

/// Panics where an agent does not end in good order, or a log does not account for each write.
pub fn run(fault: &Fault, transport: Transport, seed: u64) -> Outcome {
    let mut field = Field::start(&fault.setup(transport, seed));
    field.wait_up();
    let before = field.transports().join(" ");
    let load = Load::start(field.clients(), &field.plan());
    sleep(CALM);
    if !fault.at_the_start && !fault.wire.is_empty() {
        field.change_wire(&fault.wire);
    }
    for deed in &fault.deeds {
        (deed.begin)(&mut field);
    }
    sleep(fault.lasting);
    let during = field.transports().join(" ");
    for deed in &fault.deeds {
        (deed.end)(&mut field);
    }
    if !fault.wire.is_empty() {
        field.change_wire("");
    }
    let ended = Instant::now();
    within(2 * SOON, "the tunnels and a good answer to be back", || {
        field.revive();
        field.transports().len() == field.headends.len() && load.is_served_since(ended)
    });
    let mut returned = None;
    if field.is_auto() {
        within(RETURN, "QUIC again", || {
            field.transports().iter().all(|it| it == "quic")
        });
        returned = Some(ended.elapsed());
    }
    sleep(CALM);
    let after = field.transports().join(" ");
    let notes = load.stop();
    field.settle();
    Outcome {
        account: Account::of(&notes, &field.plc.made(), ended),
        transports: [before, during, after],
        returned,
    }
}
