//! What is confirmed: a few telling cells of the sweep.

use std::time::Duration;

use crate::plan::{DELAY, Network, Timing, Trouble};
use fieldlock_testkit::link::Cuts;

/// One network and one AR's timing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) network: Network,
    pub(super) timing: Timing,
}

const fn cell(
    name: &'static str,
    trouble: Trouble,
    jitter: u64,
    (cycle, factor): (u64, u32),
) -> Cell {
    Cell {
        name,
        network: Network {
            trouble,
            jitter: Duration::from_millis(jitter),
        },
        timing: Timing {
            cycle: Duration::from_millis(cycle),
            factor,
        },
    }
}

pub(super) const CELLS: [Cell; 6] = [
    cell("clean", Trouble::Loss(0.0), 0, (32, 3)),
    cell("loss-jitter", Trouble::Loss(0.05), 10, (32, 3)),
    cell("loss", Trouble::Loss(0.01), 5, (16, 3)),
    cell("bursts", Trouble::Bursts(2), 5, (32, 3)),
    cell("jitter", Trouble::Loss(0.0), 50, (32, 3)),
    cell("blackouts", Trouble::Blackouts(0.9), 5, (128, 3)),
];

impl Cell {
    pub(super) fn title(&self) -> String {
        let Timing { cycle, factor } = self.timing;
        let cycle = cycle.as_millis();
        format!("{}, {cycle} ms x {factor}", self.network.name())
    }

    /// The sweep's impairment, as `fieldlock-wire` reads it.
    pub(super) fn wire(&self, seed: u64) -> Vec<String> {
        let impairment = self.network.impairment(self.timing);
        let micros = |time: Duration| format!("{}us", time.as_micros());
        let mut arguments = vec![
            format!("--seed={seed}"),
            format!("--delay={}", micros(DELAY)),
            format!("--jitter={}", micros(self.network.jitter)),
            format!("--loss={:.6}", impairment.loss),
        ];
        if let Some(burst) = impairment.burst {
            let step = burst.step.map(micros).unwrap_or_default();
            arguments.push(format!(
                "--burst={:.6},{:.6},{:.6},{step}",
                burst.enter, burst.leave, burst.loss
            ));
        }
        if let Cuts::Every { period, length, .. } = impairment.cuts {
            let (period, length) = (micros(period), micros(length));
            arguments.push(format!("--cut-every={period},{length}"));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_gets_the_impairment_of_the_sweep() {
        let of = |name| {
            let cell = CELLS.iter().find(|cell| cell.name == name).unwrap();
            cell.wire(7).join(" ")
        };
        assert_eq!(
            of("loss-jitter"),
            "--seed=7 --delay=20000us --jitter=10000us --loss=0.050000"
        );
        assert_eq!(
            of("bursts"),
            "--seed=7 --delay=20000us --jitter=5000us --loss=0.000000 \
             --burst=0.010204,0.500000,1.000000,32000us"
        );
        assert_eq!(
            of("blackouts"),
            "--seed=7 --delay=20000us --jitter=5000us --loss=0.000000 \
             --cut-every=30000000us,345600us"
        );
    }
}
