//! Whether one request may cross: the same judgement at both ends of a tunnel.

use std::fmt;
use std::time::{Duration, Instant};

use fieldlock_modbus::{Exception, Quirks, Request, Table};
use fieldlock_policy::{Decision, Layout, Number, Rate, Reason, Repeat, RuleId, View};

use crate::meter::{Meter, Who};
use crate::step::Registers;

/// Proof that the policy allowed this request for this unit. Only [`admit`] makes one, and
/// only what holds one may be sent on.
#[derive(Debug, Clone)]
pub struct Permit<'a> {
    request: Request<'a>,
    unit: u8,
    rule: RuleId,
    /// The rule of the policy that narrows the one of `rule`.
    narrowing: Option<RuleId>,
    /// Where the values lie that the rule, or the one that narrows it, sees.
    layout: Option<Layout>,
    is_once: bool,
    taken: Taken,
}

/// Which rules permitted a request. Equal ones mean the same rules, as long as the policy is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grounds(pub u64);

/// The rates that a request has used; two for function 23, and as many of a policy that narrows.
type Taken = [Option<(RuleId, Rate)>; 4];

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

    /// Where the values lie that the rule sees, if it has a type.
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    /// A write that is not to be sent again while the client does not know what became of it
    /// ([`crate::repeat`]).
    pub fn is_once(&self) -> bool {
        self.is_once
    }

    /// Of a request that only reads; function 23 has two rules.
    pub fn grounds(&self) -> Grounds {
        let narrowing = self.narrowing.map_or(0, |rule| rule.number() + 1);
        Grounds(u64::from(self.rule.number()) << 32 | u64::from(narrowing))
    }

    /// The request does not go on after all: it has used no rate.
    pub fn put_back(&self, meter: &mut Meter, who: &Who) {
        for (rule, rate) in self.taken.into_iter().flatten() {
            meter.put_back(rule, rate, who);
        }
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
    /// Where the values lie that this rule sees, if it has a type.
    pub layout: Option<Layout>,
    /// What was asked, where it could be parsed.
    pub request: Option<Request<'a>>,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The PDU breaks the Modbus specification.
    Malformed(&'static str),
    Policy(Reason),
    /// The rule has let through what its rate allows.
    TooOften(Rate),
    /// The value is too far from the last one.
    Step {
        from: Number,
        to: Number,
        max: Number,
    },
    /// How far the value is from the last one can't be told.
    Unread {
        address: u16,
        within: Duration,
    },
    /// The same, until the write has its answer.
    WriteUnderWay {
        address: u16,
    },
    /// The client has this many requests without an answer already.
    InFlight {
        limit: usize,
    },
    /// Another request of the client has this transaction id, and no answer yet.
    IdInUse,
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
            Self::TooOften(rate) => {
                let (count, seconds) = (rate.count(), rate.seconds());
                write!(f, "more than {count} requests in {seconds}s")
            }
            Self::Step { from, to, max } => write!(f, "step from {from} to {to}, allowed {max}"),
            Self::Unread { address, within } => write!(
                f,
                "the value of holding {address} in the last {within:?} is not known: read it first"
            ),
            Self::WriteUnderWay { address } => write!(
                f,
                "a write of holding {address} is under way: wait for its answer"
            ),
            Self::InFlight { limit } => write!(f, "{limit} requests without an answer already"),
            Self::IdInUse => {
                f.write_str("another request with this transaction id has no answer yet")
            }
            Self::NoRoute { unit } => write!(f, "unit {unit} is not mapped to a device"),
        }
    }
}

/// Where the use of rates is counted, and what steps are measured from.
#[derive(Debug)]
pub struct Count<'m> {
    pub meter: &'m mut Meter,
    pub who: &'m Who,
    /// Of the device. `None` where no rule for it has a step; a view with steps then refuses what
    /// they bound.
    pub registers: Option<&'m Registers>,
    /// Does not decrease.
    pub now: Instant,
}

