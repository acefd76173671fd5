//! Live tunnels under another trust list: their edges hear of it, and who is not trusted any more is
//! cut. A certificate costs some 0.2 ms to judge, so thousands are judged between other work.

use std::rc::Rc;

use fieldlock_audit::{Kind, Record};
use fieldlock_pki::{Crl, Summary, TrustList};
use fieldlock_session::Close;
use fieldlock_transport::tls::Trust;
use fieldlock_transport::tunnel::Link;
use tokio::task::yield_now;

use super::Headend;

/// Tunnels judged before others get their turn: some 2 ms.
const AT_ONCE: usize = 8;

/// Judges all tunnels each time that it is wanted, for ever.
pub(super) async fn follow(headend: Rc<Headend>) {
    loop {
        headend.sweep_wanted.notified().await;
        tunnels(&headend).await;
    }
}

/// Judges all that are there now. Another change of the trust ends this, and begins anew.
async fn tunnels(headend: &Headend) {
    let trust = headend.runtime.posture.trust();
    let (hash, pem) = (trust.list.hash(), trust.list.to_pem());
    let links = headend.registry.links();
    let lists = Lists::of(&trust.list);
    let (revoked, rest): (Vec<_>, Vec<_>) = links.into_iter().partition(|link| lists.revoke(link));
    for (place, link) in revoked.iter().chain(&rest).enumerate() {
        if place % AT_ONCE == AT_ONCE - 1 {
            yield_now().await;
            if !Rc::ptr_eq(&trust, &headend.runtime.posture.trust()) {
                return;
            }
        }
        // First, so that who is cut learns why.
        if let Some(tunnel) = headend.registry.tunnel_of(link)
            && tunnel.trust.get().is_some_and(|theirs| theirs != hash)
        {
            link.offer_trust(&pem);
        }
        judge(headend, &trust, link);
    }
}

fn judge(headend: &Headend, trust: &Trust, link: &Rc<Link>) {
    if link.is_closing() {
        return;
    }
    let Err(reason) = trust.still_trusts(&link.peer.chain, &link.peer.identity) else {
        return;
    };
    headend.runtime.ledger.note(Record {
        reason: Some(reason.clone().into()),
        ..headend.tunnel_record(Kind::Revoked, link)
    });
    // No request leaves while the last words are under way.
    if let Some(tunnel) = headend.registry.tunnel_of(link) {
        tunnel.release_devices();
    }
    link.close(Close::NotTrusted, reason);
}

/// What the lists of the issuing CAs revoke, to find at once whom a change is about.
struct Lists(Vec<Crl>);

impl Lists {
    fn of(list: &TrustList) -> Self {
        let issuing = list.issuing.iter();
        Self(issuing.filter_map(|issuing| list.crl_of(issuing)).collect())
    }

    fn revoke(&self, link: &Link) -> bool {
        let leaf = link.peer.chain.first().map(|leaf| Summary::of(leaf));
        let Some(Ok(leaf)) = leaf else { return false };
        let own = |crl: &&Crl| crl.issuer == leaf.issuer;
        let mut own = self.0.iter().filter(own);
        own.any(|crl| crl.is_revoked(&leaf.serial))
    }
}
