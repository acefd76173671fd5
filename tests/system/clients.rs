//! What real Modbus clients do by themselves, and what must hold then: answers in the order asked,
//! no request twice, no connection closed under one.

mod closing;
mod order;
mod repeats;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = order::trials();
    trials.extend(closing::trials());
    trials.extend(repeats::trials());
    trials
}
