//! The names of the files in a CA's directory.

pub(crate) const SETTINGS: &str = "ca.toml";
pub(crate) const ROOT: &str = "root.pem";
pub(crate) const ROOT_KEY: &str = "root.key.pem";
pub(crate) const ISSUING: &str = "issuing.pem";
pub(crate) const ISSUING_KEY: &str = "issuing.key.pem";
pub(crate) const ISSUING_CRL: &str = "issuing.crl.pem";
pub(crate) const ROOT_CRL: &str = "root.crl.pem";
pub(crate) const RECORDS: &str = "records.db";
/// Files whose change means that something else is to be published.
pub(crate) const PUBLISHED: [&str; 4] = [RECORDS, ISSUING_CRL, ROOT_CRL, MORE];
pub(crate) const LOCK: &str = "lock";
pub(crate) const MORE: &str = "roots.pem";
