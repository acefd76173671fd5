//! What a serial line may deliver before an answer: the adapter's echo of the request, and a 0x00
//! from turning the line around.

use fieldlock_modbus::rtu::{self, Progress};
use fieldlock_modbus::{Quirk, Quirks};

use super::fault::{Fault, What};

/// What has come since a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// Not all yet.
    Wait,
    /// Silence will end it.
    UntilSilence,
    Frame {
        unit: u8,
        pdu: &'a [u8],
        quirks: Quirks,
    },
}

/// Whether what came may be the echo of the request, which is the very answer to some functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repetition {
    /// A device answers this request otherwise.
    Echo,
    /// A device may answer so, and had the time to.
    Answer,
}

/// Looks for the answer to the frame `sent`. `silent` as for [`rtu::decode_answer`]; `repetition`
/// is what the same bytes as `sent` are.
pub(super) fn hear<'a>(
    sent: &[u8],
    received: &'a [u8],
    silent: bool,
    repetition: Repetition,
    bear: Quirks,
) -> Result<Heard<'a>, Fault> {
    let repeats = received.starts_with(sent);
    let begins = sent.starts_with(received);
    if bear.bear(Quirk::RtuEcho) {
        return match received.strip_prefix(sent) {
            Some(rest) => after(sent, rest, silent, Quirks::NONE.with(Quirk::RtuEcho), bear),
            None if begins => Ok(Heard::Wait),
            None => after(sent, received, silent, Quirks::NONE, bear),
        };
    }
    if repeats && repetition == Repetition::Echo {
        return Err(Fault::deviates(What::Echo, Quirk::RtuEcho));
    }
    match after(sent, received, silent, Quirks::NONE, bear) {
        // More of an echo may come.
        Err(_) if begins && !repeats && !silent => Ok(Heard::Wait),
        heard => heard,
    }
}

/// What is behind the echo, if there was one.
fn after<'a>(
    sent: &[u8],
    received: &'a [u8],
    silent: bool,
    quirks: Quirks,
    bear: Quirks,
) -> Result<Heard<'a>, Fault> {
    let whole =
        |bytes, quirks| rtu::decode_answer(bytes, silent).map(|progress| heard(progress, quirks));
    // No unit 0 ever answers.
    let Some((0, rest)) = received.split_first() else {
        return Ok(whole(received, quirks)?);
    };
    let shifted = whole(rest, quirks.with(Quirk::RtuLeadingZero));
    if bear.bear(Quirk::RtuLeadingZero) {
        return Ok(shifted?);
    }
    match shifted {
        Ok(Heard::Frame { unit, .. }) if sent.first() == Some(&unit) => {
            Err(Fault::deviates(What::LeadingZero, Quirk::RtuLeadingZero))
        }
        Ok(Heard::Wait | Heard::UntilSilence) if likely(sent, rest) => shifted.map_err(Fault::from),
        _ => Ok(whole(received, quirks)?),
    }
}

/// Whether these bytes begin as an answer to the request does.
fn likely(sent: &[u8], received: &[u8]) -> bool {
    let function = |frame: &[u8]| frame.get(1).map(|function| function & 0x7F);
    match received {
        [unit] => sent.first() == Some(unit),
        _ => sent.first() == received.first() && function(sent) == function(received),
    }
}

