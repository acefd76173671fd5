//! What an audit log is good for once it is written: [`verify`] says whether it is in order and who
//! signed it, by certificates and by what the other end has on record; [`export`] hands it to
//! collectors.

pub mod export;
pub mod verify;
