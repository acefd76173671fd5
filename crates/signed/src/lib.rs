//! What people and agents sign that is not a certificate.
//!
//! - [`PublicKey`], [`Signer`]: the keys.

mod key;

pub use key::{PublicKey, PublicKeyError, Signer};
