//! Identification and maintenance (I&M): what a device says that it is.
//!
//! ```text
//! block 0x0020: vendor(2) order-id(20) serial-number(16) hardware-revision(2) software-revision(4)
//!               revision-counter(2) profile(2) profile-type(2) version(2) supported(2)
//! ```
//! Source: IEC 61158-6-10, I&M0; PROFIBUS and PROFINET guideline 3.502 (I&M functions).

use std::fmt;

use crate::cm::ReadResponse;
use crate::reader::{Reader, Short};

/// Index of the record.
pub const IM0: u16 = 0xaff0;

const BLOCK: u16 = 0x0020;

/// I&M0 of one submodule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Im0<'a> {
    /// VendorID, as PI gave it.
    pub vendor: u16,
    /// Without the blanks that fill it up to 20 octets; ASCII of a device that keeps to the rules.
    pub order_id: &'a [u8],
    /// Likewise, up to 16 octets.
    pub serial_number: &'a [u8],
    pub hardware_revision: u16,
    pub software_revision: SoftwareRevision,
}

/// A prefix that says what kind of release it is (V: released, R: revision, P: prototype, U: under
/// test, T: test device), and three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftwareRevision {
    pub prefix: u8,
    pub numbers: [u8; 3],
}

impl<'a> Im0<'a> {
    /// Out of the answer to a read of [`IM0`]; `None` for another record, a refusal, or a block
    /// that is not as the standard wants it.
    pub fn of(response: &ReadResponse<'a>) -> Option<Self> {
        let read = response.access.is_some_and(|access| access.index == IM0);
        (response.status.is_ok() && read)
            .then(|| Self::read(response.data).ok().flatten())
            .flatten()
    }

    fn read(data: &'a [u8]) -> Result<Option<Self>, Short> {
        let mut reader = Reader::new(data);
        let kind = reader.u16()?;
        let length = reader.u16()?;
        let mut content = reader.sub(length.into())?;
        let version = content.u16()?;
        if kind != BLOCK || version >> 8 != 1 {
            return Ok(None);
        }
        Ok(Some(Self {
            vendor: content.u16()?,
            order_id: content.take(20)?.trim_ascii(),
            serial_number: content.take(16)?.trim_ascii(),
            hardware_revision: content.u16()?,
            software_revision: SoftwareRevision {
                prefix: content.u8()?,
                numbers: content.array()?,
            },
        }))
    }
}

impl fmt::Display for SoftwareRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        let prefix = char::from(self.prefix).to_ascii_uppercase();
        match prefix {
            'A'..='Z' => write!(f, "{prefix}{major}.{minor}.{patch}"),
            _ => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cm::{Message, index_name};
    use crate::rpc::Order;
    use crate::testing::{AR_UUID, Pdu, block, ndr, record};

    fn im0() -> Vec<u8> {
        let mut content = vec![0x00, 0x2a];
        content.extend(b"6ES7 155-6AU01-0BN0 ");
        content.extend(b"S C-X12345678   ");
        content.extend([0, 5, b'V', 4, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0x1e]);
        block(BLOCK, &content)
    }

    fn read(status: u32, index: u16, data: &[u8]) -> ReadResponse<'static> {
        let blocks = record(0x8009, AR_UUID, index, data);
        let rpc = Pdu::response(2, &ndr(Order::Big, status, &blocks)).rpc();
        match Message::parse(&rpc, rpc.body) {
            Ok(Message::ReadResponse(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_device_is_known_by_its_order_id_and_serial_number() {
        let response = read(0, IM0, &im0());
        let im0 = Im0::of(&response).unwrap();
        assert_eq!(im0.vendor, 0x2a);
        assert_eq!(im0.order_id, b"6ES7 155-6AU01-0BN0");
        assert_eq!(im0.serial_number, b"S C-X12345678");
        assert_eq!(im0.hardware_revision, 5);
        assert_eq!(im0.software_revision.to_string(), "V4.2.1");
        assert_eq!(index_name(IM0), "I&M0 (identification)");
    }

    #[test]
    fn other_records_refusals_and_short_blocks_identify_nothing() {
        let whole = im0();
        assert_eq!(Im0::of(&read(0, 0xaff1, &whole)), None);
        assert_eq!(Im0::of(&read(0xde80_b600, IM0, &whole)), None);
        for length in 0..whole.len() {
            assert_eq!(Im0::of(&read(0, IM0, &whole[..length])), None);
        }
        let mut other = whole;
        other[1] = 0x21;
        assert_eq!(Im0::of(&read(0, IM0, &other)), None);
    }
}