/// Parses and judges one request PDU for `unit` of the device that `view` is about and that has
/// these quirks. Whoever
/// refuses what was permitted calls [`Permit::put_back`].
pub fn admit<'a>(
    view: &View,
    unit: u8,
    pdu: &'a [u8],
    quirks: Quirks,
    count: Count<'_>,
) -> Result<Permit<'a>, Refused<'a>> {
    let request = Request::parse_for(pdu, quirks).map_err(|malformed| Refused {
        function: malformed.function,
        exception: malformed.exception,
        why: Why::Malformed(malformed.what),
        rule: None,
        layout: None,
        request: None,
    })?;
    let (exception, why, by) = match view.decide(unit, &request) {
        Decision::Allow {
            rule,
            read,
            narrowing,
        } => match within_steps(
            view,
            [Some((rule, read)), narrowing],
            unit,
            &request,
            &count,
        )
        .and_then(|()| take(view, [Some((rule, read)), narrowing], count))
        {
            Ok(taken) => {
                return Ok(Permit {
                    request,
                    unit,
                    rule,
                    narrowing: narrowing.map(|(rule, _)| rule),
                    layout: layout(
                        view,
                        &request,
                        [Some(rule), narrowing.map(|(rule, _)| rule)],
                    ),
                    is_once: request.changes_state()
                        && view.repeat(unit, &request) == Repeat::Refuse,
                    taken,
                });
            }
            Err((rule, why @ Why::TooOften(_))) => (Exception::ServerDeviceBusy, why, Some(rule)),
            Err((rule, why)) => (Exception::IllegalDataValue, why, Some(rule)),
        },
        Decision::Refuse(refusal) => {
            let why = Why::Policy(refusal.reason);
            (refusal.exception, why, refusal.rule)
        }
    };
    Err(Refused {
        function: request.function().0,
        exception,
        why,
        rule: by,
        layout: layout(view, &request, [by, None]),
        request: Some(request),
    })
}

/// Where the first of these rules with a type sees the values of a write.
fn layout(view: &View, request: &Request<'_>, rules: [Option<RuleId>; 2]) -> Option<Layout> {
    request.write()?;
    let mut rules = rules.into_iter().flatten();
    rules.find_map(|rule| view.layout(rule)).cloned()
}

/// The rule that allows a request, and of function 23 the one for what it reads.
type Allowing = Option<(RuleId, Option<RuleId>)>;

/// Whether the rules let the registers that are written move so far.
fn within_steps(
    view: &View,
    rules: [Allowing; 2],
    unit: u8,
    request: &Request<'_>,
    count: &Count<'_>,
) -> Result<(), (RuleId, Why)> {
    for (rule, _) in rules.into_iter().flatten() {
        let Some(step) = view.step(rule) else {
            continue;
        };
        let Some(write) = request.write() else {
            continue;
        };
        if write.range.table != Table::HoldingRegister {
            continue;
        }
        let judged = match count.registers {
            Some(registers) => registers.judge(count.now, step, unit, &write),
            None => Err(Why::Unread {
                address: write.range.start,
                within: step.within(),
            }),
        };
        judged.map_err(|why| (rule, why))?;
    }
    Ok(())
}

/// Takes one of what the rates of these rules have left, or nothing; then it says which rate is used
/// up.
fn take(view: &View, rules: [Allowing; 2], count: Count<'_>) -> Result<Taken, (RuleId, Why)> {
    let mut taken = Taken::default();
    let Count {
        meter, who, now, ..
    } = count;
    // Both halves by one rule are one request of it.
    let rules = rules
        .into_iter()
        .flatten()
        .flat_map(|(rule, read)| [Some(rule), read.filter(|read| *read != rule)]);
    for (place, rule) in (0..).zip(rules.flatten()) {
        let Some(rate) = view.rate(rule) else {
            continue;
        };
        if !meter.take(rule, rate, who, now) {
            for (rule, rate) in taken.into_iter().flatten() {
                meter.put_back(rule, rate, who);
            }
            return Err((rule, Why::TooOften(rate)));
        }
        taken[place] = Some((rule, rate));
    }
    Ok(taken)
}
