//! The edges of every function's request.

use super::*;
use crate::exception::Exception::{IllegalDataAddress, IllegalDataValue, IllegalFunction};

fn accepted(pdu: &[u8]) -> Request<'_> {
    Request::parse(pdu).unwrap_or_else(|malformed| panic!("{malformed}: {pdu:02x?}"))
}

#[track_caller]
fn refused(pdu: &[u8], exception: Exception) {
    match Request::parse(pdu) {
        Err(malformed) => assert_eq!(malformed.exception, exception, "{malformed}: {pdu:02x?}"),
        Ok(_) => panic!("accepted {pdu:02x?}"),
    }
}

/// Function, then words.
fn words(function: u8, words: &[u16]) -> Vec<u8> {
    let mut pdu = vec![function];
    pdu.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    pdu
}

/// Function 15 or 16 with a byte count and so many bytes of data.
fn write(function: u8, start: u16, count: u16, bytes: u8, data: usize) -> Vec<u8> {
    let mut pdu = words(function, &[start, count]);
    pdu.push(bytes);
    pdu.resize(6 + data, 0xA5);
    pdu
}

fn read_write(read: [u16; 2], write: [u16; 2], bytes: u8, data: usize) -> Vec<u8> {
    let mut pdu = words(23, &[read[0], read[1], write[0], write[1]]);
    pdu.push(bytes);
    pdu.resize(10 + data, 0x5A);
    pdu
}

/// Function 20 or 21: a byte count that fits, then the groups as they are.
fn file(function: u8, groups: &[&[u8]]) -> Vec<u8> {
    let groups = groups.concat();
    [&[function, groups.len() as u8], &groups[..]].concat()
}

fn group(reference: u8, file: u16, record: u16, count: u16) -> Vec<u8> {
    words(reference, &[file, record, count])
}

fn group_with_data(file: u16, record: u16, count: u16) -> Vec<u8> {
    let mut bytes = group(6, file, record, count);
    bytes.resize(7 + 2 * usize::from(count), 0x11);
    bytes
}

#[test]
fn function_codes_outside_1_to_127() {
    refused(&[], IllegalFunction);
    refused(&[0], IllegalFunction);
    refused(&[0, 0, 0, 0, 1], IllegalFunction);
    for function in 128..=255 {
        refused(&words(function, &[0, 1]), IllegalFunction);
    }
}

#[test]
fn reads_by_quantity_and_address() {
    for (function, max, table) in [
        (1, 2000, Table::Coil),
        (2, 2000, Table::DiscreteInput),
        (3, 125, Table::HoldingRegister),
        (4, 125, Table::InputRegister),
    ] {
        for count in [1, 2, max] {
            let pdu = words(function, &[7, count]);
            let request = accepted(&pdu);
            let start = 7;
            assert_eq!(
                request.read(),
                Some(Range {
                    table,
                    start,
                    count
                })
            );
            assert_eq!(request.write(), None);
            assert!(!request.changes_state());
        }
        for count in [0, max + 1, 0x8001, 0xFFFF] {
            refused(&words(function, &[0, count]), IllegalDataValue);
        }
        accepted(&words(function, &[0xFFFF, 1]));
        accepted(&words(function, &[0xFFFF - max + 1, max]));
        refused(&words(function, &[0xFFFF, 2]), IllegalDataAddress);
        refused(
            &words(function, &[0xFFFF - max + 2, max]),
            IllegalDataAddress,
        );
        // The quantity is judged before the range.
        refused(&words(function, &[0xFFFF, max + 1]), IllegalDataValue);
    }
}

#[test]
fn lengths_of_fixed_requests() {
    for (pdu, len) in [
        (words(1, &[0, 1]), 5),
        (words(2, &[0, 1]), 5),
        (words(3, &[0, 1]), 5),
        (words(4, &[0, 1]), 5),
        (words(5, &[0, 0xFF00]), 5),
        (words(6, &[0, 1]), 5),
        (vec![7], 1),
        (words(8, &[1, 0]), 5),
        (vec![11], 1),
        (vec![12], 1),
        (vec![17], 1),
        (words(22, &[0, 1, 2]), 7),
        (words(24, &[0]), 3),
        (vec![43, 14, 1, 0], 4),
    ] {
        assert_eq!(pdu.len(), len);
        accepted(&pdu);
        for cut in 1..len {
            refused(&pdu[..cut], IllegalDataValue);
        }
        refused(&[&pdu[..], &[0]].concat(), IllegalDataValue);
    }
}

