//! Signed texts, which anybody may carry.

use std::fmt;
use std::sync::OnceLock;

use fieldlock_signed::{
    Edges, Kind, Lines, MAX_VERSION, Malformed, PublicKey, Signature, Signed, Signer, time_or_none,
};
use rcgen::{KeyPair, PublicKeyData as _};

/// A kind with all that kinds can have but a body: bundles have that.
struct Order {
    version: u64,
    not_before: Option<i64>,
    not_after: Option<i64>,
    edges: Edges,
}

impl Kind for Order {
    const NAME: &'static str = "order";
    const CALLED: &'static str = "order";
    const MAX: usize = 8 * 1024;
    const MAX_SIGNERS: usize = 3;

    fn read(lines: &mut Lines<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            version: lines.version()?,
            not_before: lines.time("not-before")?,
            not_after: lines.time("not-after")?,
            edges: lines.edges()?,
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: {}", self.version)?;
        writeln!(f, "not-before: {}", time_or_none(self.not_before))?;
        writeln!(f, "not-after: {}", time_or_none(self.not_after))?;
        writeln!(f, "edges: {}", self.edges)
    }
}

/// A text of strangers: it may be read, it has one spelling, and none of them is believed, nor with
/// them who signs it as well.
pub fn signed_text(data: &[u8]) {
    let mut order = match Signed::<Order>::parse(data) {
        Ok(order) => order,
        Err(error) => {
            let lines = data.split(|octet| *octet == b'\n').count();
            assert!(error.line <= lines, "{error}");
            return;
        }
    };
    assert_eq!(order.to_string().as_bytes(), data);
    assert!(data.len() <= Order::MAX);
    assert!((1..=MAX_VERSION).contains(&order.header.version));
    let of_strangers = order.signatures().to_vec();
    assert!((1..=Order::MAX_SIGNERS).contains(&of_strangers.len()));
    assert!(of_strangers.is_sorted_by(|one, other| one.signer < other.signer));
    let (pinned, key) = pinned();
    assert!(order.verify_by(&[*pinned]).is_err());

    let signer = pinned.to_string();
    let octets = key.sign(order.signed_text(&signer).as_bytes()).unwrap();
    let own = Signature { signer, octets };
    order.sign(own.clone());
    let only_own = order.signatures() == [own.clone()];
    assert_eq!(order.verify_by(&[*pinned]).is_ok(), only_own);
    for stranger in of_strangers.iter().filter(|s| s.signer != own.signer) {
        assert!(order.signatures().contains(stranger));
    }
    let read = Signed::<Order>::parse(order.to_string().as_bytes());
    let has_room = order.signatures().len() <= Order::MAX_SIGNERS;
    assert!(!has_room || read.is_ok() || order.to_string().len() > Order::MAX);
}

/// Whom an edge pins.
fn pinned() -> &'static (PublicKey, Signer) {
    static PINNED: OnceLock<(PublicKey, Signer)> = OnceLock::new();
    PINNED.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let public = PublicKey::new(key.der_bytes()).unwrap();
        (public, Signer::new(&key.serialize_der()).unwrap())
    })
}
