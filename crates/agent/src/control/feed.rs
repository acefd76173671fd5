//! What those hear who subscribed: the state once, and then how it changes.
//!
//! One look at the agent a second serves all of them, and none is made while there are none. They share
//! each line that is on its way; who is four behind, or does not take one within its time, is cut.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fieldlock_status::{Answer, Delta, State};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::time::{MissedTickBehavior, interval};

use super::{Desk, Place, Reports};

pub(super) const FOLLOWERS: usize = 8;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// After as many looks at an agent where nothing changes they hear that, and those who are gone are
/// found out.
const QUIET: u32 = 5;
/// Lines on their way to who reads slowest.
const BEHIND: usize = 4;
/// Events in one delta.
const EVENTS: usize = 256;

#[derive(Default)]
pub(super) struct Feed {
    followers: Rc<Cell<usize>>,
    /// While there are followers.
    live: RefCell<Option<Live>>,
}

/// What the followers know.
struct Live {
    state: State,
    /// How many events had been put on record.
    events: u64,
    quiet: u32,
    lines: Sender<Rc<str>>,
}

/// One that subscribed.
pub(super) struct Following {
    /// What it is to hear first.
    pub(super) state: String,
    pub(super) deltas: Receiver<Rc<str>>,
    /// Its place among them.
    _place: Place,
}

impl<A: Reports> Desk<A> {
    /// `None`: there are as many as there may be.
    pub(super) fn follow(self: &Rc<Self>) -> Option<Following> {
        let place = Place::take(&self.feed.followers, FOLLOWERS)?;
        let mut live = self.feed.live.borrow_mut();
        let known = live.get_or_insert_with(|| {
            tokio::task::spawn_local(feed(self.clone()));
            Live::begin(&*self.agent)
        });
        Some(Following {
            state: Answer::State(known.state.clone()).to_line(),
            deltas: known.lines.subscribe(),
            _place: place,
        })
    }
}

/// Tells the followers, until there are none.
async fn feed<A: Reports>(desk: Rc<Desk<A>>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once.
    look.tick().await;
    loop {
        look.tick().await;
        let mut live = desk.feed.live.borrow_mut();
        if desk.feed.followers.get() == 0 {
            *live = None;
        }
        match live.as_mut() {
            Some(live) => live.look(&*desk.agent),
            None => return,
        }
    }
}

impl Live {
    fn begin(agent: &impl Reports) -> Self {
        Self {
            state: agent.state().sorted(),
            events: agent.recent().count(),
            quiet: 0,
            lines: broadcast::channel(BEHIND).0,
        }
    }

    fn look(&mut self, agent: &impl Reports) {
        let state = agent.state().sorted();
        let (events, events_left_out) = agent.recent().since(self.events, EVENTS);
        let delta = Delta {
            events,
            events_left_out,
            ..self.state.delta_to(&state)
        };
        self.state = state;
        self.events = agent.recent().count();
        self.quiet += 1;
        if delta != Delta::default() || self.quiet >= QUIET {
            self.quiet = 0;
            // No error but that all have gone, which the next look finds.
            let _ = self.lines.send(Answer::Delta(delta).to_line().into());
        }
    }
}