#[test]
fn single_coil_values() {
    for (value, on) in [(0x0000, false), (0xFF00, true)] {
        let pdu = words(5, &[0xFFFF, value]);
        let write = accepted(&pdu).write().unwrap();
        assert_eq!((write.range.start, write.range.count), (0xFFFF, 1));
        assert_eq!(write.range.end(), 0x1_0000);
        assert_eq!(write.range.last(), 0xFFFF);
        assert_eq!(write.values, Values::Coil(on));
        assert_eq!(write.values.iter().collect::<Vec<_>>(), [u16::from(on)]);
    }
    for value in [0x0001, 0x00FF, 0x1234, 0xFF01, 0xFFFF, 0x0100] {
        refused(&words(5, &[0, value]), IllegalDataValue);
    }
}

#[test]
fn single_register_takes_any_value() {
    for value in [0, 1, 0xFF00, 0xFFFF] {
        let pdu = words(6, &[40, value]);
        let request = accepted(&pdu);
        let write = request.write().unwrap();
        assert_eq!(write.range.table, Table::HoldingRegister);
        assert_eq!(write.values.iter().collect::<Vec<_>>(), [value]);
        assert_eq!(request.read(), None);
        assert!(request.changes_state());
    }
}

#[test]
fn multiple_coils() {
    for (count, bytes) in [(1, 1), (8, 1), (9, 2), (1967, 246), (1968, 246)] {
        accepted(&write(15, 0, count, bytes, usize::from(bytes)));
        refused(
            &write(15, 0, count, bytes - 1, usize::from(bytes)),
            IllegalDataValue,
        );
        refused(
            &write(15, 0, count, bytes + 1, usize::from(bytes)),
            IllegalDataValue,
        );
        refused(
            &write(15, 0, count, bytes, usize::from(bytes) - 1),
            IllegalDataValue,
        );
        refused(
            &write(15, 0, count, bytes, usize::from(bytes) + 1),
            IllegalDataValue,
        );
    }
    refused(&write(15, 0, 0, 0, 0), IllegalDataValue);
    refused(&write(15, 0, 1969, 247, 247), IllegalDataValue);
    refused(&write(15, 0, 2048, 0, 0), IllegalDataValue);
    accepted(&write(15, 0xFFF8, 8, 1, 1));
    refused(&write(15, 0xFFF8, 9, 2, 2), IllegalDataAddress);
}

