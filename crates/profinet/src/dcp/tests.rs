use super::*;

#[test]
fn a_station_is_asked_for_by_its_name() {
    let name = "drive-1".parse().unwrap();
    let request = identify_request(&name, 7, 1);
    assert_eq!(request[..2], FrameId::DCP_IDENTIFY.0.to_be_bytes());
    let pdu = Pdu::parse(&request[2..]).unwrap();
    assert_eq!((pdu.xid, pdu.delay_factor), (7, 1));
    assert_eq!(pdu.frame_id(), FrameId::DCP_IDENTIFY);
    let blocks: Vec<_> = pdu.blocks().collect();
    let [Ok(block)] = blocks[..] else {
        panic!("{blocks:?}")
    };
    assert_eq!(block.value(), Ok(Value::Name(Text(b"drive-1"))));
}
