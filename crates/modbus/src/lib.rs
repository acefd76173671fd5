//! Modbus as Fieldlock must understand it to inspect it: framing on TCP and serial lines,
//! requests validated to the last byte, and answers checked against the request they claim
//! to answer.
//!
//! Nothing here allocates on the way in, keeps state, or knows a socket. The way of one
//! request: [`mbap::decode`] cuts it out of the byte stream, [`Request::parse`] validates
//! it, [`Expected::of`] remembers what may answer it, [`Expected::check`] judges the answer.
//!
//! Section numbers refer to the *MODBUS Application Protocol Specification* V1.1b3.

pub mod answer;
pub mod exception;
pub mod function;
pub mod mbap;
pub mod pdu;
pub mod quirk;
pub mod rtu;

pub use answer::{Answer, Expected, Mismatch};
pub use exception::Exception;
pub use function::FunctionCode;
pub use mbap::{Adu, FramingError};
pub use pdu::{Malformed, Range, Request, Table, Values, Write};
pub use quirk::{Quirk, Quirks};
