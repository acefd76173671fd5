//! The endpoint mapper of DCE/RPC (C706, appendix O), which a PROFINET station has beside connection
//! management: engineering tools ask it what the station is.
//!
//! ```text
//! lookup: inquiry(4) object-pointer(4) object(16) interface-pointer(4) interface(16) version(2+2)
//!         version-option(4) handle(20) most-entries(4)
//! answer: handle(20) entries(4) max(4) offset(4) actual(4)
//!         each: object(16) tower-pointer(4) offset(4) length(4) annotation(length, padded to 4)
//!         towers of the entries, each: max(4) length(4) octets(length, padded to 4)
//!         status(4)
//! tower:  floors(2), each: length(2) protocol(1) ... length(2) address, little-endian
//! free:   handle(20)      answer: handle(20) status(4)
//! ```
//! Numbers have the octet order of the RPC header. What a null pointer points to is left out, or, as
//! PROFINET's tools do, sent all the same.

use thiserror::Error;

use crate::reader::{Reader, Short};
use crate::rpc::{Order, PacketType, Rpc, Uuid};

/// Operations that say something and change nothing. The others of the interface enter and delete.
pub mod opnum {
    pub const LOOKUP: u16 = 2;
    /// Of C706; PROFINET's tables have it one below.
    pub const HANDLE_FREE: u16 = 4;
    pub const HANDLE_FREE_OF_PROFINET: u16 = 3;
}

/// Octets of a lookup that has all that its pointers may point to.
const WHOLE: usize = 76;
/// Octets of the handle by which a lookup goes on where the one before ended.
const HANDLE: usize = 20;

/// Why a message is none of the endpoint mapper that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EpmError {
    #[error("message of the endpoint mapper is cut short")]
    Short,
    #[error("operation {0} of the endpoint mapper, which is not carried")]
    Operation(u16),
    #[error("inquiry type {0} of the endpoint mapper, which does not exist")]
    Inquiry(u32),
    #[error("{actual} of {max} entries of the endpoint mapper from {offset}")]
    Entries { max: u32, offset: u32, actual: u32 },
    #[error("octets behind a message of the endpoint mapper")]
    Trailing,
    #[error("not a request or a response")]
    Type,
}

impl From<Short> for EpmError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    Lookup(Lookup),
    Found(Found<'a>),
    Free,
    Freed,
}

/// Asks which interfaces there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// 0 all, 1 those of an interface, 2 of an object, 3 of both.
    pub inquiry: u32,
    pub object: Option<Uuid>,
    pub interface: Option<Uuid>,
    pub most_entries: u32,
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    order: Order,
    count: u32,
    entries: Reader<'a>,
}

/// One interface of the station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub object: Uuid,
    has_tower: bool,
    /// Of PROFINET: type, order number, hardware and software version.
    pub annotation: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message: `rpc` is one of its PDUs, `body` all octets behind their headers.
    pub fn parse(rpc: &Rpc<'_>, body: &'a [u8]) -> Result<Self, EpmError> {
        let mut reader = Reader::new(body);
        match (rpc.ptype, rpc.opnum) {
            (PacketType::Request, opnum::LOOKUP) => Ok(Self::Lookup(Lookup::read(
                rpc.order,
                reader,
                body.len() >= WHOLE,
            )?)),
            (PacketType::Response, opnum::LOOKUP) => {
                Ok(Self::Found(Found::read(rpc.order, reader)?))
            }
            (
                PacketType::Request | PacketType::Response,
                opnum::HANDLE_FREE | opnum::HANDLE_FREE_OF_PROFINET,
            ) => {
                reader.take(HANDLE)?;
                let asks = rpc.ptype == PacketType::Request;
                if !asks {
                    reader.u32()?;
                }
                // Of ept_map, which has the same number, there is more.
                finished(reader)?;
                Ok(if asks { Self::Free } else { Self::Freed })
            }
            (PacketType::Request | PacketType::Response, other) => Err(EpmError::Operation(other)),
            _ => Err(EpmError::Type),
        }
    }
}

impl Lookup {
    fn read(order: Order, mut reader: Reader<'_>, whole: bool) -> Result<Self, EpmError> {
        let inquiry = order.u32(reader.array()?);
        if inquiry > 3 {
            return Err(EpmError::Inquiry(inquiry));
        }
        let mut object = None;
        if order.u32(reader.array()?) != 0 || whole {
            object = Some(Uuid::read(reader.array()?, order));
        }
        let mut interface = None;
        if order.u32(reader.array()?) != 0 || whole {
            interface = Some(Uuid::read(reader.array()?, order));
            // Its version, which the version option says what to make of.
            reader.u32()?;
        }
        reader.u32()?;
        reader.take(HANDLE)?;
        let most_entries = order.u32(reader.array()?);
        finished(reader)?;
        Ok(Self {
            inquiry,
            object,
            interface,
            most_entries,
        })
    }
}

