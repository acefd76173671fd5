//! What policies are made of: addresses, values, functions, times, and the rules of them.
//!
//! Nothing here knows a policy, a file or a view; all of those are made of this. Of the files,
//! [`rule`] is on top.

pub(crate) mod address;
pub(crate) mod cidr;
pub(crate) mod client;
pub(crate) mod decision;
pub(crate) mod function;
pub(crate) mod interval;
pub(crate) mod number;
pub(crate) mod phase;
pub(crate) mod rate;
pub(crate) mod rule;
pub(crate) mod sample;
pub(crate) mod scope;
pub(crate) mod spelling;
pub(crate) mod step;
pub(crate) mod subfunction;
pub(crate) mod typed;
pub(crate) mod window;
