//! Who was turned away lately, for people who look at `status`. The audit log has it all.

use std::net::IpAddr;
use std::time::Instant;

use fieldlock_status::headend;

/// How many are remembered: strangers may come from many addresses, and push out one another alone.
const IDENTITIES: usize = 16;
const STRANGERS: usize = 4;

/// The last refusal of each identity, and of each address without one.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    identities: Vec<Refusal>,
    strangers: Vec<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    identity: Option<String>,
    address: IpAddr,
    reason: String,
    count: u64,
    last: Instant,
}

impl Refusals {
    /// `identity`: of the certificate that was shown, where a CA of the site issued it.
    pub(super) fn note(
        &mut self,
        identity: Option<String>,
        address: IpAddr,
        reason: &str,
        now: Instant,
    ) {
        let (list, most) = match identity {
            Some(_) => (&mut self.identities, IDENTITIES),
            None => (&mut self.strangers, STRANGERS),
        };
        let is_known = |known: &Refusal| match &identity {
            Some(_) => known.identity == identity,
            None => known.address == address,
        };
        let known = list.iter().position(is_known).map(|at| list.remove(at));
        if list.len() == most {
            list.remove(0);
        }
        list.push(Refusal {
            identity,
            address,
            reason: reason.to_owned(),
            count: known.map_or(0, |known| known.count) + 1,
            last: now,
        });
    }

    /// It was let in.
    pub(super) fn forget(&mut self, identity: &str) {
        self.identities
            .retain(|known| known.identity.as_deref() != Some(identity));
    }

    /// The latest first, those who are known before strangers.
    pub(super) fn status(&self) -> Vec<headend::Refusal> {
        let all = self
            .identities
            .iter()
            .rev()
            .chain(self.strangers.iter().rev());
        all.map(|refusal| headend::Refusal {
            who: refusal.identity.as_deref().unwrap_or("somebody").to_owned(),
            address: refusal.address.to_string(),
            reason: refusal.reason.clone(),
            count: refusal.count,
            seconds: refusal.last.elapsed().as_secs(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_push_out_no_edge_and_are_bounded() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let from = |n: u8| IpAddr::from([10, 0, 0, n]);
        refusals.note(Some("edge/press-07".into()), from(1), "revoked", now);
        refusals.note(Some("edge/press-07".into()), from(2), "revoked", now);
        for n in 0..200 {
            refusals.note(None, from(n), "no certificate", now);
        }
        let shown = refusals.status();
        assert_eq!(shown.len(), 1 + STRANGERS);
        assert_eq!(shown[0].who, "edge/press-07");
        assert_eq!(shown[0].count, 2);
        assert_eq!(shown[0].address, "10.0.0.2");
        for n in 0..200 {
            refusals.note(Some(format!("edge/e{n}")), from(n), "not bound", now);
        }
        assert_eq!(refusals.status().len(), IDENTITIES + STRANGERS);
        refusals.forget("edge/e199");
        assert_eq!(refusals.status()[0].who, "edge/e198");
    }
}