impl<'a> Found<'a> {
    fn read(order: Order, mut reader: Reader<'a>) -> Result<Self, EpmError> {
        reader.take(HANDLE)?;
        let count = order.u32(reader.array()?);
        let max = order.u32(reader.array()?);
        let offset = order.u32(reader.array()?);
        let actual = order.u32(reader.array()?);
        if offset != 0 || actual > max || actual != count {
            return Err(EpmError::Entries {
                max,
                offset,
                actual,
            });
        }
        let found = Self {
            order,
            count,
            entries: reader,
        };
        let mut rest = reader;
        for _ in 0..count {
            Entry::read(order, &mut rest)?;
        }
        // Towers say where each interface is reached; the last word is the status.
        match rest.rest().len() >= 4 {
            true => Ok(found),
            false => Err(EpmError::Short),
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        // Each was read before.
        let Self {
            order,
            count,
            mut entries,
        } = *self;
        (0..count).map_while(move |_| Entry::read(order, &mut entries).ok())
    }

    /// The UDP ports at which the interfaces are reached, at most [`MOST_PORTS`]; what can't be read
    /// as a tower names none.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<'a> {
        let Self {
            order, mut entries, ..
        } = *self;
        let mut towers = 0;
        for _ in 0..self.count {
            let entry = Entry::read(order, &mut entries);
            towers += usize::from(entry.is_ok_and(|entry| entry.has_tower));
        }
        let towers = (0..towers).map_while(move |_| tower(order, &mut entries).ok());
        towers.filter_map(udp_port).take(MOST_PORTS)
    }
}

/// Ports of an answer that are looked at.
const MOST_PORTS: usize = 8;
/// Protocol identifier of UDP (C706, appendix I).
const UDP: u8 = 0x08;

fn tower<'a>(order: Order, reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    reader.u32()?;
    let length = usize::try_from(order.u32(reader.array()?)).map_err(|_| Short)?;
    let octets = reader.take(length)?;
    reader.take(length.next_multiple_of(4) - length)?;
    Ok(octets)
}

fn udp_port(tower: &[u8]) -> Option<u16> {
    let mut reader = Reader::new(tower);
    let length = |reader: &mut Reader<'_>| Some(u16::from_le_bytes(reader.array().ok()?));
    let floors = length(&mut reader)?;
    for _ in 0..floors {
        let protocol = length(&mut reader)?;
        let protocol = reader.take(protocol.into()).ok()?;
        let address = length(&mut reader)?;
        let address = reader.take(address.into()).ok()?;
        if let ([UDP, ..], [high, low]) = (protocol, address) {
            return Some(u16::from_be_bytes([*high, *low]));
        }
    }
    None
}

impl<'a> Entry<'a> {
    fn read(order: Order, reader: &mut Reader<'a>) -> Result<Self, Short> {
        let object = Uuid::read(reader.array()?, order);
        let has_tower = order.u32(reader.array()?) != 0;
        reader.u32()?;
        let length = order.u32(reader.array()?);
        let length = usize::try_from(length).map_err(|_| Short)?;
        let annotation = reader.take(length)?;
        reader.take(length.next_multiple_of(4) - length)?;
        Ok(Self {
            object,
            has_tower,
            annotation,
        })
    }
}

