//! What waits for the disk of the state directory, off the thread that serves: a sync on a busy disk
//! takes seconds, and a tunnel whose agent stands still for so long is taken for dead.

use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// Does `work` on a spare thread.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        // Nothing but its own panic ends it early: nobody aborts it, and at the end of the runtime
        // whoever waits here has ended first.
        Err(error) => resume_unwind(error.into_panic()),
    }
}
