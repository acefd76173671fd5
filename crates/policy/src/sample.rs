//! Requests made up to ask a policy about: `policy explain` without a captured PDU.

use fieldlock_modbus::FunctionCode;

/// The parts of a request that matter to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub function: FunctionCode,
    /// 0-based; for function 23 both halves begin here.
    pub start: u16,
    pub quantity: u16,
    /// Written to every element; for coils anything but 0 is on.
    pub value: u16,
}

impl Sample {
    /// The PDU, valid if the quantity is within the function's limits. Functions without
    /// addresses get their most harmless form: echo, device identification, one record.
    pub fn pdu(&self) -> Vec<u8> {
        let mut pdu = vec![self.function.0];
        let coil = if self.value == 0 { 0 } else { 0xFF00 };
        match self.function.0 {
            1..=4 => words(&mut pdu, &[self.start, self.quantity]),
            5 => words(&mut pdu, &[self.start, coil]),
            6 => words(&mut pdu, &[self.start, self.value]),
            8 => words(&mut pdu, &[0, self.value]),
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
            22 => words(&mut pdu, &[self.start, 0, self.value]),
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

    fn registers(&self, pdu: &mut Vec<u8>) {
        // Too large a quantity wraps here and is refused by the parser like any other.
        pdu.push((u32::from(self.quantity) * 2 % 256) as u8);
        for _ in 0..self.quantity {
            words(pdu, &[self.value]);
        }
    }

    fn coils(&self, pdu: &mut Vec<u8>) {
        let bytes = self.quantity.div_ceil(8);
        pdu.push((bytes % 256) as u8);
        let on = if self.value == 0 { 0 } else { u8::MAX };
        pdu.extend((1..=bytes).map(|byte| {
            match byte == bytes && !self.quantity.is_multiple_of(8) {
                true => on & ((1 << (self.quantity % 8)) - 1),
                false => on,
            }
        }));
    }
}

fn words(pdu: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|word| pdu.extend(word.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldlock_modbus::Request;

    #[test]
    fn every_function_has_a_valid_sample() {
        for code in 1..=127 {
            for quantity in [1, 9, 16] {
                let pdu = Sample {
                    function: FunctionCode(code),
                    start: 40,
                    quantity,
                    value: 1,
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
                    value: 0,
                }
                .pdu();
                assert!(Request::parse(&pdu).is_err(), "{function} {quantity}");
            }
        }
    }
}
