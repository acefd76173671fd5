//! What became of a request, in the words that both ends use.

use fieldlock_modbus::Exception;
use fieldlock_session::Outcome;

use crate::client::By;
use crate::repeat;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The device did it.
    Answered,
    /// The device's answer to the same read of another client.
    Shared,
    /// The device answered with an exception.
    Exception,
    /// A broadcast left for the line; nobody answers those.
    Sent,
    /// Never sent: policy, limits, no record.
    Refused,
    /// Never sent: it repeats a write whose outcome its client does not know.
    RepeatRefused,
    /// Never written to the device's socket or line.
    NotSent,
    /// It left for the device and no answer came: it may have happened.
    Unknown,
}

impl Fate {
    /// As an edge tells it to a headend. A repeat is the one refusal with 0x0B.
    pub fn told(self) -> Outcome {
        match self {
            Self::Answered | Self::Shared | Self::Exception | Self::Sent => Outcome::Answered,
            Self::Refused | Self::RepeatRefused => Outcome::Refused,
            Self::NotSent => Outcome::NotSent,
            Self::Unknown => Outcome::Unknown,
        }
    }

    /// Who made the answer that the client gets.
    pub fn by(self) -> By {
        match self.told() {
            Outcome::Answered => By::Device,
            Outcome::Refused | Outcome::NotSent | Outcome::Unknown => By::Agent,
        }
    }

    /// What the client of a write knows once it has this answer.
    pub fn known(self, pdu: &[u8]) -> repeat::End {
        match self {
            Self::Answered | Self::Shared | Self::Sent => repeat::End::Done,
            // A gateway behind the edge does not know either.
            Self::Exception if is_no_answer(pdu) => repeat::End::Unknown,
            Self::Exception => repeat::End::Refused,
            Self::Refused | Self::RepeatRefused | Self::NotSent => repeat::End::NotSent,
            Self::Unknown => repeat::End::Unknown,
        }
    }
}

/// 0x0B.
pub(crate) fn is_no_answer(pdu: &[u8]) -> bool {
    matches!(pdu, [function, code] if function & fieldlock_modbus::exception::EXCEPTION_BIT != 0
        && *code == Exception::GatewayTargetFailedToRespond.code())
}
