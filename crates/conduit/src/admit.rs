//! Whether one request may cross: the same judgement at both ends of a tunnel.

use std::fmt;

use fieldlock_modbus::{Exception, Request};
use fieldlock_policy::{Decision, Reason, RuleId, View};

/// Proof that the policy allowed this request for this unit. Only [`admit`] makes one, and
/// only what holds one may be sent on.
#[derive(Debug, Clone)]
pub struct Permit<'a> {
    request: Request<'a>,
    unit: u8,
    rule: RuleId,
}

impl<'a> Permit<'a> {
    pub fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// The unit as the device hears it.
    pub fn unit(&self) -> u8 {
        self.unit
    }

    pub fn rule(&self) -> RuleId {
        self.rule
    }
}

/// A request that does not cross, with what the client is answered.
#[derive(Debug, Clone)]
pub struct Refused<'a> {
    pub function: u8,
    pub exception: Exception,
    pub why: Why,
    /// The rule that decided, where one did.
    pub rule: Option<RuleId>,
    /// What was asked, where it could be parsed.
    pub request: Option<Request<'a>>,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The PDU breaks the Modbus specification.
    Malformed(&'static str),
    Policy(Reason),
    /// The client has this many requests without an answer already.
    InFlight {
        limit: usize,
    },
    /// No device is mapped to the unit that the client used.
    NoRoute {
        unit: u8,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::Policy(reason) => reason.fmt(f),
            Self::InFlight { limit } => write!(f, "{limit} requests without an answer already"),
            Self::NoRoute { unit } => write!(f, "unit {unit} is not mapped to a device"),
        }
    }
}

/// Parses and judges one request PDU for `unit` of the device that `view` is about.
pub fn admit<'a>(view: &View, unit: u8, pdu: &'a [u8]) -> Result<Permit<'a>, Refused<'a>> {
    let request = Request::parse(pdu).map_err(|malformed| Refused {
        function: malformed.function,
        exception: malformed.exception,
        why: Why::Malformed(malformed.what),
        rule: None,
        request: None,
    })?;
    match view.decide(unit, &request) {
        Decision::Allow { rule } => Ok(Permit {
            request,
            unit,
            rule,
        }),
        Decision::Refuse(refusal) => Err(Refused {
            function: request.function().0,
            exception: refusal.exception,
            why: Why::Policy(refusal.reason),
            rule: refusal.rule,
            request: Some(request),
        }),
    }
}
