//! Reading the blocks of connection management. Lengths are bounded by the body of a call,
//! 64 KiB.

use fieldlock_profinet::{Mac, Reader, Short};

use super::blocks::RecordHead;
use super::rpc::Uuid;

/// A block without its version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) kind: u16,
    pub(super) body: Reader<'a>,
}

/// Takes the next block off `rest`; None at the end.
fn next<'a>(rest: &mut Reader<'a>) -> Result<Option<Block<'a>>, Short> {
    if rest.is_empty() {
        return Ok(None);
    }
    let kind = rest.u16()?;
    let length = rest.u16()?;
    let mut body = rest.sub(length.into())?;
    body.u16()?;
    Ok(Some(Block { kind, body }))
}

/// A Connect request; faults of a block's inside are found when it is judged.
#[derive(Debug)]
pub(super) struct Connect<'a> {
    pub(super) ar: Ar<'a>,
    pub(super) iocrs: Vec<Block<'a>>,
    pub(super) alarm_crs: Vec<Block<'a>>,
    pub(super) expected: Vec<Block<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ar<'a> {
    pub(super) kind: u16,
    pub(super) uuid: Uuid,
    pub(super) session: u16,
    pub(super) mac: Mac,
    pub(super) object: Uuid,
    /// x 100 ms.
    pub(super) activity_timeout: u16,
    pub(super) station: &'a [u8],
}

#[derive(Debug)]
pub(super) struct Iocr {
    pub(super) kind: u16,
    pub(super) reference: u16,
    pub(super) ethertype: u16,
    pub(super) properties: u32,
    pub(super) data_length: u16,
    pub(super) frame_id: u16,
    pub(super) send_clock: u16,
    pub(super) reduction_ratio: u16,
    pub(super) watchdog_factor: u16,
    pub(super) hold_factor: u16,
    pub(super) apis: Vec<Api>,
}

#[derive(Debug)]
pub(super) struct Api {
    pub(super) number: u32,
    pub(super) objects: Vec<Place>,
    pub(super) statuses: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) slot: u16,
    pub(super) subslot: u16,
    pub(super) offset: u16,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct AlarmCr {
    pub(super) ethertype: u16,
    pub(super) timeout_factor: u16,
    pub(super) retries: u16,
    pub(super) reference: u16,
    pub(super) max_data: u16,
    /// Of high and low priority.
    pub(super) tags: [u16; 2],
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) api: u32,
    pub(super) slot: u16,
    pub(super) module: u32,
    pub(super) subslot: u16,
    pub(super) submodule: u32,
    pub(super) input: u16,
    pub(super) output: u16,
}

/// PrmEnd, ApplicationReady, Release, and their answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Control {
    pub(super) kind: u16,
    pub(super) uuid: Uuid,
    pub(super) session: u16,
    pub(super) command: u16,
}

/// What a Connect response assigns.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) uuid: Uuid,
    /// Type and FrameID of each IOCR.
    pub(super) frame_ids: Vec<(u16, u16)>,
    pub(super) alarm_reference: u16,
}

impl<'a> Connect<'a> {
    pub(super) fn read(blocks: &'a [u8]) -> Result<Self, Short> {
        let mut rest = Reader::new(blocks);
        let first = next(&mut rest)?.filter(|block| block.kind == 0x0101);
        let mut connect = Self {
            ar: Ar::read(first.ok_or(Short)?.body)?,
            iocrs: Vec::new(),
            alarm_crs: Vec::new(),
            expected: Vec::new(),
        };
        while let Some(block) = next(&mut rest)? {
            match block.kind {
                0x0102 => connect.iocrs.push(block),
                0x0103 => connect.alarm_crs.push(block),
                0x0104 => connect.expected.push(block),
                _ => {}
            }
        }
        Ok(connect)
    }
}

impl<'a> Ar<'a> {
    fn read(mut body: Reader<'a>) -> Result<Self, Short> {
        let (kind, uuid, session) = (body.u16()?, Uuid(body.array()?), body.u16()?);
        let (mac, object) = (Mac(body.array()?), Uuid(body.array()?));
        let _properties = body.u32()?;
        let activity_timeout = body.u16()?;
        let _udp_port = body.u16()?;
        let length = body.u16()?;
        Ok(Self {
            kind,
            uuid,
            session,
            mac,
            object,
            activity_timeout,
            station: body.take(length.into())?,
        })
    }
}

impl Iocr {
    pub(super) fn read(mut body: Reader<'_>) -> Result<Self, Short> {
        let (kind, reference, ethertype) = (body.u16()?, body.u16()?, body.u16()?);
        let (properties, data_length, frame_id) = (body.u32()?, body.u16()?, body.u16()?);
        let (send_clock, reduction_ratio) = (body.u16()?, body.u16()?);
        let _phase_sequence_offset = body.take(8)?;
        let (watchdog_factor, hold_factor) = (body.u16()?, body.u16()?);
        let _tag_multicast = body.take(8)?;
        let apis = (0..body.u16()?)
            .map(|_| {
                Ok(Api {
                    number: body.u32()?,
                    objects: places(&mut body)?,
                    statuses: places(&mut body)?,
                })
            })
            .collect::<Result<_, Short>>()?;
        Ok(Self {
            kind,
            reference,
            ethertype,
            properties,
            data_length,
            frame_id,
            send_clock,
            reduction_ratio,
            watchdog_factor,
            hold_factor,
            apis,
        })
    }
}

