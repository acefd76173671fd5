use super::*;

fn frame(number: u32, data: &[u8]) -> Frame<'_> {
    Frame {
        tag: None,
        cycle_counter: (number as u16).wrapping_mul(STEP),
        data_status: RUN,
        data,
    }
}

/// The datagram of a frame, if it is one to be sent.
fn send(sender: &mut Sender, now: Instant, frame: &Frame<'_>) -> Option<Vec<u8>> {
    let mut datagram = Vec::new();
    let sent = sender.handle_frame(now, frame, &mut datagram);
    sent.then_some(datagram)
}

/// The ages of the frames in the datagram of the last of these numbers.
fn ages(config: SenderConfig, numbers: &[u32]) -> Vec<u8> {
    let now = Instant::now();
    let mut sender = Sender::new(config, now);
    let mut ages = Vec::new();
    for number in numbers {
        let data = data(*number);
        let bytes = send(&mut sender, now, &frame(*number, &data)).unwrap();
        let datagram = Datagram::parse(&bytes, LENGTH).unwrap();
        ages = datagram.frames().map(|(age, _)| age).collect();
        for (age, carried) in datagram.frames() {
            let number = u32::from_be_bytes(*carried.data.first_chunk().unwrap());
            assert_eq!(
                carried.cycle_counter,
                (number as u16).wrapping_mul(STEP),
                "age {age}"
            );
        }
    }
    ages
}

#[test]
fn a_datagram_carries_the_frames_before_it() {
    let with = |redundancy, spread| SenderConfig {
        redundancy,
        spread,
        ..sender_config()
    };
    let all: Vec<u32> = (0..40).collect();
    assert_eq!(ages(with(0, 1), &all), [0]);
    assert_eq!(ages(with(2, 1), &all), [0, 1, 2]);
    assert_eq!(ages(with(3, 4), &all), [0, 4, 8, 12]);
    assert_eq!(ages(with(200, 1), &all), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(ages(with(2, 1), &[0]), [0]);
    assert_eq!(ages(with(2, 4), &[0, 1, 2, 3, 4]), [0, 4]);
}

#[test]
fn ages_count_cycles_of_the_provider_that_were_not_heard_too() {
    assert_eq!(ages(sender_config(), &[0, 3, 5]), [0, 2, 5]);
    // 61,440 ticks later: 60 cycles of 32 ms, more than two such steps are too far.
    assert_eq!(ages(sender_config(), &[0, 60, 120]), [0, 60, 120]);
    assert_eq!(ages(sender_config(), &[0, 60, 120, 180]), [0, 60, 120]);
    assert_eq!(
        ages(
            SenderConfig {
                redundancy: 3,
                ..sender_config()
            },
            &[0, 60, 120, 180]
        ),
        [0, 60, 120]
    );
}

#[test]
fn redundancy_gives_way_where_a_datagram_is_too_short() {
    let now = Instant::now();
    let mut sender = Sender::new(sender_config(), now);
    let mut lengths = Vec::new();
    for (number, max_datagram) in [
        (0, 1_150),
        (1, 1_150),
        (2, 69),
        (3, 51),
        (4, 33),
        (5, 1_150),
    ] {
        sender.set_max_datagram(max_datagram);
        let data = data(number);
        let datagram = send(&mut sender, now, &frame(number, &data));
        lengths.push((
            datagram.map(|datagram| datagram.len()),
            sender.stats().redundancy,
        ));
    }
    assert_eq!(
        lengths,
        [
            (Some(34), 2),
            (Some(52), 2),
            (Some(52), 1),
            (Some(34), 0),
            (None, 0),
            (Some(70), 2),
        ]
    );
    assert_eq!(sender.stats().too_long, 1);
}

#[test]
fn frames_that_a_consumer_would_not_take_are_not_sent() {
    let now = Instant::now();
    let mut sender = Sender::new(sender_config(), now);
    let data = data(5);
    assert!(send(&mut sender, now, &frame(5, &data)).is_some());
    assert!(send(&mut sender, now, &frame(5, &data)).is_none());
    assert!(send(&mut sender, now, &frame(4, &data)).is_none());
    assert!(send(&mut sender, now, &frame(6, &data[1..])).is_none());
    let stats = sender.stats();
    assert_eq!((stats.not_newer, stats.wrong_length), (2, 1));
    assert_eq!((stats.datagrams, stats.octets), (1, 34));
}
