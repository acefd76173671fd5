//! Whose policy bundles count: those of the signers that are pinned, whatever a CA says.

use fieldlock_policy::Bundle;
use fieldlock_signed::PublicKey;
use thiserror::Error;

/// Checks the signature of a bundle: by one of `signers`, or, where there are none, by the key that
/// it names itself, which proves no more than that it is whole.
pub fn verify(bundle: &Bundle, signers: &[PublicKey]) -> Result<(), Distrust> {
    let signer = &bundle.header.signer;
    let key: PublicKey = signer.parse().map_err(|_| Distrust::NotAKey)?;
    if !signers.is_empty() && !signers.contains(&key) {
        return Err(Distrust::Signer {
            signer: signer.clone(),
        });
    }
    match key.has_signed(bundle.signed_text().as_bytes(), &bundle.signature) {
        true => Ok(()),
        false => Err(Distrust::Signature),
    }
}

/// Why a bundle is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Distrust {
    #[error("its signer is not a public key on P-256")]
    NotAKey,
    #[error("its signer {signer} is not one of those that are pinned")]
    Signer { signer: String },
    #[error("its signature does not fit: it is not what its signer signed")]
    Signature,
}

#[cfg(test)]
mod tests {
    use fieldlock_policy::bundle::{Edges, Header};
    use fieldlock_signed::Signer;
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    fn signed(key: &KeyPair) -> Bundle {
        let policy = "syntax = 1\n".to_owned();
        let signer = PublicKey::new(key.der_bytes()).unwrap().to_string();
        let header = Header {
            version: 7,
            not_before: Some(1_795_564_800),
            edges: Edges::only(vec!["press-07".into()]),
            signer,
        };
        let text = header.signed_text(&policy);
        let signer = Signer::new(&key.serialize_der()).unwrap();
        Bundle {
            header,
            signature: signer.sign(text.as_bytes()).unwrap(),
            policy,
        }
    }

    #[test]
    fn only_the_pinned_signers_count() {
        let keys = [(); 2].map(|()| KeyPair::generate().unwrap());
        let pins = keys
            .each_ref()
            .map(|key| PublicKey::new(key.der_bytes()).unwrap());
        let bundle = signed(&keys[0]);
        assert_eq!(verify(&bundle, &pins), Ok(()));
        assert_eq!(verify(&bundle, &[]), Ok(()));
        let other = verify(&bundle, &pins[1..]);
        assert!(matches!(other, Err(Distrust::Signer { .. })), "{other:?}");

        let mut passed_off = signed(&keys[1]);
        passed_off.header.signer = pins[0].to_string();
        assert_eq!(verify(&passed_off, &pins), Err(Distrust::Signature));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_is_believed() {
        let key = KeyPair::generate().unwrap();
        let pins = [PublicKey::new(key.der_bytes()).unwrap()];
        let text = signed(&key).to_string().into_bytes();
        let believed = |octets: &[u8]| {
            Bundle::parse(octets).is_ok_and(|bundle| verify(&bundle, &pins).is_ok())
        };
        assert!(believed(&text));
        for place in 0..text.len() {
            assert!(!believed(&text[..place]), "cut at {place}");
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[place] ^= 1 << bit;
                assert!(!believed(&flipped), "bit {bit} of octet {place}");
            }
        }
    }
}
