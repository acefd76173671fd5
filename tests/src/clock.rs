//! Clocks of agents that are not the system's: `faketime` shows them a time of the test's choice, and
//! leaves the monotonic clock as it is.

use std::fs;
use std::path::PathBuf;

use crate::Agent;

/// A time that changes while the agent runs.
#[derive(Debug)]
pub struct Settable(PathBuf);

impl Settable {
    pub fn of(agent: &mut Agent) -> Self {
        let file = agent.state().join("faketime");
        fs::write(&file, "+0").unwrap();
        preload(agent);
        agent.set_environment("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap());
        agent.set_environment("FAKETIME_NO_CACHE", "1");
        Self(file)
    }

    pub fn set(&self, time: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, time).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }
}

/// From its next start on the agent's clock is off by `time` (`"+40d"`), or begins at it (`"@1970-..."`).
pub fn set(agent: &mut Agent, time: &str) {
    preload(agent);
    agent.set_environment("FAKETIME", time);
}

fn preload(agent: &mut Agent) {
    // What the program `faketime` preloads.
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let library = |folder: fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    let found = folders.map(library).find(|path| path.exists());
    agent.set_environment("LD_PRELOAD", found.unwrap().to_str().unwrap());
    agent.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    agent.set_environment("NO_FAKE_STAT", "1");
}
