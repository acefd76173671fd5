//! What breaks, and what must hold then: an answer in time, a write at most once, the truth
//! in the log, and service again as soon as there is a way.

mod agents;
mod audit;
mod chaos;
mod device;
mod link;
mod load;
mod reload;
mod settings;

use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome};
use fieldlock_testkit::modbus::{Client, write_register};
use fieldlock_tests::answers::{NO_ANSWER, exception};
use fieldlock_tests::{Agent, Pair};
use libtest_mimic::Trial;

/// `answer_within` is 1 s unless a test says otherwise; what a busy test machine may add.
const ANSWER_AT_MOST: Duration = Duration::from_millis(2500);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = device::trials();
    trials.extend(agents::trials());
    trials.extend(link::trials());
    trials.extend(load::trials());
    trials.extend(reload::trials());
    trials.extend(settings::trials());
    trials.extend(audit::trials());
    trials.extend(chaos::trials());
    trials
}

/// Sends a write of `value` to scratch register 42 and does not wait for its answer.
fn begin_write(client: &mut Client, value: u16) {
    client.send_request(1, &write_register(42, value)).unwrap();
}

/// The answer to what was sent last must be 0x0B, and come in time.
#[track_caller]
fn no_answer_in_time(client: &mut Client, since: Instant) {
    let answer = client.read_adu(ANSWER_AT_MOST + Duration::from_secs(5));
    let after = since.elapsed();
    let answer = answer.unwrap();
    assert_eq!(exception(&answer[7..]), Some(NO_ANSWER), "{answer:02x?}");
    assert!(after < ANSWER_AT_MOST, "answered after {after:?}");
}

/// The agent's log has this end for its only write.
#[track_caller]
fn wrote(agent: &Agent, outcome: Outcome) {
    let record = agent.wait_record("the outcome", |r| r.kind == Kind::WriteOutcome);
    assert_eq!(record.outcome, Some(outcome), "{}", agent.name());
    let intents = agent.audit_kind(Kind::WriteIntent);
    assert_eq!(intents.len(), 1, "{}", agent.name());
    assert_eq!(record.intent, Some(intents[0].seq));
    assert_eq!(agent.audit_kind(Kind::WriteOutcome).len(), 1);
}

/// Writes that the pair's PLC carried out on register 42.
fn carried_out(pair: &Pair) -> usize {
    let writes = pair.plc().writes();
    writes.iter().filter(|write| write.first == 42).count()
}
