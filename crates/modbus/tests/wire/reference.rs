//! A second, naive reading of the specification, to compare with; and requests and answers
//! made by it.

use proptest::collection::vec;
use proptest::prelude::*;

/// Is this PDU a valid request? Written from the tables of section 6, not from the parser.
pub(crate) fn is_valid(pdu: &[u8]) -> bool {
    let len = pdu.len();
    if len == 0 || len > 253 {
        return false;
    }
    let at = |index: usize| usize::from(pdu[index]);
    let word = |index: usize| 256 * at(index) + at(index + 1);
    let range = |index: usize, max: usize| {
        let (start, count) = (word(index), word(index + 2));
        count >= 1 && count <= max && start + count <= 65536
    };
    match pdu[0] {
        0 | 128..=255 => false,
        1 | 2 => len == 5 && range(1, 2000),
        3 | 4 => len == 5 && range(1, 125),
        5 => len == 5 && (word(3) == 0 || word(3) == 0xFF00),
        6 => len == 5,
        7 | 11 | 12 | 17 => len == 1,
        8 => len == 5 || (len >= 3 && word(1) == 0),
        15 => len > 6 && range(1, 1968) && at(5) == word(3).div_ceil(8) && len == 6 + at(5),
        16 => len > 6 && range(1, 123) && at(5) == 2 * word(3) && len == 6 + at(5),
        20 => {
            len >= 2
                && (7..=245).contains(&at(1))
                && at(1) % 7 == 0
                && len == 2 + at(1)
                && (2..len)
                    .step_by(7)
                    .all(|group| is_file_group(&pdu[group..group + 7]))
                && (2..len)
                    .step_by(7)
                    .map(|group| 2 + 2 * word(group + 5))
                    .sum::<usize>()
                    <= 251
        }
        21 => {
            len >= 2 && (9..=251).contains(&at(1)) && len == 2 + at(1) && {
                let mut group = 2;
                while group + 7 <= len && is_file_group(&pdu[group..group + 7]) {
                    group += 7 + 2 * word(group + 5);
                }
                group == len
            }
        }
        22 => len == 7,
        23 => {
            len > 10 && range(1, 125) && range(5, 121) && at(9) == 2 * word(7) && len == 10 + at(9)
        }
        24 => len == 3,
        43 => len >= 2 && (pdu[1] != 14 || (len == 4 && (1..=4).contains(&pdu[2]))),
        _ => true,
    }
}

fn is_file_group(group: &[u8]) -> bool {
    let word = |index: usize| 256 * usize::from(group[index]) + usize::from(group[index + 1]);
    group[0] == 6 && word(1) >= 1 && word(5) >= 1 && word(3) + word(5) <= 10_000
}

/// What a server that works could answer. `fill` gives the content.
pub(crate) fn answer(request: &[u8], fill: u8) -> Vec<u8> {
    let function = request[0];
    let word = |index: usize| 256 * usize::from(request[index]) + usize::from(request[index + 1]);
    let counted = |bytes: usize| {
        let mut answer = vec![function, bytes as u8];
        answer.resize(2 + bytes, fill);
        answer
    };
    match function {
        1 | 2 => counted(word(3).div_ceil(8)),
        3 | 4 | 23 => counted(2 * word(3)),
        5 | 6 | 15 | 16 => request[..5].to_vec(),
        7 => vec![function, fill],
        8 if (11..=18).contains(&word(1)) => vec![8, request[1], request[2], fill, fill],
        11 => vec![function, 0, 0, fill, fill],
        12 => counted(6 + usize::from(fill) % 65),
        17 => counted(usize::from(fill) % 252),
        20 => {
            let mut answer = vec![20, 0];
            for group in request[2..].chunks(7) {
                let bytes = 1 + 2 * (256 * usize::from(group[5]) + usize::from(group[6]));
                answer.extend_from_slice(&[bytes as u8, 6]);
                answer.resize(answer.len() + bytes - 1, fill);
            }
            answer[1] = answer.len() as u8 - 2;
            answer
        }
        24 => {
            let count = fill % 32;
            let mut answer = vec![24, 0, 2 + 2 * count, 0, count];
            answer.resize(5 + 2 * usize::from(count), fill);
            answer
        }
        43 if request[1] == 14 => {
            let value = vec![fill; usize::from(fill) % 100];
            let mut answer = vec![43, 14, request[2], 0x81, 0, 0, 2];
            for object in [0, 1] {
                answer.extend_from_slice(&[object, value.len() as u8]);
                answer.extend_from_slice(&value);
            }
            answer
        }
        _ => request.to_vec(),
    }
}

/// Valid requests of every kind.
pub(crate) fn request() -> BoxedStrategy<Vec<u8>> {
    request_beyond(0)
}

