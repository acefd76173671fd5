//! Sets of functions: names, groups and numbers.

use std::fmt;

use fieldlock_modbus::{FunctionCode, Request, Table};

use crate::model::interval::Interval;
use crate::model::number::{Number, WordOrder};
use crate::model::sample::Sample;
use crate::model::subfunction::SubFunctions;

/// What a rule can allow apart: a function code, or one half of function 23.
///
/// 23 reads and writes in one request. Slot 23 is its read half; its write half has slot 0, which
/// is free since no function has code 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u8);

impl Slot {
    pub(crate) const COUNT: usize = 128;
    pub(crate) const READ_OF_23: Self = Self(23);
    pub(crate) const WRITE_OF_23: Self = Self(0);
    pub(crate) const WRITE_SINGLE: Self = Self(6);
    pub(crate) const MASK_WRITE: Self = Self(22);

    /// The slot of a function, for 23 that of its read half. A request's function is 1 to 127.
    pub(crate) fn of(function: FunctionCode) -> Self {
        Self(function.0 & 0x7F)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The function code; both halves of 23 give 23.
    pub(crate) fn function(self) -> FunctionCode {
        match self {
            Self::WRITE_OF_23 => FunctionCode(23),
            Self(code) => FunctionCode(code),
        }
    }

    /// The table whose addresses a request of this slot carries; `None` where it carries none
    /// that a rule can bound (diagnostics, files, the FIFO queue, vendors' codes).
    pub(crate) fn table(self) -> Option<Table> {
        match self.0 {
            1 | 5 | 15 => Some(Table::Coil),
            2 => Some(Table::DiscreteInput),
            4 => Some(Table::InputRegister),
            3 | 6 | 16 | 22 | 23 | 0 => Some(Table::HoldingRegister),
            _ => None,
        }
    }

    /// Whether every request of this slot may change the device's state, its most harmless form
    /// included.
    pub(crate) fn always_changes_state(self) -> bool {
        let sample = Sample {
            function: self.function(),
            start: 0,
            quantity: 1,
            value: Number::from(0),
            order: WordOrder::Big,
        };
        Request::parse(&sample.pdu()).is_ok_and(|request| request.changes_state())
    }

    /// Whether some request of this slot may change the device's state.
    pub(crate) fn may_change_state(self) -> bool {
        self.has_sub_functions() || self.always_changes_state()
    }

    /// Where the sub-functions of this slot's function stand among those of all; `None` where it has
    /// none.
    fn place(self) -> Option<usize> {
        match self.function() {
            FunctionCode::DIAGNOSTICS => Some(0),
            FunctionCode::ENCAPSULATED_INTERFACE => Some(1),
            _ => None,
        }
    }

    pub(crate) fn has_sub_functions(self) -> bool {
        self.place().is_some()
    }

    /// Whether a request of this slot writes holding registers.
    pub(crate) fn writes_registers(self) -> bool {
        self.writes() && self.table() == Some(Table::HoldingRegister)
    }

    /// Whether a request of this slot carries values to be written that a rule can bound.
    pub(crate) fn writes(self) -> bool {
        matches!(self.0, 5 | 6 | 15 | 16 | 22 | 0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = self.function();
        match function.name() {
            Some(name) => write!(f, "{name} ({})", function.0)?,
            None => write!(f, "function {}", function.0)?,
        }
        match *self {
            Self::WRITE_OF_23 => f.write_str(" write half"),
            Self::READ_OF_23 => f.write_str(" read half"),
            _ => Ok(()),
        }
    }
}

/// A set of [`Slot`]s, and which of them were named one by one rather than by a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Functions {
    slots: u128,
    named: u128,
    /// Of function 8 and of function 43; empty where the set does not have the function.
    bodies: [SubFunctions; 2],
}

impl Functions {
    pub(crate) const ANY: Self = Self {
        slots: u128::MAX,
        named: 0,
        bodies: [SubFunctions::ALL; 2],
    };

