//! What arrives on port 502 and must be refused, with the refusal.

use fieldlock_modbus::{Exception, Expected, FramingError, Malformed, Request, mbap};

#[derive(Debug, PartialEq)]
enum Verdict {
    /// Close the connection.
    Close(FramingError),
    /// Wait, until a time-out of the connection's owner.
    Incomplete,
    Refuse(Exception),
    Accept,
}

/// What becomes of the first frame in `stream`.
fn judge(stream: &[u8]) -> Verdict {
    match mbap::decode(stream) {
        Err(error) => Verdict::Close(error),
        Ok(None) => Verdict::Incomplete,
        Ok(Some((adu, _))) => match Request::parse(adu.pdu) {
            Ok(_) => Verdict::Accept,
            Err(Malformed { exception, .. }) => Verdict::Refuse(exception),
        },
    }
}

fn adu(length: u16, pdu: &[u8]) -> Vec<u8> {
    [&[0x12, 0x34, 0, 0][..], &length.to_be_bytes(), &[1], pdu].concat()
}

const READ: &[u8] = &[3, 0, 0, 0, 10];

#[test]
fn length_off_by_one() {
    assert_eq!(judge(&adu(6, READ)), Verdict::Accept);
    assert_eq!(judge(&adu(7, READ)), Verdict::Incomplete);
    assert_eq!(
        judge(&adu(5, READ)),
        Verdict::Refuse(Exception::IllegalDataValue)
    );
}

#[test]
fn the_byte_left_over_by_a_short_length_is_no_frame() {
    // Length one too small: the next frame begins one byte early, and its protocol id shows it.
    let stream = [adu(5, READ), adu(6, READ)].concat();
    let (_, used) = mbap::decode(&stream).unwrap().unwrap();
    assert_eq!(
        judge(&stream[used..]),
        Verdict::Close(FramingError::ProtocolId { got: 0x3400 })
    );
}

#[test]
fn truncated_at_each_byte() {
    let whole = adu(6, READ);
    for cut in 0..whole.len() {
        assert_eq!(judge(&whole[..cut]), Verdict::Incomplete, "{cut}");
    }
}

#[test]
fn longest_frame_and_one_byte_more() {
    let pdu = [&[65][..], &[0; 253]].concat();
    assert_eq!(judge(&adu(254, &pdu[..253])), Verdict::Accept);
    assert_eq!(
        judge(&adu(255, &pdu)),
        Verdict::Close(FramingError::Length { got: 255 })
    );
}

#[test]
fn other_protocols_on_the_port() {
    let tls_client_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
    for (bytes, got) in [
        (&b"GET / HTTP/1.1\r\n"[..], 0x5420),
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], 0x482D),
        (&tls_client_hello[..], 0x0102),
        (&b"\r\n\r\n"[..], 0x0D0A),
    ] {
        assert_eq!(
            judge(bytes),
            Verdict::Close(FramingError::ProtocolId { got }),
            "{bytes:02x?}"
        );
    }
    assert_eq!(
        judge(&[0; 64]),
        Verdict::Close(FramingError::Length { got: 0 })
    );
}

#[test]
fn requests_that_break_their_own_numbers() {
    use Exception::{IllegalDataAddress, IllegalDataValue, IllegalFunction};
    for (pdu, exception) in [
        (&[0, 0, 0, 0, 1][..], IllegalFunction),
        (&[0x83, 2], IllegalFunction),
        (&[3, 0, 0, 0, 0], IllegalDataValue),
        (&[3, 0, 0, 0, 126], IllegalDataValue),
        (&[1, 0, 0, 0x07, 0xD1], IllegalDataValue),
        (&[3, 0xFF, 0xFF, 0, 2], IllegalDataAddress),
        (&[5, 0, 0, 0x12, 0x34], IllegalDataValue),
        (&[15, 0, 0, 0, 9, 1, 0xFF], IllegalDataValue),
        (&[16, 0, 0, 0, 2, 3, 0, 0, 0], IllegalDataValue),
        (&[16, 0, 0, 0, 2, 4, 0, 0, 0], IllegalDataValue),
        (&[16, 0xFF, 0xFF, 0, 2, 4, 0, 0, 0, 0], IllegalDataAddress),
        (
            &[23, 0, 0, 0, 1, 0xFF, 0xFF, 0, 2, 4, 0, 0, 0, 0],
            IllegalDataAddress,
        ),
        (&[20, 7, 6, 0, 1, 0x27, 0x10, 0, 1], IllegalDataAddress),
        (&[43, 14, 5, 0], IllegalDataValue),
    ] {
        let length = pdu.len() as u16 + 1;
        assert_eq!(
            judge(&adu(length, pdu)),
            Verdict::Refuse(exception),
            "{pdu:02x?}"
        );
    }
}

#[test]
fn answers_to_something_else() {
    let expected = Expected::of(&Request::parse(READ).unwrap());
    let good = [&[3, 20][..], &[0; 20]].concat();
    assert!(expected.check(&good).is_ok());
    for bad in [
        &[][..],
        &good[..21],
        &[&good[..], &[0]].concat(),
        &[&[4, 20][..], &[0; 20]].concat(),
        &[&[3, 18][..], &[0; 18]].concat(),
        &[&[0x83, 20][..], &[0; 20]].concat(),
        &[0x83],
        &[0x83, 0],
        &[0x84, 2],
        READ,
    ] {
        assert!(expected.check(bad).is_err(), "{bad:02x?}");
    }
}
