//! The last values of a device's registers, for rules that bound how far a write may move them.
//!
//! A value counts as known only if it can be told from what passed here that the device has it.
//! Requests may overtake each other on the connections of a pool, so
//!
//! - a write makes its registers unknown when it is submitted. Its normal answer makes them known,
//!   unless another write of them was under way at any time meanwhile.
//! - the normal answer to a read makes its registers known, unless a write of them was.
//!
//! Everything else leaves unknown what it may have changed. A write that was lost may still be acted
//! on until its deadline, and is taken for under way until then. What a device does to its registers
//! by itself is not seen here; that is what the age of a value is bounded for.

use std::collections::HashMap;
use std::time::Instant;

use fieldlock_modbus::rtu::BROADCAST;
use fieldlock_modbus::{Range, Request, Table, Values, Write};
use fieldlock_policy::{Step, Stepped};

use crate::admit::Why;

#[cfg(test)]
mod tests;

/// Registers of one device whose last values are kept. About 80 bytes each.
const MAX_REGISTERS: usize = 4_096;

/// What is known of the registers of one device, of all its units. Knows only those that rules with
/// a step cover: make another one for another policy.
#[derive(Debug)]
pub struct Registers {
    stepped: Stepped,
    known: HashMap<(u8, u16), Register>,
    /// Counts writes that are submitted, and those that end.
    moment: u64,
    /// Marks from before are of no use any more.
    begun: u64,
    /// What was submitted before teaches nothing: writes that are not known of may be under way.
    quiet_at: Instant,
    /// When the last of the writes that were submitted ends.
    ends_at: Instant,
}

#[derive(Debug, Default)]
struct Register {
    /// Writes of it.
    under_way: u32,
    /// The write under way, if no other was at any time since it was submitted.
    alone: Option<u64>,
    /// When a write of it was submitted, or ended.
    changed: u64,
    /// What it was read as, or what the last write wrote.
    value: u16,
    /// When it was known to have the value.
    known_at: Option<Instant>,
    /// What was submitted before teaches nothing: a write that was lost may still be acted on.
    quiet_at: Option<Instant>,
}

/// A request under way that has to do with such registers; its end is told with it.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    moment: u64,
    submitted: Instant,
    deadline: Instant,
    unit: u8,
    read: Option<Range>,
    written: Option<Range>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    /// The device answered with this PDU, no exception.
    Answered(&'a [u8]),
    /// Answered with an exception, or never sent.
    Refused,
    /// The device may have acted on it, and may still.
    Lost,
}

impl Registers {
    /// `quiet_at`: until when requests that were submitted before may be under way.
    pub fn new(stepped: Stepped, quiet_at: Instant) -> Self {
        Self {
            stepped,
            known: HashMap::new(),
            moment: 0,
            begun: 0,
            quiet_at,
            ends_at: quiet_at,
        }
    }