#[test]
fn coils_come_lowest_bit_first() {
    // The specification's example, section 6.11.
    let pdu = [15, 0, 0x13, 0, 0x0A, 2, 0xCD, 0x01];
    let write = accepted(&pdu).write().unwrap();
    assert_eq!(
        (write.range.table, write.range.start, write.range.count),
        (Table::Coil, 0x13, 10)
    );
    assert_eq!(
        write.values.iter().collect::<Vec<_>>(),
        [1, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    );
}

#[test]
fn multiple_registers() {
    for count in [1u8, 2, 122, 123] {
        let (words, bytes) = (u16::from(count), 2 * count);
        let pdu = write(16, 9, words, bytes, usize::from(bytes));
        let write_half = accepted(&pdu).write().unwrap();
        assert_eq!((write_half.range.start, write_half.range.count), (9, words));
        assert_eq!(write_half.values.iter().count(), usize::from(count));
        assert!(write_half.values.iter().all(|value| value == 0xA5A5));
        for (stated, data) in [
            (bytes - 1, bytes),
            (bytes + 1, bytes),
            (bytes, bytes - 1),
            (bytes, bytes + 1),
        ] {
            refused(
                &write(16, 9, words, stated, usize::from(data)),
                IllegalDataValue,
            );
        }
    }
    refused(&write(16, 0, 0, 0, 0), IllegalDataValue);
    refused(&write(16, 0, 124, 248, 247), IllegalDataValue);
    // Twice the quantity taken modulo 256.
    refused(&write(16, 0, 129, 2, 2), IllegalDataValue);
    accepted(&write(16, 0xFFFE, 2, 4, 4));
    refused(&write(16, 0xFFFF, 2, 4, 4), IllegalDataAddress);
    for cut in 1..=6 {
        refused(&write(16, 0, 1, 2, 2)[..cut], IllegalDataValue);
    }
}

#[test]
fn mask_write_has_a_range_and_no_values() {
    let pdu = words(22, &[4, 0x00F2, 0x0025]);
    let request = accepted(&pdu);
    let write = request.write().unwrap();
    assert_eq!((write.range.start, write.range.count), (4, 1));
    assert_eq!(
        write.values,
        Values::Mask {
            and: 0xF2,
            or: 0x25
        }
    );
    assert_eq!(write.values.iter().count(), 0);
    assert!(request.changes_state());
}

#[test]
fn read_write_has_two_ranges() {
    let pdu = read_write([3, 6], [14, 3], 6, 6);
    let request = accepted(&pdu);
    let read = request.read().unwrap();
    assert_eq!((read.start, read.count), (3, 6));
    let write = request.write().unwrap();
    assert_eq!((write.range.start, write.range.count), (14, 3));
    assert_eq!(write.values.iter().collect::<Vec<_>>(), [0x5A5A; 3]);
    assert!(request.changes_state());

    accepted(&read_write([0, 125], [0, 121], 242, 242));
    refused(&read_write([0, 126], [0, 1], 2, 2), IllegalDataValue);
    refused(&read_write([0, 0], [0, 1], 2, 2), IllegalDataValue);
    refused(&read_write([0, 1], [0, 0], 0, 0), IllegalDataValue);
    refused(&read_write([0, 1], [0, 122], 244, 243), IllegalDataValue);
    refused(&read_write([0xFFFF, 2], [0, 1], 2, 2), IllegalDataAddress);
    refused(&read_write([0, 1], [0xFFFF, 2], 4, 4), IllegalDataAddress);
    refused(&read_write([0, 1], [0, 2], 3, 3), IllegalDataValue);
    refused(&read_write([0, 1], [0, 2], 4, 5), IllegalDataValue);
    for cut in 1..=11 {
        refused(&read_write([0, 1], [0, 1], 2, 2)[..cut], IllegalDataValue);
    }
}

#[test]
fn diagnostics_by_sub_function() {
    let pure = |sub: u16| matches!(sub, 0 | 2 | 11..=18);
    for sub in (0..=22).chain([0x1234, 0xFFFF]) {
        let pdu = words(8, &[sub, 0]);
        let request = accepted(&pdu);
        assert_eq!(request.sub_function(), Some(sub));
        assert_eq!(request.changes_state(), !pure(sub), "{sub}");
    }
    for echo in [
        &words(8, &[0])[..],
        &[8, 0, 0, 1],
        &words(8, &[0; 100]),
        &[&[8, 0, 0][..], &[7; 250]].concat(),
    ] {
        assert!(!accepted(echo).changes_state());
    }
    refused(&[8], IllegalDataValue);
    refused(&[8, 0], IllegalDataValue);
    refused(&words(8, &[4]), IllegalDataValue);
    refused(&words(8, &[4, 0, 0]), IllegalDataValue);
}

#[test]
fn file_reads() {
    accepted(&file(20, &[&group(6, 1, 0, 1)]));
    accepted(&file(20, &[&group(6, 0xFFFF, 9999, 1)]));
    // The specification's example, section 6.14.
    let request = file(20, &[&group(6, 4, 1, 2), &group(6, 3, 9, 2)]);
    assert!(!accepted(&request).changes_state());
    // 35 sub-requests are the most; their answer has 35 * (2 + 2) bytes.
    accepted(&file(20, &vec![&group(6, 1, 0, 1)[..]; 35]));
    refused(
        &file(20, &vec![&group(6, 1, 0, 1)[..]; 36]),
        IllegalDataValue,
    );

    refused(&file(20, &[&group(5, 1, 0, 1)]), IllegalDataAddress);
    refused(&file(20, &[&group(6, 0, 0, 1)]), IllegalDataAddress);
    refused(&file(20, &[&group(6, 1, 10_000, 1)]), IllegalDataAddress);
    refused(&file(20, &[&group(6, 1, 9999, 2)]), IllegalDataAddress);
    refused(&file(20, &[&group(6, 1, 0, 0)]), IllegalDataValue);

    accepted(&file(20, &[&group(6, 1, 0, 124)]));
    refused(&file(20, &[&group(6, 1, 0, 125)]), IllegalDataValue);
    refused(&file(20, &[&group(6, 1, 0, 0xFFFF)]), IllegalDataAddress);
    accepted(&file(20, &[&group(6, 1, 0, 62), &group(6, 1, 0, 61)]));
    refused(
        &file(20, &[&group(6, 1, 0, 62), &group(6, 1, 0, 62)]),
        IllegalDataValue,
    );
}

#[test]
fn file_read_byte_counts() {
    let whole = file(20, &[&group(6, 1, 0, 1), &group(6, 1, 0, 1)]);
    for cut in 1..whole.len() {
        refused(&whole[..cut], IllegalDataValue);
    }
    // A byte count that fits the PDU and no number of whole groups.
    for bytes in (0..14).filter(|bytes| bytes % 7 != 0) {
        let mut fitting = whole[..2 + bytes].to_vec();
        fitting[1] = bytes as u8;
        refused(&fitting, IllegalDataValue);
    }
    refused(&[&whole[..], &[0]].concat(), IllegalDataValue);
    refused(&[20, 0], IllegalDataValue);
}

#[test]
fn file_writes() {
    let request = file(21, &[&group_with_data(4, 7, 3)]);
    assert!(accepted(&request).changes_state());
    assert_eq!(accepted(&request).write(), None);
    accepted(&file(
        21,
        &[&group_with_data(1, 0, 1), &group_with_data(2, 9999, 1)],
    ));
    // 251 bytes: one group with 122 records.
    accepted(&file(21, &[&group_with_data(1, 0, 122)]));

    refused(&file(21, &[&group(6, 1, 0, 0), &[0, 0]]), IllegalDataValue);
    refused(
        &file(21, &[&group(6, 1, 0, 2), &[0, 0, 0]]),
        IllegalDataValue,
    );
    refused(
        &file(21, &[&group(6, 1, 0, 1), &[0, 0, 0]]),
        IllegalDataValue,
    );
    refused(
        &file(21, &[&group(7, 1, 0, 1), &[0, 0]]),
        IllegalDataAddress,
    );
    refused(
        &file(21, &[&group(6, 0, 0, 1), &[0, 0]]),
        IllegalDataAddress,
    );
    refused(
        &file(21, &[&group_with_data(1, 9999, 2)]),
        IllegalDataAddress,
    );
    let whole = file(21, &[&group_with_data(1, 0, 2), &group_with_data(1, 5, 1)]);
    for cut in 1..whole.len() {
        refused(&whole[..cut], IllegalDataValue);
    }
    refused(&[&whole[..], &[0]].concat(), IllegalDataValue);
}

#[test]
fn fifo_reads_are_pure() {
    let pdu = words(24, &[0x04DE]);
    let request = accepted(&pdu);
    assert!(!request.changes_state());
    assert_eq!((request.read(), request.write()), (None, None));
}

#[test]
fn device_identification_codes() {
    for code in 1..=4 {
        let pdu = [43, 14, code, 0xFF];
        let request = accepted(&pdu);
        assert_eq!(request.sub_function(), Some(14));
        assert!(!request.changes_state());
    }
    for code in [0, 5, 255] {
        refused(&[43, 14, code, 0], IllegalDataValue);
    }
}

#[test]
fn other_mei_types_are_opaque_and_change_state() {
    for pdu in [&[43, 13][..], &[43, 13, 1, 2, 3], &[43, 0], &[43, 255, 1]] {
        let request = accepted(pdu);
        assert_eq!(request.sub_function(), Some(u16::from(pdu[1])));
        assert!(request.changes_state());
    }
    refused(&[43], IllegalDataValue);
}

#[test]
fn codes_of_unknown_meaning_are_opaque_and_change_state() {
    let known = [
        1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 17, 20, 21, 22, 23, 24, 43,
    ];
    for function in (1..=127).filter(|function| !known.contains(function)) {
        let long = [&[function][..], &[0xEE; 252]].concat();
        for len in [1, 2, 5, 253] {
            let request = accepted(&long[..len]);
            assert!(request.changes_state());
            assert_eq!(request.function(), FunctionCode(function));
            assert_eq!(request.pdu(), &long[..len]);
            assert_eq!((request.read(), request.write()), (None, None));
            assert_eq!(request.sub_function(), None);
        }
        refused(&[&long[..], &[0]].concat(), IllegalDataValue);
    }
}

#[test]
fn malformed_says_function_and_flaw() {
    let malformed = Request::parse(&[3, 0, 0, 0, 126]).unwrap_err();
    assert_eq!(
        malformed.to_string(),
        "function 3 (0x03) read-holding-registers: quantity outside 1 to 125"
    );
}
