//! Requests and answers in the words of the audit log.

use fieldlock_audit::{Address, Decoded, DecodedValue, Record, Table, Values};
use fieldlock_modbus::{self as modbus, Request, Write};
use fieldlock_policy::{Layout, NumberType, Placed};

/// Fills in what `request` asks, and as what the rule with this layout sees it.
pub fn describe(record: &mut Record, request: &Request<'_>, layout: Option<&Layout>) {
    record.decoded = layout.and_then(|layout| decoded(layout, &request.write()?));
    record.function = Some(request.function().0);
    let write = request.write();
    let read = request.read();
    if let Some(range) = write.as_ref().map(|w| w.range).or(read) {
        record.address = Some(address(range));
        record.quantity = Some(range.count);
    }
    if let (Some(_), Some(range)) = (&write, read) {
        record.read_address = Some(address(range));
    }
    record.values = match write {
        Some(write) => Some(values(&write.values)),
        // Sub-function, object, vendor's code: only the body tells them apart.
        None if read.is_none() => Some(Values::Opaque(request.pdu()[1..].into())),
        None => None,
    };
}

fn decoded(layout: &Layout, write: &Write<'_>) -> Option<Box<Decoded>> {
    let format = layout.format();
    let number = format.number();
    let of = |placed: Placed| match (placed.number, number) {
        (None, _) => DecodedValue::Part,
        (Some(number), NumberType::Float32) => DecodedValue::Float32(number.value() as f32),
        (Some(number), NumberType::Float64) => DecodedValue::Float64(number.value()),
        // At most 32 bits.
        (Some(number), _) => DecodedValue::Whole(number.value() as i64),
    };
    let values: Box<[DecodedValue]> = layout.written(write).map(of).collect();
    (!values.is_empty()).then(|| {
        Box::new(Decoded {
            number: number.name().into(),
            word_order: (format.registers() > 1).then(|| format.order().name().into()),
            values,
        })
    })
}

/// Fills in what a read of `range` asked.
pub fn describe_read(record: &mut Record, range: Option<modbus::Range>) {
    record.address = range.map(address);
    record.quantity = range.map(|range| range.count);
}

/// What the answer `pdu`, which fits its request, says of `range`.
pub fn answered(range: Option<modbus::Range>, pdu: &[u8]) -> Option<Values> {
    let Some(range) = range else {
        return pdu.get(1..).map(|body| Values::Opaque(body.into()));
    };
    // After function and byte count.
    let data = pdu.get(2..)?;
    Some(match range.table {
        modbus::Table::Coil | modbus::Table::DiscreteInput => Values::Coils {
            bits: data.into(),
            count: range.count,
        },
        modbus::Table::InputRegister | modbus::Table::HoldingRegister => {
            Values::Registers(data.into())
        }
    })
}

fn address(range: modbus::Range) -> Address {
    let table = match range.table {
        modbus::Table::Coil => Table::Coil,
        modbus::Table::DiscreteInput => Table::Discrete,
        modbus::Table::InputRegister => Table::Input,
        modbus::Table::HoldingRegister => Table::Holding,
    };
    Address {
        table,
        first: range.start,
        last: range.last(),
    }
}

fn values(values: &modbus::Values<'_>) -> Values {
    match *values {
        modbus::Values::Coil(on) => Values::Coil(on),
        modbus::Values::Register(value) => Values::Register(value),
        modbus::Values::Registers(bytes) => Values::Registers(bytes.into()),
        modbus::Values::Coils { bits, count } => Values::Coils {
            bits: bits.into(),
            count,
        },
        modbus::Values::Mask { and, or } => Values::Mask { and, or },
    }
}
