//! Certificates of a site: who a certificate names, what a bundle proves, what is revoked.
//!
//! - [`identity`]: site, role and name, and how a certificate carries them.
//! - [`modbus_role`]: the role of a Modbus client, for Modbus/TCP Security.
//! - [`certificate`], [`crl`], [`serial`]: read-only views of what a CA signed.
//! - [`bundle`]: what a CA hands over, checked signature by signature.
//! - [`profile`], [`csr`], [`issue`]: the signing side, without its files and records.
//! - [`trust`]: roots, issuing CAs and CRLs, and how a list of them grows.
//! - [`token`], [`est`]: what enrolment over the network carries.
//! - [`signing`]: signatures of agents over other things than certificates.
//! - [`store`]: the files that an agent starts from.
//! - [`clock`]: what time it is, where the system's clock may be wrong.
//!
//! Times are seconds since 1970-01-01 UTC and always arguments: nothing here reads a clock.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests say when time begins")
)]

pub mod bundle;
pub mod certificate;
pub mod clock;
pub mod crl;
pub mod csr;
pub mod est;
pub mod hex;
pub mod identity;
pub mod issue;
pub mod modbus_role;
pub mod private;
pub mod profile;
pub mod serial;
pub mod signing;
pub mod store;
pub mod token;
pub mod trust;

pub use bundle::{Bundle, BundleError};
pub use certificate::{CertificateError, Summary};
pub use crl::{Crl, CrlError};
pub use identity::{Identity, IdentityError, Name, NameError, Role, Site};
pub use modbus_role::{ModbusRole, ModbusRoleError};
pub use serial::Serial;
pub use store::{Installed, StoreError};
pub use token::{Secret, Token, TokenError};
pub use trust::{TrustList, TrustListError};
