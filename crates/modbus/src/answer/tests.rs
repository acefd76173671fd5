//! One request after the other, with answers that fit and answers that nearly do.

use super::*;

#[track_caller]
fn expected(request: &[u8]) -> Expected {
    Expected::of(&Request::parse(request).unwrap())
}

/// Each answer fits its request, and no answer cut short or with a byte more does.
#[track_caller]
fn only(request: &[u8], answer: &[u8]) {
    let expected = expected(request);
    assert_eq!(
        expected.check(answer),
        Ok(Answer::Normal),
        "{request:02x?} {answer:02x?}"
    );
    for cut in 0..answer.len() {
        assert!(
            expected.check(&answer[..cut]).is_err(),
            "{request:02x?} {answer:02x?} cut at {cut}"
        );
    }
    let longer = [answer, &[0]].concat();
    assert!(
        expected.check(&longer).is_err(),
        "{request:02x?} {longer:02x?}"
    );
}

#[test]
fn reads_answer_with_their_byte_count() {
    only(&[1, 0, 0, 0, 1], &[1, 1, 0xFF]);
    only(&[1, 0, 0, 0, 8], &[1, 1, 0xFF]);
    only(&[2, 0, 0, 0, 9], &[2, 2, 0xFF, 1]);
    only(&[1, 0, 0, 0x07, 0xD0], &[&[1, 250][..], &[0; 250]].concat());
    only(&[3, 0, 0, 0, 1], &[3, 2, 0, 0]);
    only(&[4, 0, 0, 0, 125], &[&[4, 250][..], &[0; 250]].concat());
    only(&[23, 0, 0, 0, 2, 0, 9, 0, 1, 2, 7, 7], &[23, 4, 1, 2, 3, 4]);
}

#[test]
fn a_read_of_another_quantity_is_noticed() {
    let expected = expected(&[3, 0, 0, 0, 2]);
    assert_eq!(
        expected.check(&[3, 2, 0, 0]),
        Err(Mismatch::ByteCount {
            got: 2,
            expected: 4
        })
    );
    assert_eq!(
        expected.check(&[3, 4, 0, 0]),
        Err(Mismatch::Length {
            got: 4,
            expected: 6
        })
    );
}

#[test]
fn writes_echo() {
    only(&[5, 0, 1, 0xFF, 0], &[5, 0, 1, 0xFF, 0]);
    only(&[6, 0, 1, 2, 3], &[6, 0, 1, 2, 3]);
    only(&[15, 0, 1, 0, 9, 2, 0xFF, 1], &[15, 0, 1, 0, 9]);
    only(&[16, 0, 1, 0, 1, 2, 7, 8], &[16, 0, 1, 0, 1]);
    only(&[22, 0, 1, 2, 3, 4, 5], &[22, 0, 1, 2, 3, 4, 5]);
    let file = [21, 9, 6, 0, 4, 0, 7, 0, 1, 0xAB, 0xCD];
    only(&file, &file);
}

