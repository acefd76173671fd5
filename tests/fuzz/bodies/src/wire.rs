//! A connection in memory whose other end is the fuzzer: it sends its pieces, takes all that it is
//! told, and leaves when it is told to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::timeout;

/// Without progress: then a server has nothing left to do.
const TURNS: usize = 8;
/// Of real time: more than any server may take to end once its client has left.
pub(crate) const TO_END: Duration = Duration::from_secs(60);

/// A handle: the server has another one.
#[derive(Clone)]
pub(crate) struct Wire(Rc<RefCell<State>>);

struct State {
    pieces: VecDeque<Vec<u8>>,
    between: bool,
    leaves: bool,
    waiting: Option<Waker>,
    taken: usize,
    said: Vec<u8>,
}

/// What became of a connection.
pub(crate) struct Talk {
    /// Octets that the server read.
    pub(crate) taken: usize,
    /// All that it wrote.
    pub(crate) said: Vec<u8>,
}

/// On which servers run; what waits for the disk does so one after the other.
pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().max_blocking_threads(1);
    builder.build().unwrap()
}

impl Wire {
    /// `leaves`: the end of the pieces is the end of the stream, whatever is under way then.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Vec<u8>>, leaves: bool) -> Self {
        Self(Rc::new(RefCell::new(State {
            pieces: pieces.into_iter().collect(),
            between: false,
            leaves,
            waiting: None,
            taken: 0,
            said: Vec::new(),
        })))
    }

    /// Has the server serve until it waits for more, and for as long as `patience` lasts then, and
    /// leaves. `None`: `to_end` later the server still has not ended.
    pub(crate) async fn talk<T>(
        self,
        server: impl Future<Output = T>,
        patience: impl AsyncFn(),
        to_end: Duration,
    ) -> (Option<T>, Talk) {
        let mut server = pin!(server);
        let ended = tokio::select! {
            biased;
            ended = &mut server => Some(ended),
            () = async {
                self.starves().await;
                patience().await;
            } => None,
        };
        let ended = match ended {
            Some(ended) => Some(ended),
            None => {
                self.leave();
                timeout(to_end, server).await.ok()
            }
        };
        (ended, self.so_far())
    }

    /// Has the server serve a client that leaves in the end; for one that needs no runtime.
    pub(crate) fn run<T>(self, server: impl Future<Output = T>) -> (T, Talk) {
        self.leave();
        let mut server = pin!(server);
        let mut cx = Context::from_waker(Waker::noop());
        let mut turns = 4 + 2 * self.0.borrow().pieces.len();
        let ended = loop {
            if let Poll::Ready(ended) = server.as_mut().poll(&mut cx) {
                break ended;
            }
            turns = turns.checked_sub(1).expect("it waits for nothing");
        };
        (ended, self.so_far())
    }

    /// Pieces that nobody has read.
    pub(crate) fn unread(&self) -> Vec<u8> {
        let state = self.0.borrow();
        state.pieces.iter().flatten().copied().collect()
    }

    fn so_far(&self) -> Talk {
        let mut state = self.0.borrow_mut();
        Talk {
            taken: state.taken,
            said: std::mem::take(&mut state.said),
        }
    }

    /// Until the server neither reads nor writes any more.
    async fn starves(&self) {
        let (mut before, mut turns) = (self.progress(), 0);
        while turns < TURNS {
            yield_now().await;
            let now = self.progress();
            turns = if now == before { turns + 1 } else { 0 };
            before = now;
        }
    }

    fn progress(&self) -> (usize, usize, bool) {
        let state = self.0.borrow();
        (state.taken, state.said.len(), state.between)
    }

    fn leave(&self) {
        let mut state = self.0.borrow_mut();
        state.leaves = true;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if std::mem::take(&mut state.between) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut piece) = state.pieces.pop_front() else {
            if state.leaves {
                return Poll::Ready(Ok(()));
            }
            state.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let rest = piece.split_off(piece.len().min(buf.remaining()));
        buf.put_slice(&piece);
        state.taken += piece.len();
        match rest.is_empty() {
            true => state.between = true,
            false => state.pieces.push_front(rest),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().said.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The answer of a server that gives one and closes; `None`: it said nothing.
pub(crate) fn one_answer(said: &[u8], is_head: bool) -> Option<Answer<'_>> {
    let said = said
        .strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        .unwrap_or(said);
    if said.is_empty() {
        return None;
    }
    let end = said.windows(4).position(|octets| octets == b"\r\n\r\n");
    let (head, body) = said.split_at(end.expect("a head has an end") + 4);
    let head = std::str::from_utf8(head).expect("our heads are ASCII");
    let mut lines = head.lines();
    let status = lines.next().expect("there is a status line");
    let version = status.strip_prefix("HTTP/1.").expect("HTTP/1 alone");
    let status = version[2..5].parse().expect("a status has three digits");
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let answer = Answer {
        status,
        headers,
        body,
    };
    let length = answer.header("content-length").unwrap_or("0");
    let length: usize = length.parse().expect("a length is a number");
    assert!(
        body.len() == length || is_head && body.is_empty(),
        "{} octets follow a head that says {length}",
        body.len()
    );
    Some(answer)
}

pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// The first of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }
}
