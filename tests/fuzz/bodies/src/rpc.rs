//! Calls of PROFINET's connection management.

use fieldlock_profinet::cm::{ConnectRequest, Message, index_name, refuse};
use fieldlock_profinet::epm;
use fieldlock_profinet::fragments::{MAX_MESSAGE, Reassembly};
use fieldlock_profinet::iandm::Im0;
use fieldlock_profinet::rpc::{HEADER, Interface, PacketType, Rpc};
use fieldlock_profinet::status::PnioStatus;

use crate::input::Input;

/// "Access denied", as a Write is told.
const DENIED: PnioStatus = PnioStatus {
    code: 0xdf,
    decode: 0x80,
    code1: 0xb6,
    code2: 0,
};

/// Datagrams, each behind its length in two octets: what is read lies within them, every iterator
/// ends, and what is refused gets an answer that is sound itself.
pub fn profinet_rpc(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pieces = Reassembly::default();
    while !input.is_empty() {
        let length = input.u16();
        let datagram = input.take(length.into());
        let rpc = match Rpc::parse(datagram) {
            Ok(rpc) => rpc,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        assert_eq!(rpc.body, &datagram[HEADER..]);
        let whole = match rpc.is_fragment() {
            true => pieces.push(&rpc),
            false => Ok(Some(rpc.body)),
        };
        match whole {
            Ok(Some(body)) => call(&rpc, body),
            Ok(None) => assert!(!rpc.is_last()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn call(rpc: &Rpc<'_>, body: &[u8]) {
    assert!(body.len() <= MAX_MESSAGE);
    if rpc.interface == Interface::EndpointMapper {
        return lookup(rpc, body);
    }
    let message = Message::parse(rpc, body);
    match &message {
        Ok(message) => walk(message, body),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let refusal = refuse::response(rpc, DENIED);
    assert_eq!(refusal.is_some(), rpc.ptype == PacketType::Request);
    if let Some(refusal) = refusal {
        check_refusal(rpc, &refusal, message.is_ok());
    }
}

/// What the endpoint mapper is asked, and says; who asks may be told that there is none.
fn lookup(rpc: &Rpc<'_>, body: &[u8]) {
    match epm::Message::parse(rpc, body) {
        Ok(epm::Message::Found(found)) => {
            let texts = found.entries().map(|entry| entry.annotation.len());
            assert!(texts.sum::<usize>() <= body.len());
            assert!(found.ports().count() <= 8);
        }
        Ok(epm::Message::Lookup(lookup)) => assert!(lookup.inquiry <= 3),
        Ok(epm::Message::Free | epm::Message::Freed) => assert!(body.len() >= 20),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let none = refuse::no_interface(rpc);
    assert_eq!(none.is_some(), rpc.ptype == PacketType::Request);
    if let Some(none) = none {
        let answer = Rpc::parse(&none).unwrap();
        assert_eq!(
            (answer.ptype, answer.call()),
            (PacketType::Reject, rpc.call())
        );
        assert_eq!(answer.body.len(), 4);
    }
}

/// It answers this call and says nothing but the status; to a message that was understood its own
/// blocks are such too.
fn check_refusal(request: &Rpc<'_>, refusal: &[u8], understood: bool) {
    assert!(refusal.len() <= HEADER + 20 + 64);
    let answer = Rpc::parse(refusal).unwrap();
    assert_eq!(answer.ptype, PacketType::Response);
    assert_eq!(
        (answer.order, answer.object, answer.interface),
        (request.order, request.object, request.interface)
    );
    assert_eq!(
        (answer.activity, answer.sequence, answer.opnum),
        (request.activity, request.sequence, request.opnum)
    );
    assert!(!answer.is_fragment());
    if !understood {
        return;
    }
    let status = match Message::parse(&answer, answer.body).unwrap() {
        Message::ConnectResponse(answer) => answer.status,
        Message::ReleaseResponse(answer) | Message::ControlResponse(answer) => answer.status,
        Message::ReadResponse(answer) => {
            assert!(answer.data.is_empty());
            answer.status
        }
        Message::WriteResponse(answer) => {
            assert!(answer.items().all(|written| written.status == DENIED));
            answer.status
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(status, DENIED);
}

/// Asks a message for all that it says.
fn walk(message: &Message<'_>, body: &[u8]) {
    match message {
        Message::ConnectRequest(request) => check_connect(request, body),
        Message::ConnectResponse(answer) => {
            assert!(answer.iocrs().count() <= body.len() / 12);
            assert_eq!(
                answer.alarm_reference(),
                answer.alarm_cr().map(|alarm| alarm.local_reference)
            );
            assert!(!(answer.modules_differ() && body.len() < 26));
            assert!(!answer.status.to_string().is_empty());
        }
        Message::ReleaseRequest(control) => assert_eq!(control.block, 0x0114),
        Message::ControlRequest(control) => assert!((0x0110..=0x0118).contains(&control.block)),
        Message::ReleaseResponse(answer) | Message::ControlResponse(answer) => {
            assert!(!answer.status.to_string().is_empty());
            if let Some(control) = answer.control {
                assert!((0x8110..=0x8118).contains(&control.block));
            }
        }
        Message::ReadRequest(access) | Message::ReadImplicitRequest(access) => {
            assert!(!index_name(access.index).is_empty());
        }
        Message::ReadResponse(answer) => {
            let said = answer.access.map_or(0, |access| access.length as usize);
            assert_eq!(answer.data.len(), said);
            if let Some(im0) = Im0::of(answer) {
                assert!(im0.order_id.len() <= 20 && im0.serial_number.len() <= 16);
                assert!(!im0.software_revision.to_string().is_empty());
            }
        }
        Message::WriteRequest(write) => {
            let mut octets = 0;
            let mut records = 0;
            let mut broken = false;
            for item in write.items() {
                assert!(!broken, "a record behind what could not be read");
                records += 1;
                match item {
                    Ok(item) => {
                        assert_eq!(item.data.len(), item.access.length as usize);
                        octets += 64 + item.data.len();
                    }
                    Err(_) => broken = true,
                }
            }
            assert!(records > 0 && octets <= body.len());
        }
        Message::WriteResponse(answer) => {
            assert!(answer.items().count() <= body.len() / 64);
        }
    }
}

fn check_connect(request: &ConnectRequest<'_>, body: &[u8]) {
    let ar = request.ar();
    if let Some(name) = ar.name() {
        assert_eq!(name.as_str().as_bytes(), ar.station_name);
    }
    for iocr in request.iocrs() {
        assert!(iocr.watchdog() >= iocr.cycle() || iocr.watchdog_factor == 0);
        let mut places = 0;
        for api in iocr.apis() {
            for place in api.data.chain(api.status) {
                assert!(place.offset < iocr.data_length);
                places += 1;
            }
        }
        assert!(places <= body.len() / 6);
    }
    for submodule in request.expected() {
        assert!(submodule.input.is_some() || submodule.output.is_some());
    }
    assert!(request.expected().count() <= body.len() / 14);
    let others = request
        .others()
        .map(|(_, length)| 6 + length)
        .sum::<usize>();
    assert!(others <= body.len());
}
