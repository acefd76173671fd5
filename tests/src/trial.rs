//! Tests by name, for a harness of our own: a missing foreign program is said, not hidden.

use fieldlock_testkit::peers::Peer;
use libtest_mimic::{Failed, Trial};

use crate::Transport;
use crate::rig::Rig;

/// A test that needs nothing but this workspace. It fails by panicking.
pub fn test(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// The same test on QUIC and on TLS over TCP.
pub fn both(name: &str, run: fn(Transport)) -> [Trial; 2] {
    [Transport::Quic, Transport::Tls].map(|transport| {
        Trial::test(format!("{name}::{transport}"), move || {
            run(transport);
            Ok(())
        })
    })
}

/// A test that needs foreign programs: ignored, with their names, where they are missing;
/// failed with `FIELDLOCK_REQUIRE_PEERS=1`.
pub fn with_peers(name: &str, peers: &[&str], run: impl FnOnce() + Send + 'static) -> Trial {
    if let Some(missing) = Peer::skip_reason(peers) {
        return ignored(name, &missing.to_string());
    }
    let missing = Peer::find_all(peers).err();
    Trial::test(name, move || {
        if let Some(missing) = missing {
            return Err(Failed::from(missing.to_string()));
        }
        run();
        Ok(())
    })
}

/// A test on a [`Rig`] of its own: ignored, with the reason, where there can be none.
pub fn on_rig(name: &str, run: impl FnOnce(&Rig) + Send + 'static) -> Trial {
    if let Err(skip) = Rig::possible() {
        return ignored(name, &skip.to_string());
    }
    test(name, move || {
        run(&Rig::up().unwrap());
    })
}

/// Likewise, for one that needs foreign programs too; see [`with_peers`].
pub fn on_rig_with(name: &str, peers: &[&str], run: impl FnOnce(&Rig) + Send + 'static) -> Trial {
    match Rig::possible() {
        Ok(()) => with_peers(name, peers, move || run(&Rig::up().unwrap())),
        Err(skip) => ignored(name, &skip.to_string()),
    }
}

/// A test that can't run here, with the reason in its name.
pub fn ignored(name: &str, reason: &str) -> Trial {
    Trial::test(format!("{name} ({reason})"), || Ok(())).with_ignored_flag(true)
}