    /// A request is about to go to the device. It ends at its deadline at the latest. Times do not
    /// decrease.
    pub fn submitted(
        &mut self,
        now: Instant,
        unit: u8,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Option<Mark> {
        let of_registers = |range: &Range| range.table == Table::HoldingRegister;
        let write = request.write();
        if request.changes_state() {
            self.ends_at = self.ends_at.max(deadline);
            let anywhere = match &write {
                Some(write) => unit == BROADCAST && of_registers(&write.range),
                None => true,
            };
            if anywhere {
                self.begin_anew();
                return None;
            }
        }
        let mark = Mark {
            moment: self.moment + 1,
            submitted: now,
            deadline,
            unit,
            read: request.read().filter(of_registers),
            written: write.map(|write| write.range).filter(of_registers),
        };
        match write.filter(|_| mark.written.is_some()) {
            Some(write) => self.write(&mark, &write),
            None if mark.read.is_none() => return None,
            None => {}
        }
        Some(mark)
    }

    fn write(&mut self, mark: &Mark, write: &Write<'_>) {
        self.moment = mark.moment;
        for address in covered(&self.stepped, mark.unit, write.range) {
            let Some(register) = place(&mut self.known, (mark.unit, address)) else {
                continue;
            };
            register.alone = None;
            if let (0, Some(value)) = (register.under_way, written(write, address))
                && register.is_quiet(mark.submitted)
            {
                register.alone = Some(mark.moment);
                register.value = value;
            }
            register.under_way += 1;
            register.changed = mark.moment;
            register.known_at = None;
        }
    }

    /// A request has ended.
    pub fn ended(&mut self, now: Instant, mark: Mark, end: End<'_>) {
        if mark.moment <= self.begun {
            return;
        }
        let answer = match end {
            End::Answered(pdu) if self.quiet_at <= mark.submitted => Some(pdu),
            _ => None,
        };
        // Before the registers of its own write count as settled: those it does not teach.
        if let (Some(range), Some(pdu)) = (mark.read, answer) {
            self.learn(now, &mark, range, pdu);
        }
        let Some(range) = mark.written else { return };
        self.moment += 1;
        for address in covered(&self.stepped, mark.unit, range) {
            let Some(register) = self.known.get_mut(&(mark.unit, address)) else {
                continue;
            };
            let settles = answer.is_some() && register.alone == Some(mark.moment);
            register.known_at = settles.then_some(now);
            register.alone = None;
            register.under_way = register.under_way.saturating_sub(1);
            if end == End::Lost {
                register.quiet_at = register.quiet_at.max(Some(mark.deadline));
            }
            register.changed = self.moment;
        }
    }

    fn learn(&mut self, now: Instant, mark: &Mark, range: Range, pdu: &[u8]) {
        for address in covered(&self.stepped, mark.unit, range) {
            let at = 2 + 2 * usize::from(address - range.start);
            let Some(&[high, low]) = pdu.get(at..at + 2) else {
                return;
            };
            let Some(register) = place(&mut self.known, (mark.unit, address)) else {
                continue;
            };
            if register.under_way == 0
                && register.changed < mark.moment
                && register.is_quiet(mark.submitted)
            {
                register.value = u16::from_be_bytes([high, low]);
                register.known_at = Some(now);
            }
        }
    }

    /// Something may change any register.
    fn begin_anew(&mut self) {
        self.known.clear();
        self.moment += 1;
        self.begun = self.moment;
        self.quiet_at = self.quiet_at.max(self.ends_at);
    }

    /// Whether every value that is written moves by at most a step from its last one. The registers of a
    /// value must have come with one answer: a last value that is put together of two may be none that
    /// the device ever had.
    pub(crate) fn judge(
        &self,
        now: Instant,
        step: &Step,
        unit: u8,
        write: &Write<'_>,
    ) -> Result<(), Why> {
        let within = step.within();
        let layout = step.layout();
        for (first, last) in layout.values(write.range.start, write.range.last()) {
            let unread = |address| Why::Unread { address, within };
            let mut known_at = None;
            for address in first..=last {
                let register = self.known.get(&(unit, address)).ok_or(unread(address))?;
                if register.under_way > 0 {
                    return Err(Why::WriteUnderWay { address });
                }
                let at = register.known_at.ok_or(unread(address))?;
                let old = now.saturating_duration_since(at) > within;
                if old || known_at.is_some_and(|known_at| known_at != at) {
                    return Err(unread(first));
                }
                known_at = Some(at);
            }
            let last_value = |place| Some(self.known.get(&(unit, first + place))?.value);
            let new_value = |place| becomes(write, first + place, last_value(place)?);
            let format = layout.format();
            let from = format.read(last_value).ok_or(unread(first))?;
            let to = format.read(new_value).ok_or(unread(first))?;
            if !step.allows(from, to) {
                let max = step.max();
                return Err(Why::Step { from, to, max });
            }
        }
        Ok(())
    }
}

/// What a write makes of a register that holds `value`, be it one that it does not touch.
fn becomes(write: &Write<'_>, address: u16, value: u16) -> Option<u16> {
    match write.values {
        _ if !(write.range.start..=write.range.last()).contains(&address) => Some(value),
        Values::Mask { and, or } => Some((value & and) | (or & !and)),
        _ => written(write, address),
    }
}

impl Register {
    fn is_quiet(&self, at: Instant) -> bool {
        self.quiet_at.is_none_or(|quiet_at| quiet_at <= at)
    }
}

/// The addresses of a range that are kept.
fn covered(stepped: &Stepped, unit: u8, range: Range) -> impl Iterator<Item = u16> + '_ {
    stepped.within(unit, range.start, range.last()).flatten()
}

/// What is kept of a register; `None`: nothing, there is no room.
fn place(known: &mut HashMap<(u8, u16), Register>, key: (u8, u16)) -> Option<&mut Register> {
    if known.len() >= MAX_REGISTERS {
        return known.get_mut(&key);
    }
    Some(known.entry(key).or_default())
}

/// What a register of the range becomes; `None` of a mask, where that is not known.
fn written(write: &Write<'_>, address: u16) -> Option<u16> {
    let index = usize::from(address.checked_sub(write.range.start)?);
    write.values.get(index)
}
