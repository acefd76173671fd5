//! Requests that show a difference.

use fieldlock_modbus::FunctionCode;

use crate::explain::described;
use crate::model::function::Slot;
use crate::model::number::WordOrder;
use crate::model::sample::Sample;

/// An element and the value that is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) address: u16,
    pub(super) value: u16,
}

/// The PDU is made when it is asked for, since most are never shown.
#[derive(Debug, Clone, Eq)]
pub(super) struct Request {
    slot: Slot,
    first: u16,
    /// One for each element; what is only read has any.
    values: Vec<u16>,
    /// The other half of function 23.
    partner: Option<Element>,
}

/// Differences are the same whichever request shows them, unless it is of another length or half.
impl Request {
    fn key(&self) -> (u16, &[u16], Option<Element>) {
        (self.first, &self.values, self.partner)
    }
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Ord for Request {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Request {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Request {
    pub(super) fn new(slot: Slot, first: u16, values: Vec<u16>, partner: Option<Element>) -> Self {
        Self {
            slot,
            first,
            values,
            partner,
        }
    }

    /// A request without addresses; of functions 8 and 43 the part `body`.
    pub(super) fn opaque(slot: Slot, body: u16) -> Self {
        Self::new(slot, body, vec![0], None)
    }

    pub(super) fn words(&self) -> String {
        let pdu = self.pdu();
        match fieldlock_modbus::Request::parse(&pdu) {
            Ok(request) => described(&request),
            Err(_) => self.slot.to_string(),
        }
    }

    pub(super) fn pdu(&self) -> Vec<u8> {
        let function = self.slot.function();
        let quantity = self.values.len() as u16;
        let value = self.values.first().copied().unwrap_or(0);
        match (self.slot, function) {
            (Slot::READ_OF_23, _) => {
                let Element { address, value } = self.partner.unwrap_or(Element {
                    address: 0,
                    value: 0,
                });
                read_write(self.first, quantity, address, &[value])
            }
            (Slot::WRITE_OF_23, _) => {
                let read = self.partner.map_or(0, |element| element.address);
                read_write(read, 1, self.first, &self.values)
            }
            (_, FunctionCode::WRITE_MULTIPLE_COILS) => self.write_coils(),
            (_, FunctionCode::WRITE_MULTIPLE_REGISTERS) => {
                let mut pdu = vec![function.0];
                write_part(&mut pdu, self.first, &self.values);
                pdu
            }
            (_, FunctionCode::DIAGNOSTICS) => {
                let [high, low] = self.first.to_be_bytes();
                vec![8, high, low, 0, 0]
            }
            (_, FunctionCode::ENCAPSULATED_INTERFACE) => match self.first {
                14 => vec![43, 14, 1, 0],
                mei => vec![43, mei as u8],
            },
            _ => Sample {
                function,
                start: self.first,
                quantity,
                value: value.into(),
                order: WordOrder::Big,
            }
            .pdu(),
        }
    }

    fn write_coils(&self) -> Vec<u8> {
        let mut pdu = vec![15];
        pdu.extend(self.first.to_be_bytes());
        pdu.extend((self.values.len() as u16).to_be_bytes());
        pdu.push(self.values.len().div_ceil(8) as u8);
        pdu.extend(self.values.chunks(8).map(|eight| {
            let bits = eight.iter().zip(0..);
            bits.fold(0, |byte, (value, bit)| byte | u8::from(*value != 0) << bit)
        }));
        pdu
    }
}

pub(super) fn read_write(read: u16, quantity: u16, write: u16, values: &[u16]) -> Vec<u8> {
    let mut pdu = vec![23];
    pdu.extend(read.to_be_bytes());
    pdu.extend(quantity.to_be_bytes());
    write_part(&mut pdu, write, values);
    pdu
}

fn write_part(pdu: &mut Vec<u8>, first: u16, values: &[u16]) {
    pdu.extend(first.to_be_bytes());
    pdu.extend((values.len() as u16).to_be_bytes());
    pdu.push((values.len() * 2) as u8);
    values
        .iter()
        .for_each(|value| pdu.extend(value.to_be_bytes()));
}
