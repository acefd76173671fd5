//! Messages for tests, put together from the standard's tables and not by the code that is tested.

use crate::mac::Mac;
use crate::rpc::{Order, Rpc};

pub(crate) const CONTROLLER: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
pub(crate) const DEVICE: Mac = Mac([0x02, 0, 0, 0, 0, 2]);
pub(crate) const AR_UUID: [u8; 16] = [
    0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
];

pub(crate) const LAST: u8 = 0x02;
pub(crate) const FRAGMENT: u8 = 0x04;

/// An RPC PDU of the interface of devices.
#[derive(Debug, Clone)]
pub(crate) struct Pdu {
    pub(crate) order: Order,
    pub(crate) ptype: u8,
    pub(crate) flags1: u8,
    pub(crate) activity: u8,
    pub(crate) sequence: u32,
    pub(crate) opnum: u16,
    pub(crate) fragment: u16,
    pub(crate) body: Vec<u8>,
}

impl Pdu {
    pub(crate) fn request(opnum: u16, body: &[u8]) -> Self {
        Self {
            order: Order::Big,
            ptype: 0,
            flags1: 0x20,
            activity: 1,
            sequence: 0,
            opnum,
            fragment: 0,
            body: body.to_vec(),
        }
    }

    pub(crate) fn response(opnum: u16, body: &[u8]) -> Self {
        Self {
            ptype: 2,
            flags1: 0x0a,
            ..Self::request(opnum, body)
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let order = self.order;
        let mut out = vec![4, self.ptype, self.flags1, 0];
        out.extend([if order == Order::Little { 0x10 } else { 0 }, 0, 0, 0x12]);
        for (start, end) in [(0xdea0_0000, 1), (0xdea0_0001, 0xdf7d), (0xa0a1_a2a3, 2)] {
            order.put_u32(&mut out, start);
            order.put_u16(&mut out, 0x6c97);
            order.put_u16(&mut out, 0x11d1);
            out.extend([0x82, 0x71, 0x00, 0xa0, 0x24, 0x42]);
            // The last octets tell the interface, and one activity from another.
            match start {
                0xa0a1_a2a3 => out.extend([0, self.activity]),
                _ => out.extend(u16::to_be_bytes(end)),
            }
        }
        for number in [7, 1, self.sequence] {
            order.put_u32(&mut out, number);
        }
        let length = u16::try_from(self.body.len()).unwrap();
        for number in [self.opnum, 0xffff, 0xffff, length, self.fragment] {
            order.put_u16(&mut out, number);
        }
        out.extend([0, 0x34]);
        out.extend(&self.body);
        out
    }

    /// Parses it, for as long as the test runs.
    pub(crate) fn rpc(&self) -> Rpc<'static> {
        Rpc::parse(self.bytes().leak()).unwrap()
    }
}

/// What stands in front of the blocks; `first` is ArgsMaximum or PNIOStatus.
pub(crate) fn ndr(order: Order, first: u32, blocks: &[u8]) -> Vec<u8> {
    let length = blocks.len() as u32;
    let mut out = Vec::new();
    for number in [first, length, 4096, 0, length] {
        order.put_u32(&mut out, number);
    }
    out.extend_from_slice(blocks);
    out
}

pub(crate) fn block(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16 + 2;
    [
        &kind.to_be_bytes()[..],
        &length.to_be_bytes(),
        &[1, 0],
        content,
    ]
    .concat()
}

/// A Connect request.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) ar_type: u16,
    pub(crate) uuid: [u8; 16],
    pub(crate) session_key: u16,
    pub(crate) mac: Mac,
    pub(crate) properties: u32,
    /// Kind, reference, FrameID.
    pub(crate) iocrs: Vec<(u16, u16, u16)>,
    pub(crate) alarm: Option<u16>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            ar_type: 1,
            uuid: AR_UUID,
            session_key: 1,
            mac: CONTROLLER,
            properties: 0x11,
            iocrs: vec![(1, 1, 0xc001), (2, 2, 0xffff)],
            alarm: Some(3),
        }
    }
}