#[test]
fn an_echo_with_one_bit_changed_is_noticed() {
    for request in [
        &[5, 0, 1, 0xFF, 0][..],
        &[6, 0, 1, 2, 3],
        &[22, 0, 1, 2, 3, 4, 5],
        &[21, 9, 6, 0, 4, 0, 7, 0, 1, 0xAB, 0xCD],
        &[8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        &[8, 0, 4, 0, 0],
    ] {
        for bit in 8..8 * request.len() {
            let mut answer = request.to_vec();
            answer[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                expected(request).check(&answer),
                Err(Mismatch::Echo),
                "{answer:02x?}"
            );
        }
    }
}

#[test]
fn serial_line_functions() {
    only(&[7], &[7, 0x6D]);
    only(&[11], &[11, 0xFF, 0xFF, 1, 8]);
    only(&[12], &[12, 8, 0, 0, 1, 8, 1, 0x21, 0x20, 0]);
    only(&[12], &[12, 6, 0, 0, 0, 0, 0, 0]);
    only(&[17], &[17, 0]);
    only(&[17], &[17, 3, 9, 9, 0xFF]);
    assert_eq!(
        expected(&[12]).check(&[12, 5, 0, 0, 0, 0, 0]),
        Err(Mismatch::ByteCountBounds {
            got: 5,
            min: 6,
            max: 70
        })
    );
}

#[test]
fn diagnostics() {
    only(&[8, 0, 0, 0xA5, 0x37], &[8, 0, 0, 0xA5, 0x37]);
    only(&[8, 0, 0], &[8, 0, 0]);
    only(&[8, 0, 10, 0, 0], &[8, 0, 10, 0, 0]);
    only(&[8, 0, 11, 0, 0], &[8, 0, 11, 0x12, 0x34]);
    let counter = expected(&[8, 0, 11, 0, 0]);
    assert_eq!(
        counter.check(&[8, 0, 12, 0, 0]),
        Err(Mismatch::SubFunction {
            got: 12,
            expected: 11
        })
    );
    // Reserved: only the sub-function must come back.
    let reserved = expected(&[8, 0, 21, 0, 3]);
    assert_eq!(reserved.check(&[8, 0, 21]), Ok(Answer::Normal));
    assert_eq!(reserved.check(&[8, 0, 21, 1, 2, 3, 4]), Ok(Answer::Normal));
    assert!(reserved.check(&[8, 0]).is_err());
    assert!(reserved.check(&[8, 0, 22, 0, 3]).is_err());
}

#[test]
fn file_records() {
    // The specification's example, section 6.14.
    let request = [20, 14, 6, 0, 4, 0, 1, 0, 2, 6, 0, 3, 0, 9, 0, 2];
    let answer = [20, 12, 5, 6, 0x0D, 0xFE, 0, 0x20, 5, 6, 0x33, 0xCD, 0, 0x40];
    only(&request, &answer);
    let one_group = [20, 6, 5, 6, 1, 2, 3, 4];
    assert_eq!(
        expected(&request).check(&one_group),
        Err(Mismatch::FileGroups {
            got: 1,
            expected: 2
        })
    );
    for bad in [
        [20, 6, 5, 7, 1, 2, 3, 4],
        [20, 6, 4, 6, 1, 2, 3, 4],
        [20, 6, 7, 6, 1, 2, 3, 4],
        [20, 6, 0, 6, 1, 2, 3, 4],
    ] {
        assert_eq!(
            expected(&request).check(&bad),
            Err(Mismatch::FileGroup { group: 0 }),
            "{bad:?}"
        );
    }
}

#[test]
fn fifo() {
    only(&[24, 0, 0], &[24, 0, 2, 0, 0]);
    only(&[24, 0, 0], &[24, 0, 6, 0, 2, 1, 2, 3, 4]);
    let full = [&[24, 0, 64, 0, 31][..], &[0; 62]].concat();
    only(&[24, 0, 0], &full);
    let over = [&[24, 0, 66, 0, 32][..], &[0; 64]].concat();
    assert_eq!(
        expected(&[24, 0, 0]).check(&over),
        Err(Mismatch::FifoCount { got: 32 })
    );
    assert_eq!(
        expected(&[24, 0, 0]).check(&[24, 0, 4, 0, 2, 1, 2, 3, 4]),
        Err(Mismatch::ByteCount {
            got: 4,
            expected: 6
        })
    );
}

#[test]
fn device_identification() {
    let request = [43, 14, 1, 0];
    only(&request, &[43, 14, 1, 1, 0, 0, 0]);
    only(
        &request,
        &[43, 14, 1, 1, 0xFF, 2, 2, 0, 3, b'a', b'b', b'c', 1, 0],
    );
    assert_eq!(
        expected(&request).check(&[43, 14, 2, 1, 0, 0, 0]),
        Err(Mismatch::SubFunction {
            got: 2,
            expected: 1
        })
    );
    assert_eq!(
        expected(&request).check(&[43, 14, 1, 1, 0, 0, 2, 0, 1, b'a', 1, 9, b'b']),
        Err(Mismatch::IdentificationObject { object: 1 })
    );
    assert!(expected(&request).check(&[43, 13, 1, 1, 0, 0, 0]).is_err());
}

#[test]
fn other_mei_types_bring_their_type_back() {
    let expected = expected(&[43, 13, 1, 2]);
    assert_eq!(expected.check(&[43, 13]), Ok(Answer::Normal));
    assert_eq!(expected.check(&[43, 13, 9, 9, 9]), Ok(Answer::Normal));
    assert!(expected.check(&[43]).is_err());
    assert!(expected.check(&[43, 14, 9]).is_err());
}

#[test]
fn opaque_codes_need_the_same_code_only() {
    let expected = expected(&[90, 0, 2]);
    for len in [1, 2, 253] {
        assert_eq!(expected.check(&[90; 253][..len]), Ok(Answer::Normal));
    }
    assert_eq!(
        expected.check(&[90; 254]),
        Err(Mismatch::TooLong { got: 254 })
    );
    assert_eq!(
        expected.check(&[91, 0]),
        Err(Mismatch::Function {
            got: 91,
            expected: 90
        })
    );
}

#[test]
fn exceptions_have_two_bytes_and_a_code() {
    let expected = expected(&[3, 0, 0, 0, 1]);
    for code in 1..=255 {
        assert_eq!(expected.check(&[0x83, code]), Ok(Answer::Exception(code)));
    }
    assert_eq!(expected.check(&[0x83, 0]), Err(Mismatch::ExceptionCode));
    assert_eq!(
        expected.check(&[0x83]),
        Err(Mismatch::ExceptionLength { got: 1 })
    );
    // An exception with the body of a success.
    assert_eq!(
        expected.check(&[0x83, 2, 0, 0]),
        Err(Mismatch::ExceptionLength { got: 4 })
    );
    assert_eq!(
        expected.check(&[0x84, 2]),
        Err(Mismatch::Function {
            got: 0x84,
            expected: 3
        })
    );
    assert_eq!(expected.check(&[]), Err(Mismatch::Empty));
}
