//! How the end of a request stands on record.

use fieldlock_audit::Outcome;
use fieldlock_conduit::fate::Fate;

/// Why a repeated write is refused.
pub const REPEAT: &str =
    "the same write was sent before, and its client does not know what became of it";

/// Why a write is refused of a client with too many that are remembered.
pub const UNKNOWNS: &str = "too many writes of this client whose outcome it does not know";

/// A write whose intent can't be put on record is refused.
pub const NO_AUDIT: &str = "the audit log can't be written";

/// Of writes; a read without an answer is [`Outcome::Lost`].
pub fn recorded(fate: Fate) -> Outcome {
    match fate {
        Fate::Answered => Outcome::Answered,
        Fate::Shared => Outcome::Shared,
        Fate::Exception => Outcome::Exception,
        Fate::Sent => Outcome::Sent,
        Fate::Refused => Outcome::Refused,
        Fate::RepeatRefused => Outcome::RepeatRefused,
        Fate::NotSent => Outcome::NotSent,
        Fate::Unknown => Outcome::Unknown,
    }
}
