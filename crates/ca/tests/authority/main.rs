//! The CA and its agents, without foreign programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod enrolment;
mod lifecycle;
mod records;
mod rotation;
#[path = "../site/mod.rs"]
mod site;
mod webpki;
