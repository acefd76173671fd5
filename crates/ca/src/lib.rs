//! The bundled certificate authority.
//!
//! - [`init`] makes a CA directory, [`authority`] issues, revokes and publishes from it.
//! - [`records`] is the append-only account of what it did, of [`event`]s; [`settings`] its
//!   lifetimes.
//! - [`expiry`] tells what runs out next, [`backup`] keeps it in one file.
//! - [`serve`] does it over the network.
//! - [`keyfile`] and [`passphrase`] keep the CA's keys encrypted; [`hsm`] has those on a token.
//! - [`make`] makes keys for agents on the same machine.
//! - [`generation`] turns issuing CAs and roots over, [`ceremony`] is what the root's key does.
//! - [`enrolment`] issues to who shows a token or the present certificate.
//!
//! Everything here reads and writes files; what a certificate may contain is decided in
//! `fieldlock-pki`. Times are passed in as [`clock::Time`].

pub mod authority;
pub mod backup;
pub mod ceremony;
pub mod clock;
pub mod enrolment;
mod error;
pub mod event;
pub mod expiry;
mod file;
pub mod generation;
pub mod hsm;
pub mod init;
pub mod keyfile;
mod layout;
pub mod make;
mod passed;
pub mod passphrase;
mod random;
pub mod records;
pub mod serve;
pub mod settings;

pub use authority::{Access, Ca, Issued, Order};
pub use clock::Time;
pub use enrolment::{Credentials, TokenOrder};
pub use error::CaError;
pub use event::{Entry, Source};
pub use file::FileError;
pub use generation::{Generation, Keys};
pub use passphrase::Passphrase;
pub use settings::Settings;
