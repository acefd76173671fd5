//! What a Modbus client may be answered, by the names of the product's table of answers.

use fieldlock_testkit::modbus;

pub const ILLEGAL_FUNCTION: u8 = 0x01;
pub const ILLEGAL_ADDRESS: u8 = 0x02;
pub const ILLEGAL_VALUE: u8 = 0x03;
pub const BUSY: u8 = 0x06;
pub const NO_PATH: u8 = 0x0A;
pub const NO_ANSWER: u8 = 0x0B;

/// The exception in an answer's PDU, if it is one.
pub fn exception(pdu: &[u8]) -> Option<u8> {
    match pdu {
        [function, code] if function & 0x80 != 0 => Some(*code),
        _ => None,
    }
}

/// Reads holding register `address` of unit 1: a request that every test policy allows.
pub fn read_one(address: u16) -> [u8; 5] {
    modbus::read(3, address, 1)
}

/// Asks and expects the registers, or fails with what came.
#[track_caller]
pub fn read_registers(client: &mut modbus::Client, start: u16, count: u16) -> Vec<u16> {
    let answer = client.request(1, &modbus::read(3, start, count)).unwrap();
    modbus::registers(&answer).unwrap_or_else(|| panic!("not registers: {answer:02x?}"))
}

/// Asks and expects this exception.
#[track_caller]
pub fn expect_exception(client: &mut modbus::Client, pdu: &[u8], code: u8) {
    let answer = client.request(1, pdu).unwrap();
    assert_eq!(
        answer,
        [pdu[0] | 0x80, code],
        "answer to {pdu:02x?}, expected exception {code:#04x}"
    );
}

/// Writes one holding register of unit 1 and expects the echo.
#[track_caller]
pub fn write_one(client: &mut modbus::Client, address: u16, value: u16) {
    let pdu = modbus::write_register(address, value);
    let answer = client.request(1, &pdu).unwrap();
    assert_eq!(answer, pdu, "answer to a write of {value} to {address}");
}