impl Connect {
    pub(crate) fn ar(&self) -> Vec<u8> {
        let mut content = self.ar_type.to_be_bytes().to_vec();
        content.extend(self.uuid);
        content.extend(self.session_key.to_be_bytes());
        content.extend(self.mac.0);
        content.extend([0xde; 16]);
        content.extend(self.properties.to_be_bytes());
        content.extend([0x02, 0x58, 0x88, 0x92, 0, 5]);
        content.extend(b"plc-1");
        block(0x0101, &content)
    }

    /// 8 ms, watchdog factor 3, 40 octets of data: two objects and one IOCS.
    pub(crate) fn iocr((kind, reference, frame_id): (u16, u16, u16)) -> Vec<u8> {
        let mut content = Vec::new();
        for number in [kind, reference, 0x8892, 0, 1, 40, frame_id, 32, 8, 1, 0] {
            content.extend(u16::to_be_bytes(number));
        }
        content.extend([0xff; 4]);
        for number in [3, 3, 0xc000] {
            content.extend(u16::to_be_bytes(number));
        }
        content.extend([0; 6]);
        // One API, 0, and its lists.
        for number in [1, 0, 0, 2, 0, 1, 0, 1, 1, 2, 1, 2, 1, 39] {
            content.extend(u16::to_be_bytes(number));
        }
        block(0x0102, &content)
    }

    pub(crate) fn alarm(reference: u16) -> Vec<u8> {
        let mut content = Vec::new();
        for number in [1, 0x8892, 0, 0, 1, 3, reference, 200, 0xc000, 0xa000] {
            content.extend(u16::to_be_bytes(number));
        }
        block(0x0103, &content)
    }

    /// Two submodules in slot 1: inputs and outputs, and none of both.
    pub(crate) fn expected() -> Vec<u8> {
        let mut content = Vec::new();
        for number in [1, 0, 0, 1, 0, 0x20, 0, 2] {
            content.extend(u16::to_be_bytes(number));
        }
        for number in [1, 0, 0x21, 3, 1, 4, 0x0101, 2, 8, 0x0101] {
            content.extend(u16::to_be_bytes(number));
        }
        for number in [2, 0, 0x22, 0, 1, 0, 0x0101] {
            content.extend(u16::to_be_bytes(number));
        }
        block(0x0104, &content)
    }

    pub(crate) fn blocks(&self) -> Vec<u8> {
        let mut out = self.ar();
        for iocr in &self.iocrs {
            out.extend(Self::iocr(*iocr));
        }
        out.extend(Self::expected());
        out.extend(self.alarm.map(Self::alarm).unwrap_or_default());
        out
    }

    /// The blocks of a device that takes it; it calls its own FrameIDs `frame_ids`, in the order
    /// of the IOCRs.
    pub(crate) fn answer(&self, frame_ids: &[u16], alarm: u16) -> Vec<u8> {
        let mut content = self.ar_type.to_be_bytes().to_vec();
        content.extend(self.uuid);
        content.extend(self.session_key.to_be_bytes());
        content.extend(DEVICE.0);
        content.extend([0x88, 0x92]);
        let mut out = block(0x8101, &content);
        for ((kind, reference, _), frame_id) in self.iocrs.iter().zip(frame_ids) {
            let content: Vec<_> = [*kind, *reference, *frame_id]
                .into_iter()
                .flat_map(u16::to_be_bytes)
                .collect();
            out.extend(block(0x8102, &content));
        }
        if self.alarm.is_some() {
            let content: Vec<_> = [1, alarm, 200]
                .into_iter()
                .flat_map(u16::to_be_bytes)
                .collect();
            out.extend(block(0x8103, &content));
        }
        out
    }
}

/// A record's header of 64 octets, and the octets behind it.
pub(crate) fn record(kind: u16, uuid: [u8; 16], index: u16, data: &[u8]) -> Vec<u8> {
    let mut content = vec![0, 9];
    content.extend(uuid);
    content.extend([0, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    content.extend(index.to_be_bytes());
    content.extend((data.len() as u32).to_be_bytes());
    content.extend([0; 24]);
    let mut out = block(kind, &content);
    out.extend(data);
    out
}

/// A control block of any type.
pub(crate) fn control(kind: u16, uuid: [u8; 16], command: u16) -> Vec<u8> {
    let mut content = vec![0, 0];
    content.extend(uuid);
    content.extend([0, 1, 0, 0]);
    content.extend(command.to_be_bytes());
    content.extend([0, 0]);
    block(kind, &content)
}
