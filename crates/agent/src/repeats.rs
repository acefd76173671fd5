//! What both ends say and know of writes that clients send again by themselves
//! ([`fieldlock_conduit::repeat`]).

use fieldlock_audit::Outcome;
use fieldlock_conduit::repeat::End;
use fieldlock_modbus::Exception;

/// What a repeated write is answered with: nobody can tell the client what became of the first.
pub(crate) const ANSWER: Exception = Exception::GatewayTargetFailedToRespond;

/// The reason on record.
pub(crate) const REASON: &str =
    "the same write was sent before, and its client does not know what became of it";

/// A write is refused since too many of its client are remembered.
pub(crate) const FULL: &str = "too many writes of this client whose outcome it does not know";

/// What became of a write whose client was answered with `exception`, if with any.
pub(crate) fn end_of(outcome: Outcome, exception: Option<u8>) -> End {
    match outcome {
        Outcome::Answered | Outcome::Shared | Outcome::Sent => End::Done,
        // A gateway behind the edge does not know either.
        Outcome::Exception if exception == Some(ANSWER.code()) => End::Unknown,
        Outcome::Exception => End::Refused,
        Outcome::Refused | Outcome::RepeatRefused | Outcome::NotSent => End::NotSent,
        Outcome::Unknown | Outcome::Lost => End::Unknown,
    }
}