fn places(body: &mut Reader<'_>) -> Result<Vec<Place>, Short> {
    (0..body.u16()?)
        .map(|_| {
            Ok(Place {
                slot: body.u16()?,
                subslot: body.u16()?,
                offset: body.u16()?,
            })
        })
        .collect()
}

impl AlarmCr {
    pub(super) fn read(mut body: Reader<'_>) -> Result<Self, Short> {
        let _kind = body.u16()?;
        let ethertype = body.u16()?;
        let _properties = body.u32()?;
        Ok(Self {
            ethertype,
            timeout_factor: body.u16()?,
            retries: body.u16()?,
            reference: body.u16()?,
            max_data: body.u16()?,
            tags: [body.u16()?, body.u16()?],
        })
    }
}

impl Expected {
    /// All submodules of a block.
    pub(super) fn read(mut body: Reader<'_>) -> Result<Vec<Self>, Short> {
        let mut all = Vec::new();
        for _ in 0..body.u16()? {
            let (api, slot, module) = (body.u32()?, body.u16()?, body.u32()?);
            let _properties = body.u16()?;
            for _ in 0..body.u16()? {
                let (subslot, submodule) = (body.u16()?, body.u32()?);
                let (mut input, mut output) = (0, 0);
                // Type 3 has a description of each direction.
                let descriptions = if body.u16()? & 3 == 3 { 2 } else { 1 };
                for _ in 0..descriptions {
                    let (direction, length) = (body.u16()?, body.u16()?);
                    let _status_lengths = body.u16()?;
                    match direction {
                        1 => input = length,
                        _ => output = length,
                    }
                }
                all.push(Self {
                    api,
                    slot,
                    module,
                    subslot,
                    submodule,
                    input,
                    output,
                });
            }
        }
        Ok(all)
    }
}

impl Control {
    pub(super) fn read(blocks: &[u8]) -> Result<Self, Short> {
        let Block { kind, mut body } = next(&mut Reader::new(blocks))?.ok_or(Short)?;
        let _reserved = body.u16()?;
        let (uuid, session) = (Uuid(body.array()?), body.u16()?);
        let _reserved = body.u16()?;
        let command = body.u16()?;
        Ok(Self {
            kind,
            uuid,
            session,
            command,
        })
    }
}

impl Connected {
    pub(super) fn read(blocks: &[u8]) -> Result<Self, Short> {
        let mut rest = Reader::new(blocks);
        let (mut uuid, mut alarm_reference, mut frame_ids) = (None, None, Vec::new());
        while let Some(Block { kind, mut body }) = next(&mut rest)? {
            let head = body.u16()?;
            match kind {
                0x8101 => uuid = Some(Uuid(body.array()?)),
                0x8102 => {
                    let _reference = body.u16()?;
                    frame_ids.push((head, body.u16()?));
                }
                0x8103 => alarm_reference = Some(body.u16()?),
                _ => {}
            }
        }
        Ok(Self {
            uuid: uuid.ok_or(Short)?,
            frame_ids,
            alarm_reference: alarm_reference.ok_or(Short)?,
        })
    }
}

/// A header of a record and what stands behind it.
pub(super) fn record(blocks: &[u8]) -> Result<(RecordHead, &[u8]), Short> {
    let mut rest = Reader::new(blocks);
    let mut body = next(&mut rest)?.ok_or(Short)?.body;
    let (sequence, ar) = (body.u16()?, Uuid(body.array()?));
    let _api = body.u32()?;
    let (slot, subslot) = (body.u16()?, body.u16()?);
    let _padding = body.u16()?;
    let head = RecordHead {
        sequence,
        ar,
        slot,
        subslot,
        index: body.u16()?,
        length: body.u32()?,
    };
    Ok((head, rest.rest()))
}

/// The records of a multiple write: each header begins at a multiple of four octets.
pub(super) fn records(mut rest: &[u8]) -> Result<Vec<(RecordHead, &[u8])>, Short> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = record(rest)?;
        let (data, next) = behind.split_at_checked(head.length as usize).ok_or(Short)?;
        all.push((head, data));
        let padding = (4 - data.len() % 4) % 4;
        rest = next.get(padding..).unwrap_or_default();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profinet::blocks::write_request;

    fn head(sequence: u16, length: u32) -> RecordHead {
        RecordHead {
            sequence,
            ar: Uuid([sequence as u8; 16]),
            slot: 1,
            subslot: 1,
            index: 0x100 + sequence,
            length,
        }
    }

    #[test]
    fn records_of_a_multiple_write_are_read_with_their_padding() {
        let mut blocks = Vec::new();
        for (number, data) in [(1, &b"abcd"[..]), (2, &b"e"[..]), (3, &b""[..])] {
            write_request(&mut blocks, &head(number, data.len() as u32), data);
            blocks.resize(blocks.len().next_multiple_of(4), 0);
        }
        let read = [
            (head(1, 4), &b"abcd"[..]),
            (head(2, 1), &b"e"[..]),
            (head(3, 0), &b""[..]),
        ];
        assert_eq!(records(&blocks), Ok(read.to_vec()));
    }

    #[test]
    fn a_record_longer_than_what_is_there_is_refused() {
        let mut blocks = Vec::new();
        write_request(&mut blocks, &head(1, u32::MAX), b"abcd");
        assert_eq!(records(&blocks), Err(Short));
    }
}