fn heard(progress: Progress<'_>, quirks: Quirks) -> Heard<'_> {
    match progress {
        Progress::NeedMore { .. } => Heard::Wait,
        Progress::UntilSilence => Heard::UntilSilence,
        Progress::Frame { unit, pdu } => Heard::Frame { unit, pdu, quirks },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        rtu::encode(&mut out, unit, pdu);
        out
    }

    fn bear(quirks: &[Quirk]) -> Quirks {
        quirks.iter().copied().collect()
    }

    /// The quirks with which `pdu` of unit 1 is heard at the end of `bytes`, and not before it;
    /// the fault, as soon as it is known.
    #[track_caller]
    fn heard(sent: &[u8], bytes: &[u8], pdu: &[u8], bear: Quirks) -> Result<Quirks, Fault> {
        for end in 1..bytes.len() {
            let heard = hear(sent, &bytes[..end], false, Repetition::Echo, bear)?;
            assert_eq!(heard, Heard::Wait, "{end} of {bytes:02x?}");
        }
        match hear(sent, bytes, false, Repetition::Echo, bear)? {
            Heard::Frame {
                unit: 1,
                pdu: got,
                quirks,
            } if got == pdu => Ok(quirks),
            heard => panic!("{heard:02x?}"),
        }
    }

    const READ: [u8; 5] = [3, 0, 0, 0, 1];
    const DATA: [u8; 4] = [3, 2, 0x12, 0x34];
    const WRITE: [u8; 5] = [6, 0, 1, 0, 7];

    #[test]
    fn an_echo_is_stripped_where_the_quirk_is_set_and_named_where_not() {
        let known = bear(&[Quirk::RtuEcho]);
        let fault = Err(Fault::deviates(What::Echo, Quirk::RtuEcho));
        let multiple = [16, 0, 1, 0, 1, 2, 0, 7];
        for (request, answer) in [
            (&READ[..], &DATA[..]),
            (&WRITE, &WRITE),
            (&WRITE, &[0x86, 2]),
            (&multiple, &multiple[..5]),
        ] {
            let sent = frame(1, request);
            let bytes = [sent.clone(), frame(1, answer)].concat();
            assert_eq!(heard(&sent, &bytes, answer, known), Ok(known));
            assert_eq!(heard(&sent, &bytes, answer, Quirks::NONE), fault);
            // The adapter is all that there is: no answer, and no silence makes it one.
            for silent in [false, true] {
                let alone = hear(&sent, &sent, silent, Repetition::Answer, known);
                assert_eq!(alone, Ok(Heard::Wait));
            }
        }
    }

    #[test]
    fn the_quirk_does_no_harm_where_nothing_echoes() {
        let (sent, known) = (frame(1, &READ), bear(&[Quirk::RtuEcho]));
        assert_eq!(
            heard(&sent, &frame(1, &DATA), &DATA, known),
            Ok(Quirks::NONE)
        );
    }

    #[test]
    fn a_repetition_that_may_be_the_answer_is_taken() {
        let sent = frame(1, &WRITE);
        let answer = hear(&sent, &sent, false, Repetition::Answer, Quirks::NONE);
        assert!(matches!(answer, Ok(Heard::Frame { pdu, .. }) if *pdu == WRITE));
    }

    #[test]
    fn a_leading_zero_is_stripped_where_the_quirk_is_set_and_named_where_not() {
        let known = bear(&[Quirk::RtuLeadingZero]);
        for (request, answer) in [(&READ, &DATA[..]), (&WRITE, &WRITE), (&WRITE, &[0x86, 2])] {
            let sent = frame(1, request);
            let bytes = [vec![0], frame(1, answer)].concat();
            assert_eq!(heard(&sent, &bytes, answer, known), Ok(known));
            let fault = Err(Fault::deviates(What::LeadingZero, Quirk::RtuLeadingZero));
            assert_eq!(heard(&sent, &bytes, answer, Quirks::NONE), fault);
            let plain = frame(1, answer);
            if answer != &request[..] {
                assert_eq!(heard(&sent, &plain, answer, known), Ok(Quirks::NONE));
            }
        }
    }

    #[test]
    fn echo_and_zero_may_come_together() {
        let known = bear(&[Quirk::RtuEcho, Quirk::RtuLeadingZero]);
        let sent = frame(1, &READ);
        let bytes = [sent.clone(), vec![0], frame(1, &DATA)].concat();
        assert_eq!(heard(&sent, &bytes, &DATA, known), Ok(known));
    }

    #[test]
    fn garbage_behind_a_zero_is_garbage_at_once() {
        let sent = frame(1, &READ);
        let garbage = [0, 0, 0, 0, 0, 0, 0, 0];
        assert!(hear(&sent, &garbage, true, Repetition::Echo, Quirks::NONE).is_err());
    }
}
