//! From a policy file to a policy: read, compiled, and held to its tests.

use crate::compile::compile;
use crate::error::{PolicyErrors, Problems};
use crate::policy::Policy;
use crate::{source, trial};

impl Policy {
    /// Reads and checks a whole file. `file` is its name for error texts.
    pub fn parse(source: &str, file: &str) -> Result<Self, PolicyErrors> {
        let mut problems = Problems::default();
        let mut read = source::read(source, &mut problems);
        let read_only = std::mem::take(&mut read.read_only);
        let tests = std::mem::take(&mut read.tests);
        let named = |set: &source::SourceSet| {
            let (_, name) = set.name.as_valid()?;
            Some((name.clone(), set.used))
        };
        let sets = read.sets.iter().filter_map(named).collect();
        let (clients, rules, stations) = compile(read, source, &mut problems);
        let mut policy = Self::of(clients, rules, stations);
        policy.read_only = read_only;
        policy.sets = sets;
        policy.tests = tests.len();
        if problems.is_empty() {
            trial::run(&policy, &tests, &mut problems);
        }
        problems.into_result(source, file)?;
        Ok(policy)
    }
}
