#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A request for one holding register, from 10.0.0.1:40000 to 10.0.0.2:502.
fn frame(vlan: bool, v6: bool) -> Vec<u8> {
    let adu = [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
    let mut tcp = vec![
        0x9c, 0x40, 0x01, 0xf6, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0,
    ];
    tcp.extend(adu);
    let mut frame = vec![0; 12];
    if vlan {
        frame.extend([0x81, 0x00, 0, 7]);
    }
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64]);
        frame.extend([0; 15].into_iter().chain([1]));
        frame.extend([0; 15].into_iter().chain([2]));
    } else {
        frame.extend([
            0x08,
            0x00,
            0x45,
            0,
            0,
            20 + tcp.len() as u8,
            0,
            0,
            0,
            0,
            64,
            6,
            0,
            0,
        ]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    }
    frame.extend(tcp);
    frame
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Little-endian; the magic decides what the fraction of a second counts.
fn pcap(magic: u32, fraction: u32, frame: &[u8]) -> Vec<u8> {
    let length = frame.len() as u32;
    let mut file = words(&[magic, 0x0004_0002, 0, 0, 65_535, 1]);
    file.extend(words(&[1_000, fraction, length, length]));
    file.extend(frame);
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = body.len() as u32 + 12;
    [words(&[kind, length]), body, words(&[length])].concat()
}

/// With one interface whose timestamps count milliseconds.
fn pcapng(frame: &[u8]) -> Vec<u8> {
    let section = block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    let interface = block(1, &words(&[1, 65_535, 0x0001_0009, 3, 0]));
    let unknown = block(0x0bad, &[0; 64]);
    let mut packet = words(&[0, 0, 1_000_250, frame.len() as u32, frame.len() as u32]);
    packet.extend(frame);
    [section, unknown, interface, block(6, &packet)].concat()
}

fn read(bytes: &[u8]) -> Result<Vec<Piece>, CaptureError> {
    let mut reader = Reader::new(bytes, Path::new("test.pcap"), &[MODBUS])?;
    let mut pieces = Vec::new();
    while let Some(piece) = reader.next()? {
        pieces.push(piece);
    }
    Ok(pieces)
}

#[test]
fn frames_have_their_times_in_every_format() {
    let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
    for file in [
        pcap(0xa1b2_c3d4, 250_000, &frame(false, false)),
        pcap(0xa1b2_3c4d, 250_000_000, &frame(true, false)),
        pcapng(&frame(false, true)),
        pcapng(&frame(true, true)),
    ] {
        let pieces = read(&file).unwrap();
        let [piece] = &pieces[..] else {
            panic!("{pieces:?}")
        };
        assert_eq!((piece.frame, piece.time), (1, at(1_000_250)));
        assert_eq!((piece.kind, piece.bytes.len()), (PieceKind::Adu, 12));
        assert_eq!(piece.direction, Direction::Up);
    }
}

#[test]
fn packet_blocks_of_old_capture_programs_are_read() {
    let one = frame(false, false);
    let section = block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    let interface = block(1, &words(&[1, 65_535]));
    // Interface 0, of which 7 were dropped.
    let mut packet = words(&[7 << 16, 0, 1_000_250, one.len() as u32, one.len() as u32]);
    packet.extend(&one);
    let file = [section, interface, block(2, &packet)].concat();
    let [piece] = &read(&file).unwrap()[..] else {
        panic!()
    };
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_250);
    assert_eq!((piece.frame, piece.time), (1, Some(time)));
    assert_eq!((piece.kind, piece.bytes.len()), (PieceKind::Adu, 12));
}

#[test]
fn an_interface_of_another_link_type_takes_nothing_from_the_others() {
    let one = frame(false, false);
    let packet = |interface: u32| {
        let mut packet = words(&[interface, 0, 0, one.len() as u32, one.len() as u32]);
        packet.extend(&one);
        block(6, &packet)
    };
    // USB, then Ethernet.
    let head = [
        block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX])),
        block(1, &words(&[220, 65_535])),
        block(1, &words(&[1, 65_535])),
    ]
    .concat();
    for (packets, pieces, unreadable) in [
        (vec![packet(1)], 1, 0),
        (vec![packet(0), packet(1), packet(0)], 1, 2),
        (vec![packet(0)], 0, 1),
    ] {
        let file = [head.clone(), packets.concat()].concat();
        let mut reader = Reader::new(&file[..], Path::new("t"), &[MODBUS]).unwrap();
        let mut found = 0;
        while reader.next().unwrap().is_some() {
            found += 1;
        }
        assert_eq!((found, reader.unreadable()), (pieces, unreadable));
    }
}

#[test]
fn errors_name_file_and_frame() {
    let whole = pcap(0xa1b2_c3d4, 0, &frame(false, false));
    let mut long = whole.clone();
    long[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    for (bytes, expected) in [
        (
            &whole[..whole.len() - 1],
            "test.pcap: the file ends within frame 1",
        ),
        (&whole[..10], "test.pcap: the file ends within frame 0"),
        (
            &long[..],
            "test.pcap: frame 1 claims 4294967295 octets, more than the 262144 that a frame may have",
        ),
        (
            &[1, 2, 3, 4],
            "test.pcap: neither pcap nor pcapng: the file starts with [01, 02, 03, 04]",
        ),
    ] {
        assert_eq!(read(bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn what_is_before_a_torn_end_is_read() {
    let one = frame(false, false);
    let mut file = pcap(0xa1b2_c3d4, 0, &one);
    file.extend(words(&[1_001, 0, 100, 100]));
    let mut reader = Reader::new(&file[..], Path::new("t"), &[MODBUS]).unwrap();
    assert!(reader.next().unwrap().is_some());
    assert!(matches!(
        reader.next().unwrap_err().problem,
        Problem::Truncated { frame: 2 }
    ));
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn connections_beyond_the_limit_end_the_silent_ones() {
    let mut connections = Connections {
        ports: vec![MODBUS],
        count: 0,
        open: HashMap::new(),
    };
    let mut ready = VecDeque::new();
    for number in 0..MAX_CONNECTIONS as u32 * 2 {
        let client = SocketAddr::from(((number + 1).to_be_bytes(), 40_000));
        let segment = Segment {
            from: client,
            to: "10.0.0.2:502".parse().unwrap(),
            sequence: 0,
            syn: false,
            payload: &[0, 1, 0, 0],
        };
        let at = At {
            frame: number + 1,
            time: None,
        };
        connections.handle(at, &segment, &mut ready);
        assert!(connections.open.len() <= MAX_CONNECTIONS);
    }
    assert!(ready.iter().all(|piece| piece.kind == PieceKind::Partial));
    assert!(!ready.is_empty());
}

proptest! {
    /// Also with a sound beginning, so that what comes after it is reached.
    #[test]
    fn no_file_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0usize..200,
        which in 0usize..3,
    ) {
        let sound = match which {
            0 => pcap(0xa1b2_c3d4, 0, &frame(true, false)),
            1 => pcapng(&frame(false, true)),
            _ => Vec::new(),
        };
        let mut file = sound[..cut.min(sound.len())].to_vec();
        file.extend(bytes);
        let _ = read(&file);
    }
}
