//! The shortest way through everything: if this fails, look here first.

use fieldlock_audit::{Kind, Outcome};
use fieldlock_tests::answers::{read_registers, write_one};
use fieldlock_tests::{Pair, Transport, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    trial::both("smoke::a_read_and_a_write_go_through", goes_through).into()
}

fn goes_through(transport: Transport) {
    let pair = Pair::up(transport);
    assert_eq!(pair.transport(), Some(transport.to_string()));
    let mut client = pair.client();
    let direct = read_registers(&mut pair.direct(), 0, 4);
    assert_eq!(read_registers(&mut client, 0, 4).len(), direct.len());
    write_one(&mut client, 40, 7);
    assert_eq!(pair.plc().register(40), Some(7));
    for agent in [&pair.edge, &pair.headend] {
        let intent = agent.wait_record("the intent", |r| r.kind == Kind::WriteIntent);
        let outcome = agent.wait_record("the outcome", |r| r.kind == Kind::WriteOutcome);
        assert_eq!(outcome.intent, Some(intent.seq));
        assert_eq!(outcome.outcome, Some(Outcome::Answered));
    }
}
