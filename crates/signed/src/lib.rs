//! What people and agents sign that is not a certificate.
//!
//! - [`Signed`]: a text of some [`Kind`] with its signatures, written and read.
//! - [`Lines`]: how a kind reads its header, with what kinds have in common: versions, times,
//!   [`Edges`].
//! - [`verify_by`](Signed::verify_by): whether those have signed who have to.
//! - [`PublicKey`], [`Signer`]: the keys.
//!
//! # The form
//!
//! ```text
//! fieldlock-KIND: 1
//! key: value                 the header: lines of the kind, in its order
//! signer: p256:BASE64        each with its signature; ascending, none twice
//! signature: BASE64
//!                            where the kind has a body, an empty line
//! body                       and then this, octet for octet
//! ```
//!
//! Everything has one spelling. What is signed is the first line, the header, the signer's own line,
//! and the empty line with the body: no signature fits another signer, and each can be made without
//! the others.

mod edges;
mod key;
mod lines;
mod text;
mod verify;

pub use edges::Edges;
pub use key::{PublicKey, PublicKeyError, Signer};
pub use lines::{Lines, MAX_VERSION, Malformed, Problem, time_or_none, time_text};
pub use text::{Kind, Signature, Signed};
pub use verify::Distrust;
