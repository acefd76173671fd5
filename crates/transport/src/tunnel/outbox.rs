//! Bytes on their way to a tunnel.
//!
//! Whoever has a frame appends it; the one writer is woken when the box was empty, swaps
//! the buffer out and writes once. All that became ready in one turn of the event loop
//! then leaves in one packet or record.

use std::cell::RefCell;
use std::mem;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub struct Outbox {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    buffer: Vec<u8>,
    waker: Option<Waker>,
}

/// A box this full belongs to a link that stands still: new requests are refused.
const STALLED: usize = 256 * 1024;

/// Requests stop at [`STALLED`], so a slow link alone never has this much waiting: the other
/// side asks for answers and does not take them.
const FLOODED: usize = 2 * STALLED;

impl Outbox {
    /// Lets `append` add whole frames.
    pub fn push(&self, append: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner.borrow_mut();
        append(&mut inner.buffer);
        if !inner.buffer.is_empty()
            && let Some(waker) = inner.waker.take()
        {
            waker.wake();
        }
    }

    /// The writer has not come round to all of it yet.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.inner.borrow().buffer.is_empty()
    }

    pub fn is_stalled(&self) -> bool {
        self.inner.borrow().buffer.len() > STALLED
    }

    pub(crate) fn is_flooded(&self) -> bool {
        self.inner.borrow().buffer.len() > FLOODED
    }

    /// Swaps what waits into `into`, whose old content is dropped.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if inner.buffer.is_empty() {
            if !inner
                .waker
                .as_ref()
                .is_some_and(|w| w.will_wake(cx.waker()))
            {
                inner.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        into.clear();
        mem::swap(into, &mut inner.buffer);
        Poll::Ready(())
    }

    pub async fn take(&self, into: &mut Vec<u8>) {
        std::future::poll_fn(|cx| self.poll_take(cx, into)).await;
    }
}
