//! Policy bundles that are to be judged, one after the other: each may wait for the disk, and what
//! brings it does not.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fieldlock_transport::tunnel::Link;
use tokio::sync::Notify;

use super::Edge;

/// A bundle, by who brings it.
pub(super) enum Offer {
    Headend(Rc<Link>, Vec<u8>),
    /// The file in the configuration.
    File,
    /// What waited for its time.
    Due,
}

/// Of each bringer the newest, so that there are no more than headends and two.
#[derive(Default)]
pub(super) struct Offers {
    waiting: RefCell<VecDeque<Offer>>,
    came: Notify,
}

impl Offers {
    pub(super) fn put(&self, offer: Offer) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|older| offer.replaces(older)) {
            Some(older) => *older = offer,
            None => waiting.push_back(offer),
        }
        self.came.notify_one();
    }

    async fn next(&self) -> Offer {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(offer) => return offer,
                None => self.came.notified().await,
            }
        }
    }
}

impl Offer {
    fn replaces(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::Headend(link, _), Self::Headend(before, _)) => {
                link.peer.identity == before.peer.identity
            }
            (Self::File, Self::File) | (Self::Due, Self::Due) => true,
            _ => false,
        }
    }
}

/// Judges what is offered, for as long as the agent runs.
pub(super) async fn judge(edge: Rc<Edge>) {
    loop {
        match edge.offers.next().await {
            Offer::Headend(link, octets) => edge.take_offered_bundle(&link, &octets).await,
            Offer::File => edge.take_bundle_file().await,
            Offer::Due => {
                let answer = edge.judge_next().await;
                edge.tell_bundle(&answer);
            }
        }
    }
}
