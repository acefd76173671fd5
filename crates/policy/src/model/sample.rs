//! Requests made up to ask a policy about: `policy explain` without a captured PDU, and the tests
//! in a policy file.

use fieldlock_modbus::{FunctionCode, Request, Table};

use crate::model::address::{Span, table_name};
use crate::model::function::Slot;
use crate::model::number::{Format, Number, NumberType, WordOrder};

/// The parts of a request that matter to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub function: FunctionCode,
    /// 0-based; for function 23 both halves begin here.
    pub start: u16,
    pub quantity: u16,
    /// Written to every element, or as often as it fits where it takes several registers; for coils
    /// anything but 0 is on.
    pub value: Number,
    pub order: WordOrder,
}

/// What does not fit together of a function, an address and a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    #[error("{function} needs an address, such as \"{example} 0\"")]
    NoAddress {
        function: FunctionCode,
        example: &'static str,
    },
    #[error("{function} has no address in table {table}, but \"{example} ...\"")]
    Table {
        function: FunctionCode,
        table: &'static str,
        example: &'static str,
    },
    #[error("the address is a range already: leave the quantity out")]
    Quantity,
    #[error("{0} has one element: the address is no range, and there is no quantity")]
    OneElement(FunctionCode),
    #[error("{function} writes one register, and a {number} takes {}", .number.registers())]
    Wide {
        function: FunctionCode,
        number: NumberType,
    },
    #[error("{quantity} registers are not whole values: a {number} takes {}", .number.registers())]
    Part { quantity: u16, number: NumberType },
}

impl Sample {
    /// A request as people put it: an address or a range where the function has one.
    pub fn new(
        function: FunctionCode,
        address: Option<Span>,
        quantity: Option<u16>,
        (value, order): (Number, WordOrder),
    ) -> Result<Self, SampleError> {
        let number = value.number();
        let writes_registers = Slot::of(function).writes_registers() || function.0 == 23;
        let size = match writes_registers {
            true => number.registers(),
            false => 1,
        };
        let (start, quantity) = match (table(function), address) {
            (Some(table), None) => {
                let example = table_name(table);
                return Err(SampleError::NoAddress { function, example });
            }
            (Some(table), Some(span)) if span.table != table => {
                return Err(SampleError::Table {
                    function,
                    table: table_name(span.table),
                    example: table_name(table),
                });
            }
            (_, Some(span)) => match (quantity, span.last - span.first) {
                (Some(quantity), 0) => (span.first, quantity),
                (None, 0) => (span.first, size),
                (Some(_), _) => return Err(SampleError::Quantity),
                // The whole table is more than any request may ask for; the parser says so.
                (None, more) => (span.first, more.saturating_add(1)),
            },
            (None, None) => (0, 1),
        };
        if size > 1 && matches!(function.0, 6 | 22) {
            return Err(SampleError::Wide { function, number });
        }
        if !quantity.is_multiple_of(size) {
            return Err(SampleError::Part { quantity, number });
        }
        if quantity != 1 && matches!(function.0, 5 | 6 | 22) {
            return Err(SampleError::OneElement(function));
        }
        Ok(Self {
            function,
            start,
            quantity,
            value,
            order,
        })
    }

    /// The PDU, valid if the quantity is within the function's limits. Functions without
    /// addresses get their most harmless form: echo, device identification, one record.
    pub fn pdu(&self) -> Vec<u8> {
        let mut pdu = vec![self.function.0];
        let coil = if self.is_off() { 0 } else { 0xFF00 };
        let value = self.words().next().unwrap_or(0);
        match self.function.0 {
            1..=4 => words(&mut pdu, &[self.start, self.quantity]),
            5 => words(&mut pdu, &[self.start, coil]),
            6 => words(&mut pdu, &[self.start, value]),
            8 => words(&mut pdu, &[0, value]),
            15 => {
                words(&mut pdu, &[self.start, self.quantity]);
                self.coils(&mut pdu);
            }
            16 => {
                words(&mut pdu, &[self.start, self.quantity]);
                self.registers(&mut pdu);
            }
            20 => pdu.extend([7, 6, 0, 1, 0, 0, 0, 1]),
            21 => pdu.extend([9, 6, 0, 1, 0, 0, 0, 1, 0, 0]),
            // Sets the register to the value, whatever it holds.
            22 => words(&mut pdu, &[self.start, 0, value]),
            23 => {
                words(
                    &mut pdu,
                    &[self.start, self.quantity, self.start, self.quantity],
                );
                self.registers(&mut pdu);
            }
            24 => words(&mut pdu, &[self.start]),
            43 => pdu.extend([14, 1, 0]),
            _ => {}
        }
        pdu
    }

    fn is_off(&self) -> bool {
        self.value.value() == 0.0
    }

    /// The registers of the value, over and over.
    fn words(&self) -> impl Iterator<Item = u16> + use<> {
        let (number, order) = (self.value.number(), self.order);
        let words: Vec<u16> = Format { number, order }.write(self.value).collect();
        words.into_iter().cycle()
    }

    fn registers(&self, pdu: &mut Vec<u8>) {
        // Too large a quantity wraps here and is refused by the parser like any other.
        pdu.push((u32::from(self.quantity) * 2 % 256) as u8);
        for word in self.words().take(self.quantity.into()) {
            words(pdu, &[word]);
        }
    }

    fn coils(&self, pdu: &mut Vec<u8>) {
        let bytes = self.quantity.div_ceil(8);
        pdu.push((bytes % 256) as u8);
        let on = if self.is_off() { 0 } else { u8::MAX };
        pdu.extend((1..=bytes).map(|byte| {
            match byte == bytes && !self.quantity.is_multiple_of(8) {
                true => on & ((1 << (self.quantity % 8)) - 1),
                false => on,
            }
        }));
    }
}

/// The table that a function's addresses are in.
fn table(function: FunctionCode) -> Option<Table> {
    let sample = Sample {
        function,
        start: 0,
        quantity: 1,
        value: Number::from(0),
        order: WordOrder::Big,
    };
    let pdu = sample.pdu();
    let request = Request::parse(&pdu).ok()?;
    let written = request.write().map(|write| write.range.table);
    request.read().map(|range| range.table).or(written)
}

fn words(pdu: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|word| pdu.extend(word.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_valid_sample() {
        for code in 1..=127 {
            for quantity in [1, 9, 16] {
                let pdu = Sample {
                    function: FunctionCode(code),
                    start: 40,
                    quantity,
                    value: Number::from(1),
                    order: WordOrder::Big,
                }
                .pdu();
                assert!(Request::parse(&pdu).is_ok(), "{code} {quantity} {pdu:02x?}");
            }
        }
    }

    #[test]
    fn a_quantity_beyond_the_limits_is_refused_by_the_parser() {
        for function in [3, 15, 16, 23].map(FunctionCode) {
            for quantity in [0, 2_001, 32_768, 65_535] {
                let pdu = Sample {
                    function,
                    start: 0,
                    quantity,
                    value: Number::from(0),
                    order: WordOrder::Big,
                }
                .pdu();
                assert!(Request::parse(&pdu).is_err(), "{function} {quantity}");
            }
        }
    }
}
