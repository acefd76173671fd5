use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::cadence::{
    Datagram, Emit, Header, Hold, Newest, Receiver, ReceiverConfig, Stop, Stream,
};
use fieldlock_profinet::FrameId;
use fieldlock_profinet::cyclic::is_newer;

use crate::input::Input;

const STREAM: Stream = Stream {
    channel: 1,
    ar: 2,
    frame_id: FrameId(0x8001),
};
const CYCLE: Duration = Duration::from_millis(4);
/// More than a receiver ever lets wait here.
const MOST_AT_ONCE: usize = 64;

/// Cyclic datagrams and times of the other end's choice.
///
/// The first two bytes are the DataLength, less 240 of 256, and the play-out delay in cycles.
/// Then operations: datagrams as they are, or with a header that fits; time; a round trip; the end.
pub fn profinet_datagram(data: &[u8]) {
    let mut input = Input::new(data);
    let data_length = input.u8() % 16;
    let play_out = input.below(9) as u32;
    let start = Instant::now();
    let config = ReceiverConfig {
        stream: STREAM,
        data_length: data_length.into(),
        cycle: CYCLE,
        watchdog: 3 * CYCLE,
        play_out: play_out.checked_sub(1).map(|cycles| CYCLE * cycles),
        hold: Some(Hold {
            age_limit: Duration::from_millis(200),
            fail_safe_limit: Duration::from_secs(1),
        }),
    };
    let mut receiver = Receiver::new(config, start).unwrap();
    let mut newest = Newest::new(4, 300);
    let mut now = start;
    let mut last: Option<u16> = None;
    let mut stopped = false;
    while !input.is_empty() {
        match input.below(8) {
            0 => datagram(&mut receiver, &mut newest, now, input.field(), data_length),
            1..=3 => {
                let bytes = shaped(&mut input, data_length);
                datagram(&mut receiver, &mut newest, now, &bytes, data_length);
            }
            4 => now += Duration::from_micros(u64::from(input.u16())),
            5 => now = receiver.poll_timeout().unwrap_or(now).max(now),
            6 => receiver.set_round_trip(Duration::from_millis(input.u8().into())),
            _ if input.u8() == 255 => {
                receiver.stop(Stop::Abort);
                stopped = true;
            }
            _ => now += Duration::from_secs(u64::from(input.u8())),
        }
        let mut left = 0;
        while let Some(Emit { frame, held }) = receiver.poll_frame(now) {
            assert!(!stopped);
            assert_eq!(frame.data.len(), usize::from(data_length));
            assert!(last.is_some() || !held);
            assert!(last.is_none_or(|last| is_newer(last, frame.cycle_counter)));
            last = Some(frame.cycle_counter);
            left += 1;
            assert!(left < MOST_AT_ONCE);
        }
        assert!(receiver.poll_timeout().is_none_or(|at| at > now));
    }
    let mut waited = 0;
    while newest.pop().is_some() {
        waited += 1;
    }
    assert!(waited <= 4);
}

fn datagram(
    receiver: &mut Receiver,
    newest: &mut Newest,
    now: Instant,
    bytes: &[u8],
    data_length: u8,
) {
    let peeked = Header::peek(bytes);
    assert_eq!(newest.push(bytes).is_ok(), peeked.is_ok());
    let taken = receiver.handle_datagram(now, bytes);
    match Datagram::parse(bytes, data_length.into()) {
        Ok(datagram) => {
            assert_eq!(peeked, Ok(datagram.header));
            assert_eq!(
                datagram.frames().count(),
                usize::from(datagram.header.count)
            );
        }
        Err(_) => assert!(taken.is_err()),
    }
}

/// A datagram whose lengths, ages and tags are right, all else from the input.
fn shaped(input: &mut Input<'_>, data_length: u8) -> Vec<u8> {
    let mut bytes = vec![0x10, 0, 1, 0, 2, 0x80, 1];
    let near = input.bool();
    let sequence = input.u16();
    let high = if near { 0 } else { input.u16() };
    bytes.extend_from_slice(&high.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    let sent = input.u16();
    bytes.extend_from_slice(&(u32::from(sent) << input.below(17)).to_be_bytes());
    let count = 1 + input.below(8) as u8;
    bytes.push(count);
    let mut age = 0;
    for _ in 0..count {
        bytes.extend_from_slice(&[0x80 | age, 0xc0, 0]);
        bytes.extend_from_slice(&input.u16().to_be_bytes());
        bytes.push(if input.bool() { input.u8() } else { 0x35 });
        bytes.resize(bytes.len() + usize::from(data_length), age);
        age += 1 + input.below(16) as u8;
    }
    bytes
}