/// Some stacks pad the datagram.
fn finished(rest: Reader<'_>) -> Result<(), EpmError> {
    let rest = rest.rest();
    match rest.len() < 8 && rest.iter().all(|octet| *octet == 0) {
        true => Ok(()),
        false => Err(EpmError::Trailing),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Pdu;

    fn words(order: Order, words: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in words {
            order.put_u32(&mut out, *word);
        }
        out
    }

    fn request(order: Order, opnum: u16, body: &[u8]) -> Rpc<'static> {
        let pdu = Pdu {
            order,
            ..Pdu::request(opnum, body)
        };
        pdu.rpc()
    }

    /// As the lookup script of nmap asks.
    fn lookup(order: Order) -> Vec<u8> {
        let mut out = words(order, &[0, 1, 0, 0, 0, 0, 2]);
        order.put_u32(&mut out, 0xdea0_0001);
        order.put_u16(&mut out, 0x6c97);
        order.put_u16(&mut out, 0x11d1);
        out.extend([0x82, 0x71, 0, 0xa0, 0x24, 0x42, 0xdf, 0x7d]);
        out.extend(words(order, &[1, 1, 0, 0, 0, 0, 0, 1]));
        out
    }

    fn found(order: Order, annotation: &[u8]) -> Vec<u8> {
        let mut out = vec![7; HANDLE];
        out.extend(words(order, &[1, 1, 0, 1]));
        out.extend([9; 16]);
        out.extend(words(order, &[3, 0, annotation.len() as u32]));
        out.extend(annotation);
        out.resize(out.len().next_multiple_of(4), 0);
        // Two floors: one of another protocol, one of UDP at port 49344.
        out.extend(words(order, &[15, 15]));
        out.extend([2, 0, 1, 0, 0x0a, 1, 0, 0, 1, 0, UDP, 2, 0, 0xc0, 0xc0, 0]);
        out.extend(words(order, &[0]));
        out
    }

    #[test]
    fn a_lookup_says_what_it_asks_for_in_each_octet_order() {
        for order in [Order::Little, Order::Big] {
            let body = lookup(order);
            assert_eq!(body.len(), WHOLE);
            let rpc = request(order, opnum::LOOKUP, &body);
            let Ok(Message::Lookup(lookup)) = Message::parse(&rpc, rpc.body) else {
                panic!("{:?}", Message::parse(&rpc, rpc.body));
            };
            assert_eq!((lookup.inquiry, lookup.most_entries), (0, 1));
            let interface = lookup.interface.unwrap().to_string();
            assert_eq!(interface, "dea00001-6c97-11d1-8271-00a02442df7d");
            // What null pointers point to may be left out.
            let short = words(order, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 16]);
            let rpc = request(order, opnum::LOOKUP, &short);
            let Ok(Message::Lookup(lookup)) = Message::parse(&rpc, rpc.body) else {
                panic!("{:?}", Message::parse(&rpc, rpc.body));
            };
            assert_eq!((lookup.object, lookup.most_entries), (None, 16));
        }
    }

    #[test]
    fn an_answer_says_what_the_station_is() {
        for order in [Order::Little, Order::Big] {
            let text = b"S7-1500  6ES7 672-5DC01-0YA0  0 V 2 1 7";
            let body = found(order, text);
            let pdu = Pdu {
                order,
                ..Pdu::response(opnum::LOOKUP, &body)
            };
            let rpc = pdu.rpc();
            let Ok(Message::Found(found)) = Message::parse(&rpc, rpc.body) else {
                panic!("{:?}", Message::parse(&rpc, rpc.body));
            };
            let texts: Vec<_> = found.entries().map(|entry| entry.annotation).collect();
            assert_eq!(texts, [&text[..]]);
            assert_eq!(found.ports().collect::<Vec<_>>(), [49_344]);
        }
    }

    #[test]
    fn a_handle_is_freed_and_nothing_is_mapped_entered_or_deleted() {
        let parse = |opnum, body: &[u8]| {
            let rpc = request(Order::Big, opnum, body);
            Message::parse(&rpc, rpc.body).map(|message| message == Message::Free)
        };
        assert_eq!(parse(opnum::HANDLE_FREE, &[7; HANDLE]), Ok(true));
        assert_eq!(
            parse(opnum::HANDLE_FREE_OF_PROFINET, &[7; HANDLE]),
            Ok(true)
        );
        assert_eq!(
            parse(opnum::HANDLE_FREE_OF_PROFINET, &[7; 60]),
            Err(EpmError::Trailing)
        );
        for other in [0, 1, 5, 6, 7] {
            assert_eq!(parse(other, &[]), Err(EpmError::Operation(other)));
        }
        let mut strange = lookup(Order::Big);
        strange[3] = 4;
        assert_eq!(parse(opnum::LOOKUP, &strange), Err(EpmError::Inquiry(4)));
    }

    proptest! {
        #[test]
        fn no_message_panics(
            opnum in 0u16..8,
            little in any::<bool>(),
            answer in any::<bool>(),
            change in prop::option::of((0usize..140, any::<u8>())),
            cut in 0usize..160,
            octets in prop::collection::vec(any::<u8>(), 0..160),
            real in any::<bool>(),
        ) {
            let order = if little { Order::Little } else { Order::Big };
            let mut body = match (real, answer) {
                (false, _) => octets,
                (true, false) => lookup(order),
                (true, true) => found(order, b"S7-1500"),
            };
            if let Some((at, octet)) = change && let Some(place) = body.get_mut(at) {
                *place = octet;
            }
            body.truncate(cut);
            let ptype = if answer { 2 } else { 0 };
            let pdu = Pdu { order, ptype, ..Pdu::request(opnum, &body) };
            let rpc = pdu.rpc();
            if let Ok(Message::Found(found)) = Message::parse(&rpc, rpc.body) {
                let octets: usize = found.entries().map(|entry| entry.annotation.len()).sum();
                prop_assert!(octets <= body.len());
                prop_assert!(found.ports().count() <= MOST_PORTS);
            }
        }
    }
}