    /// One sub-function, or a few, of function 8 or 43.
    fn part(function: FunctionCode, body: SubFunctions) -> Option<Self> {
        let slot = Slot::of(function);
        let place = slot.place()?;
        let mut set = Self::default();
        set.slots = 1 << slot.0;
        set.named = set.slots;
        set.bodies[place] = body;
        Some(set)
    }

    /// Which sub-functions the set has of a slot; all where it has none at all to tell apart.
    pub(crate) fn bodies(&self, slot: Slot) -> Vec<Interval> {
        match slot.place() {
            Some(place) => self.bodies[place].intervals(),
            None => vec![Interval::FULL],
        }
    }

    pub(crate) fn one(function: FunctionCode) -> Self {
        let mut set = Self::from_codes(&[function.0]);
        if function.0 == 23 {
            set.insert(Slot::WRITE_OF_23);
        }
        set.named = set.slots;
        set
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.slots & (1 << slot.0) != 0
    }

    /// Whether the rule named this function itself, by number or name.
    pub(crate) fn names(&self, slot: Slot) -> bool {
        self.named & (1 << slot.0) != 0
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.slots |= other.slots;
        self.named |= other.named;
        for (own, others) in self.bodies.iter_mut().zip(other.bodies) {
            own.merge(others);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + use<> {
        let set = *self;
        Slot::all().filter(move |slot| set.contains(*slot))
    }

    fn from_codes(codes: &[u8]) -> Self {
        let mut set = Self::default();
        for code in codes {
            set.insert(Slot(*code));
        }
        set
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.insert_bodies(slot, &[Interval::FULL]);
    }

    /// Inserts a slot with these sub-functions, where it has any.
    pub(crate) fn insert_bodies(&mut self, slot: Slot, bodies: &[Interval]) {
        self.slots |= 1 << slot.0;
        if let Some(place) = slot.place() {
            bodies
                .iter()
                .for_each(|body| self.bodies[place].insert(*body));
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots &= !(1 << slot.0);
    }
}

impl fmt::Display for Functions {
    /// Codes, ascending, runs as ranges: `1-4, 23 (read half)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.slots == u128::MAX && self.bodies == Self::ANY.bodies {
            return f.write_str("any");
        }
        let in_part = |slot: Slot| {
            let place = slot.place().filter(|_| self.contains(slot))?;
            Some(self.bodies[place]).filter(|body| *body != SubFunctions::ALL)
        };
        let halves = (
            self.contains(Slot::READ_OF_23),
            self.contains(Slot::WRITE_OF_23),
        );
        let mut codes: Vec<u8> = (1..=127)
            .filter(|code| *code != 23 && self.contains(Slot(*code)))
            .filter(|code| in_part(Slot(*code)).is_none())
            .collect();
        let mut half = None;
        match halves {
            (true, true) => codes.push(23),
            (true, false) => half = Some("23 (read half)"),
            (false, true) => half = Some("23 (write half)"),
            (false, false) => {}
        }
        codes.sort_unstable();
        let mut parts: Vec<String> = codes
            .chunk_by(|a, b| a + 1 == *b)
            .map(|run| match run {
                [first, .., last] => format!("{first}-{last}"),
                _ => run.iter().map(u8::to_string).collect(),
            })
            .collect();
        for slot in [
            Slot::of(FunctionCode::DIAGNOSTICS),
            Slot::of(FunctionCode::ENCAPSULATED_INTERFACE),
        ] {
            for body in in_part(slot).into_iter().flat_map(SubFunctions::intervals) {
                let mut one = SubFunctions::default();
                one.insert(body);
                parts.push(format!("{}/{one}", slot.0));
            }
        }
        parts.extend(half.map(str::to_owned));
        f.write_str(&parts.join(", "))
    }
}

/// The function codes of the programming group: vendors' ways to load programs and start or stop
/// the controller.
pub(crate) const PROGRAMMING: [u8; 6] = [40, 42, 90, 91, 125, 126];

pub(crate) const GROUPS: [&str; 6] = [
    "read",
    "write",
    "diagnostics",
    "files",
    "fifo",
    "programming",
];

pub(crate) fn group(name: &str) -> Option<Functions> {
    let codes: &[u8] = match name {
        "read" => &[1, 2, 3, 4, 23],
        "write" => &[5, 6, 15, 16, 22, 0],
        "diagnostics" => &[7, 8, 11, 12, 17, 43],
        "files" => &[20, 21],
        "fifo" => &[24],
        "programming" => &PROGRAMMING,
        _ => return None,
    };
    let mut set = Functions::from_codes(codes);
    if name == "diagnostics" {
        // What restarts, silences or clears a device has to be named.
        set.bodies = [SubFunctions::READING, SubFunctions::IDENTIFICATION];
    }
    Some(set)
}

/// Functions as a rule lists them: a group, a name, a number, or `"8/0"`, `"8/11-18"`, `"43/14"`.
pub(crate) fn parse_functions(text: &str) -> Option<Functions> {
    if let Some(group) = group(text) {
        return Some(group);
    }
    match text.split_once('/') {
        Some((function, body)) => {
            Functions::part(parse_function(function)?, SubFunctions::parse(body)?)
        }
        None => parse_function(text).map(Functions::one),
    }
}

/// A function by its name in lower case with hyphens, or by its number from 1 to 127.
pub fn parse_function(text: &str) -> Option<FunctionCode> {
    let by_number = || text.parse().ok().filter(|code| (1..=127).contains(code));
    codes()
        .find(|function| function.name() == Some(text))
        .or_else(|| by_number().map(FunctionCode))
}

/// Every word that `function` accepts, for suggestions.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    GROUPS
        .into_iter()
        .chain(["any"])
        .chain(codes().filter_map(|function| function.name()))
}

fn codes() -> impl Iterator<Item = FunctionCode> {
    (1..=127).map(FunctionCode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_split_function_23() {
        let read = group("read").unwrap();
        let write = group("write").unwrap();
        assert!(read.contains(Slot::READ_OF_23) && !read.contains(Slot::WRITE_OF_23));
        assert!(write.contains(Slot::WRITE_OF_23) && !write.contains(Slot::READ_OF_23));
        let both = Functions::one(FunctionCode(23));
        assert!(both.contains(Slot::READ_OF_23) && both.contains(Slot::WRITE_OF_23));
        assert_eq!(read.to_string(), "1-4, 23 (read half)");
        assert_eq!(write.to_string(), "5-6, 15-16, 22, 23 (write half)");
        assert_eq!(both.to_string(), "23");
    }

    #[test]
    fn sub_functions_stand_apart() {
        let text = |list: &[&str]| {
            let mut set = Functions::default();
            for item in list {
                set.merge(parse_functions(item).unwrap());
            }
            set.to_string()
        };
        assert_eq!(text(&["8/0", "43/14"]), "8/0, 43/14");
        assert_eq!(text(&["8/2", "8/0-1", "7"]), "7, 8/0-2");
        assert_eq!(
            text(&["8/2", "diagnostics"]),
            "7, 11-12, 17, 8/0, 8/2, 8/11-18, 43/14"
        );
        assert_eq!(text(&["8/0", "8"]), "8");
        for wrong in ["3/0", "8/", "/0", "8/31", "read/0", "90/1"] {
            assert!(parse_functions(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_what_was_named_counts_as_named() {
        assert!(!group("write").unwrap().names(Slot::MASK_WRITE));
        assert!(!Functions::ANY.names(Slot::MASK_WRITE));
        assert!(Functions::one(FunctionCode(22)).names(Slot::MASK_WRITE));
    }

    #[test]
    fn names_and_numbers_read() {
        assert_eq!(
            parse_function("read-holding-registers"),
            Some(FunctionCode(3))
        );
        assert_eq!(parse_function("127"), Some(FunctionCode(127)));
        for text in ["0", "128", "-1", "256", "read", "", "Read-Coils"] {
            assert_eq!(parse_function(text), None, "{text}");
        }
    }
}
