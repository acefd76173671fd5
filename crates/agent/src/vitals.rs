//! Tasks the agent cannot run without: as long as it runs, none of them ends.

use std::cell::{Cell, RefCell};

use tokio::task::{JoinHandle, spawn_local};

#[derive(Debug, Default)]
pub struct Vitals {
    tasks: RefCell<Vec<(&'static str, JoinHandle<()>)>>,
    stopping: Cell<bool>,
}

impl Vitals {
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push((name, spawn_local(task)));
    }

    /// From here on tasks may end.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Fails with the name of a task that has ended: it panicked.
    pub fn check(&self) -> Result<(), String> {
        let tasks = self.tasks.borrow();
        match tasks.iter().find(|(_, task)| task.is_finished()) {
            None => Ok(()),
            Some((name, _)) => Err(format!("the task `{name}` has ended")),
        }
    }
}