/// Requests up to two beyond their limits, with a few bytes changed, cut or added: where
/// random bytes never get.
pub(crate) fn nearly_request() -> impl Strategy<Value = Vec<u8>> {
    let edge = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0u8, 1, 0x7B, 0x7D, 0x7E, 0xFF])
    ];
    let changes = prop_oneof![Just(Vec::new()), vec((0usize..12, edge), 0..4)];
    let cut = prop_oneof![Just(0usize), 0usize..3];
    let more = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 0..3)];
    (request_beyond(2), changes, cut, more).prop_map(|(mut pdu, changes, cut, more)| {
        for (index, byte) in changes {
            if let Some(place) = pdu.get_mut(index) {
                *place = byte;
            }
        }
        pdu.truncate(pdu.len().saturating_sub(cut));
        pdu.extend(more);
        pdu
    })
}

/// Requests whose quantities and addresses are up to `slack` beyond what is allowed, and
/// otherwise consistent. Without slack they are valid.
fn request_beyond(slack: u16) -> BoxedStrategy<Vec<u8>> {
    let groups = 1..=35 + usize::from(slack);
    let coil_values = match slack {
        0 => vec![0x0000, 0xFF00],
        _ => vec![0x0000, 0x0001, 0x00FF, 0xFF00, 0xFF01, 0xFFFF],
    };
    prop_oneof![
        (1u8..=2).prop_flat_map(move |function| read(function, 2000, slack)),
        (3u8..=4).prop_flat_map(move |function| read(function, 125, slack)),
        (any::<u16>(), prop::sample::select(coil_values))
            .prop_map(|(start, value)| words(5, &[start, value])),
        any::<[u16; 2]>().prop_map(|body| words(6, &body)),
        prop::sample::select(vec![7u8, 11, 12, 17]).prop_map(|function| vec![function]),
        any::<[u16; 2]>().prop_map(|body| words(8, &body)),
        (0u16..=20, any::<u16>()).prop_map(|(sub, data)| words(8, &[sub, data])),
        vec(any::<u8>(), 0..=250).prop_map(|data| [&[8, 0, 0][..], &data].concat()),
        range(1968, slack).prop_map(|(start, count)| {
            with_data(words(15, &[start, count]), usize::from(count).div_ceil(8))
        }),
        range(123, slack).prop_map(|(start, count)| {
            with_data(words(16, &[start, count]), 2 * usize::from(count))
        }),
        vec(file_group(1, slack), groups).prop_map(|groups| file(20, &groups)),
        vec(file_group(124, slack), 1..=1).prop_map(|groups| file(20, &groups)),
        vec(file_group(9, slack), 1..=10).prop_map(|groups| file(21, &groups)),
        vec(file_group(122, slack), 1..=1).prop_map(|groups| file(21, &groups)),
        any::<[u16; 3]>().prop_map(|body| words(22, &body)),
        (range(125, slack), range(121, slack)).prop_map(|(read, write)| {
            let ranges = words(23, &[read.0, read.1, write.0, write.1]);
            with_data(ranges, 2 * usize::from(write.1))
        }),
        any::<u16>().prop_map(|start| words(24, &[start])),
        (1u8..=4, any::<u8>()).prop_map(|(code, object)| vec![43, 14, code, object]),
        vec(any::<u8>(), 0..=251).prop_map(|data| [&[43, 13][..], &data].concat()),
        vec(any::<u8>(), 0..=252).prop_map(|data| [&[90][..], &data].concat()),
    ]
    .boxed()
}

fn read(function: u8, max: u16, slack: u16) -> impl Strategy<Value = Vec<u8>> {
    range(max, slack).prop_map(move |(start, count)| words(function, &[start, count]))
}

/// Start and quantity, often at the end of what is allowed.
fn range(max: u16, slack: u16) -> impl Strategy<Value = (u16, u16)> {
    let most = max + slack;
    let count = prop_oneof![1..=most, max.saturating_sub(1)..=most];
    count.prop_flat_map(move |count| {
        let last_start = (65536 - u32::from(count) + u32::from(slack)).min(0xFFFF) as u16;
        let start = prop_oneof![0..=last_start, last_start - 3..=last_start];
        (start, Just(count))
    })
}

/// File, record and number of records.
fn file_group(max_count: u16, slack: u16) -> impl Strategy<Value = [u16; 3]> {
    let count = prop_oneof![1..=max_count + slack, max_count..=max_count + slack];
    count.prop_flat_map(move |count| {
        let last_record = 10_000 - count + slack;
        let record = prop_oneof![0..=last_record, last_record - 3..=last_record];
        (1u16..=0xFFFF, record, Just(count)).prop_map(|(file, record, count)| [file, record, count])
    })
}

fn file(function: u8, groups: &[[u16; 3]]) -> Vec<u8> {
    let mut pdu = vec![function, 0];
    for group in groups {
        pdu.extend(words(6, group));
        if function == 21 {
            pdu.resize(pdu.len() + 2 * usize::from(group[2]), 0x77);
        }
    }
    pdu[1] = (pdu.len() - 2) as u8;
    pdu
}

fn words(function: u8, words: &[u16]) -> Vec<u8> {
    let mut pdu = vec![function];
    pdu.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    pdu
}

/// A byte count and so many bytes.
fn with_data(mut pdu: Vec<u8>, bytes: usize) -> Vec<u8> {
    pdu.push(bytes as u8);
    pdu.extend((0..bytes).map(|byte| byte as u8));
    pdu
}
