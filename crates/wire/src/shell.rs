//! What both kinds of wire have in common: a runtime, an end and its report.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::carrier::Totals;

pub(crate) fn block_on(run: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run)
}

/// Completes when the program is to end: interrupted, terminated, or out of time.
pub(crate) async fn end(start: Instant, duration: Option<Duration>) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let out_of_time = async {
        match duration {
            Some(duration) => tokio::time::sleep_until((start + duration).into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = out_of_time => {}
    }
    Ok(())
}

pub(crate) fn report(totals: Totals) {
    let Totals {
        packets,
        delivered,
        lost,
        burst,
        cut,
        queue,
        overflow,
        latest,
    } = totals;
    println!(
        "{packets} packets: {delivered} delivered, lost {lost} singly, {burst} in bursts, {cut} in \
         cuts, {queue} at the full queue, {overflow} here; at most {latest:?} later than decided"
    );
}
