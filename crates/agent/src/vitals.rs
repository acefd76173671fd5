//! Tasks without which an agent is none: as long as it runs, none of them ends.

use std::cell::RefCell;

use tokio::task::{JoinHandle, spawn_local};

#[derive(Debug, Default)]
pub(crate) struct Vitals {
    tasks: RefCell<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Vitals {
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push((name, spawn_local(task)));
    }

    /// Fails with the name of a task that has ended: it panicked.
    pub(crate) fn check(&self) -> Result<(), String> {
        let tasks = self.tasks.borrow();
        match tasks.iter().find(|(_, task)| task.is_finished()) {
            None => Ok(()),
            Some((name, _)) => Err(format!("the task `{name}` has ended")),
        }
    }
}
