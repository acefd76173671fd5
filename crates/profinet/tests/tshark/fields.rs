//! What tshark calls the fields, and how it writes them.

use std::collections::BTreeMap;
use std::fmt::Display;

use fieldlock_profinet::alarm::{Body, Notice, Rta};
use fieldlock_profinet::arp::{Arp, Operation, Purpose};
use fieldlock_profinet::cyclic::Cyclic;
use fieldlock_profinet::dcp::{Block, BlockId, Form, IpSuite, Kind, Pdu, ServiceId, Value};
use fieldlock_profinet::ip::Datagram;
use fieldlock_profinet::{Class, Frame, FrameId, Never, classify};
use serde_json::Value as Json;

/// Name of a field, and its values in their order, numbers in decimal.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields(BTreeMap<String, Vec<String>>);

/// Fields of tshark's that are none of ours: others in another form, and what is not looked at.
const PASSED_OVER: [&str; 30] = [
    "pn.padding",
    "pn_rt.ds_Reserved_2",
    "pn_rt.ds_res3",
    "pn_dcp.reserved8",
    "pn_dcp.reserved16",
    "pn_dcp.block_error.unknown",
    // Said beside isgratuitous of some of them.
    "arp.isannouncement",
    "ip.dsfield",
    "ip.dsfield.dscp",
    "ip.dsfield.ecn",
    "ip.id",
    "ip.flags",
    "ip.flags.rb",
    "ip.flags.df",
    "ip.checksum",
    "ip.checksum_calculated",
    "ip.addr",
    "ip.host",
    "ip.src_host",
    "ip.dst_host",
    "udp.port",
    "udp.checksum",
    "udp.checksum_calculated",
    "udp.stream",
    "udp.time_relative",
    "udp.time_delta",
    "udp.checksum.bad",
    "_ws.expert.message",
    "_ws.expert.severity",
    "_ws.expert.group",
];

impl Fields {
    /// The leaves of what tshark says.
    fn of(json: &Json) -> Self {
        let mut fields = Self::default();
        fields.gather("", json);
        for name in PASSED_OVER {
            fields.0.remove(name);
        }
        fields.0.retain(|name, _| !name.starts_with("ip.opt"));
        fields
    }

    fn gather(&mut self, name: &str, json: &Json) {
        match json {
            Json::Object(object) => {
                for (name, json) in object {
                    self.gather(name, json);
                }
            }
            Json::Array(array) => array.iter().for_each(|json| self.gather(name, json)),
            Json::String(text) => self.add(name, text),
            other => panic!("{name}: {other}"),
        }
    }

    fn add(&mut self, name: &str, value: impl Display) {
        let text = value.to_string();
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        let text = number.map_or(text, |number| number.to_string());
        self.0.entry(name.to_owned()).or_default().push(text);
    }
}

macro_rules! fields {
    ($($name:literal: $value:expr),+ $(,)?) => {{
        let mut fields = Fields::default();
        $(fields.add($name, $value);)+
        fields
    }};
}

/// Compares all layers that are ours, and says what kind of frame it was.
pub(super) fn compare(frame: &Frame<'_>, layers: &Json, place: &str) -> &'static str {
    let check = |layer: &str, ours: Fields| {
        assert_eq!(ours, Fields::of(&layers[layer]), "{place}, {layer}");
    };
    ethernet(frame, layers, place);
    let class = classify(frame).unwrap_or_else(|error| panic!("{place}: {error}"));
    match class {
        Class::Cyclic { id, pdu } => {
            // The IOCRs of the captures have a DataLength of 40, the least there is.
            let cyclic = Cyclic::parse(pdu, 40).unwrap();
            check("pn_rt", cyclic_fields(id, &cyclic));
            "cyclic"
        }
        Class::AlarmHigh(rta) => {
            check("pn_rt", fields! { "pn_rt.frame_id": FrameId::ALARM_HIGH.0 });
            check("pn_io", alarm(&rta));
            "alarm"
        }
        Class::AlarmLow(rta) => {
            check("pn_rt", fields! { "pn_rt.frame_id": FrameId::ALARM_LOW.0 });
            check("pn_io", alarm(&rta));
            "alarm"
        }
        Class::Dcp(pdu) => {
            check("pn_rt", fields! { "pn_rt.frame_id": pdu.frame_id().0 });
            dcp(&pdu, &layers["pn_dcp"], place);
            "dcp"
        }
        Class::Arp(packet) => {
            check("arp", arp(&packet));
            "arp"
        }
        Class::Udp(datagram) => {
            check("ip", ip(&datagram));
            check("udp", udp(&datagram));
            "udp"
        }
        Class::Never(never) => {
            match never {
                Never::Ptcp => assert!(layers["pn_ptcp"].is_object(), "{place}"),
                Never::Lldp => assert!(layers["lldp"].is_object(), "{place}"),
                Never::OtherIp(protocol) => {
                    assert_eq!(layers["ip"]["ip.proto"], protocol.to_string(), "{place}");
                }
                // What the layer is called, ethernet() has compared.
                Never::OtherEtherType(_) => {}
                other => panic!("{place}: {other:?}"),
            }
            never.name()
        }
    }
}

fn ethernet(frame: &Frame<'_>, layers: &Json, place: &str) {
    let eth = &layers["eth"];
    assert_eq!(eth["eth.dst"], frame.dst.to_string(), "{place}");
    assert_eq!(eth["eth.src"], frame.src.to_string(), "{place}");
    let ethertype = format!("{:#06x}", frame.ethertype);
    match frame.tag {
        None => {
            assert_eq!(layers["vlan"], Json::Null, "{place}");
            assert_eq!(eth["eth.type"], ethertype, "{place}");
        }
        Some(tag) => {
            let ours = fields! {
                "vlan.priority": tag.priority(),
                "vlan.dei": tag.0 >> 12 & 1,
                "vlan.id": tag.vlan(),
                "vlan.etype": ethertype,
            };
            assert_eq!(ours, Fields::of(&layers["vlan"]), "{place}");
        }
    }
}

fn cyclic_fields(id: FrameId, cyclic: &Cyclic<'_>) -> Fields {
    let status = cyclic.data_status;
    fields! {
        "pn_rt.frame_id": id.0,
        "pn_rt.cycle_counter": cyclic.cycle_counter,
        "pn_rt.ds": status.0,
        "pn_rt.ds_primary": u8::from(status.primary()),
        "pn_rt.ds_redundancy": u8::from(status.redundancy()),
        "pn_rt.ds_valid": u8::from(status.valid()),
        "pn_rt.ds_operate": u8::from(status.run()),
        "pn_rt.ds_ok": u8::from(status.no_problem()),
        "pn_rt.ds_ignore": u8::from(status.ignore()),
        "pn_rt.transfer_status": cyclic.transfer_status,
    }
}

fn alarm(rta: &Rta<'_>) -> Fields {
    let mut fields = fields! {
        "pn_io.alarm_dst_endpoint": rta.destination,
        "pn_io.alarm_src_endpoint": rta.source,
        "pn_io.pdu_type.version": 1,
        "pn_io.window_size": rta.window,
        "pn_io.tack": u8::from(rta.tack),
        "pn_io.send_seq_num": rta.send_sequence,
        "pn_io.ack_seq_num": rta.ack_sequence,
    };
    let (kind, length) = match rta.body {
        Body::Data(data) => (1, data.len()),
        Body::Nack => (2, 0),
        Body::Ack => (3, 0),
        Body::Err { vendor, .. } => (4, 4 + vendor.len()),
    };
    fields.add("pn_io.pdu_type.type", kind);
    fields.add("pn_io.var_part_len", length);
    match rta.body {
        Body::Data(data) => notice(&mut fields, data),
        Body::Nack | Body::Ack => {}
        Body::Err { status, .. } => self::status(&mut fields, status),
    }
    fields
}

fn status(fields: &mut Fields, [code, decode, code1, code2]: [u8; 4]) {
    fields.add("pn_io.error_code", code);
    fields.add("pn_io.error_decode", decode);
    fields.add("pn_io.error_code1", code1);
    fields.add("pn_io.error_code2", code2);
}

fn notice(fields: &mut Fields, data: &[u8]) {
    let notice = Notice::parse(data).unwrap();
    let about = notice.about();
    let block = match (&notice, about.high) {
        (Notice::Alarm(_), true) => 0x0001,
        (Notice::Alarm(_), false) => 0x0002,
        (Notice::Ack(..), true) => 0x8001,
        (Notice::Ack(..), false) => 0x8002,
    };
    fields.add("pn_io.block_type", block);
    fields.add("pn_io.block_length", data.len() - 4);
    fields.add("pn_io.block_version_high", 1);
    fields.add("pn_io.block_version_low", 0);
    fields.add("pn_io.alarm_type", about.alarm_type);
    fields.add("pn_io.api", about.api);
    fields.add("pn_io.slot_nr", about.slot);
    fields.add("pn_io.subslot_nr", about.subslot);
    let specifier = about.specifier;
    fields.add("pn_io.alarm_specifier.sequence", specifier.sequence());
    for (name, set) in [
        ("channel", specifier.channel_diagnosis()),
        ("manufacturer", specifier.manufacturer_diagnosis()),
        ("submodule", specifier.submodule_diagnosis()),
        ("ardiagnosis", specifier.ar_diagnosis()),
    ] {
        fields.add(&format!("pn_io.alarm_specifier.{name}"), u8::from(set));
    }
    match notice {
        Notice::Alarm(notification) => {
            fields.add("pn_io.module_ident_number", notification.module);
            fields.add("pn_io.submodule_ident_number", notification.submodule);
        }
        Notice::Ack(_, status) => self::status(fields, status),
    }
}

fn arp(arp: &Arp) -> Fields {
    let mut fields = fields! {
        "arp.hw.type": 1,
        "arp.proto.type": 0x0800,
        "arp.hw.size": 6,
        "arp.proto.size": 4,
        "arp.opcode": match arp.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        },
        "arp.src.hw_mac": arp.sender_mac,
        "arp.src.proto_ipv4": arp.sender,
        "arp.dst.hw_mac": arp.target_mac,
        "arp.dst.proto_ipv4": arp.target,
    };
    match arp.purpose() {
        Purpose::Announcement => fields.add("arp.isgratuitous", 1),
        Purpose::Probe => fields.add("arp.isprobe", 1),
        Purpose::Request | Purpose::Reply => {}
    }
    fields
}

fn ip(datagram: &Datagram<'_>) -> Fields {
    let ip = &datagram.ip;
    let header = 20 + ip.options().len();
    fields! {
        "ip.version": 4,
        "ip.hdr_len": header,
        "ip.len": header + ip.payload.len(),
        "ip.flags.mf": 0,
        "ip.frag_offset": 0,
        "ip.ttl": ip.ttl,
        "ip.proto": ip.protocol,
        "ip.checksum.status": u8::from(ip.checksum_holds()),
        "ip.src": ip.source,
        "ip.dst": ip.destination,
    }
}

fn udp(datagram: &Datagram<'_>) -> Fields {
    let udp = &datagram.udp;
    let octets: Vec<String> = udp.payload.iter().map(|o| format!("{o:02x}")).collect();
    let mut fields = fields! {
        "udp.srcport": udp.source_port,
        "udp.dstport": udp.destination_port,
        "udp.length": 8 + udp.payload.len(),
        "udp.checksum.status": match udp.has_checksum() {
            true => u8::from(udp.checksum_holds(&datagram.ip)),
            false => 3,
        },
    };
    if !octets.is_empty() {
        fields.add("udp.payload", octets.join(":"));
    }
    fields
}

fn dcp(pdu: &Pdu<'_>, layer: &Json, place: &str) {
    let mut head = layer.clone();
    let theirs = match head.as_object_mut().unwrap().remove("pn_dcp.block") {
        None => Vec::new(),
        Some(Json::Array(blocks)) => blocks,
        Some(block) => vec![block],
    };
    let mut ours = dcp_head(pdu);
    let mut blocks = Vec::new();
    for block in pdu.blocks() {
        let block = block.unwrap();
        match block.form {
            // To tshark no block of its own.
            Form::Selector => dcp_id(&mut ours, block.id),
            _ => blocks.push(dcp_block(&block)),
        }
    }
    assert_eq!(ours, Fields::of(&head), "{place}");
    let theirs: Vec<_> = theirs.iter().map(Fields::of).collect();
    assert_eq!(blocks, theirs, "{place}");
}

fn dcp_head(pdu: &Pdu<'_>) -> Fields {
    let mut fields = fields! {
        "pn_dcp.service_id": match pdu.service {
            ServiceId::Get => 3,
            ServiceId::Set => 4,
            ServiceId::Identify => 5,
            ServiceId::Hello => 6,
        },
        "pn_dcp.service_type": match pdu.kind {
            Kind::Request => 0,
            Kind::Success => 1,
            Kind::Unsupported => 5,
        },
        "pn_dcp.xid": pdu.xid,
        "pn_dcp.data_length": pdu.blocks.len(),
    };
    if (pdu.service, pdu.kind) == (ServiceId::Identify, Kind::Request) {
        fields.add("pn_dcp.response_delay", pdu.delay_factor);
    }
    fields
}

fn dcp_block(block: &Block<'_>) -> Fields {
    let mut fields = Fields::default();
    let value = block.value().unwrap();
    dcp_id(&mut fields, block.id);
    let before = match block.form {
        Form::Selector | Form::Filter | Form::Result => 0,
        Form::Set { qualifier } => {
            let name = match value {
                Value::FactoryReset | Value::ResetToFactory => "pn_dcp.block_qualifier_reset",
                _ => "pn_dcp.block_qualifier",
            };
            fields.add(name, qualifier);
            2
        }
        Form::Content { info } => {
            let name = match value {
                Value::Ip(_) | Value::FullIp(..) => "pn_dcp.suboption_ip_block_info",
                _ => "pn_dcp.block_info",
            };
            fields.add(name, info);
            if block.id == BlockId::IP && info & 0x80 != 0 {
                fields.add("pn_dcp.ip_conflict", "");
            }
            2
        }
    };
    fields.add("pn_dcp.block_length", before + block.data.len());
    match value {
        Value::Nothing | Value::Start | Value::Stop | Value::FactoryReset => {}
        Value::ResetToFactory => {}
        Value::Mac(mac) => fields.add("pn_dcp.suboption_ip_mac_address", mac),
        Value::Ip(suite) | Value::FullIp(suite, _) => ip_suite(&mut fields, suite),
        Value::Vendor(text) => fields.add("pn_dcp.suboption_device_devicevendorvalue", text),
        Value::Name(text) => fields.add("pn_dcp.suboption_device_nameofstation", text),
        Value::Alias(text) => fields.add("pn_dcp.suboption_device_aliasname", text),
        Value::DeviceId { vendor, device } => {
            fields.add("pn_dcp.suboption_vendor_id", vendor);
            fields.add("pn_dcp.suboption_device_id", device);
        }
        Value::OemId { vendor, device } => {
            fields.add("pn_dcp.suboption_device_oem_ven_id", vendor);
            fields.add("pn_dcp.suboption_device_oem_dev_id", device);
        }
        Value::Role(role) => fields.add("pn_dcp.suboption_device_role", role),
        Value::Options(_) => value.options().for_each(|id| dcp_id(&mut fields, id)),
        Value::Instance { high, low } => {
            fields.add("pn_dcp.suboption_device_instance", high);
            fields.add("pn_dcp.suboption_device_instance", low);
        }
        Value::Gateway(address) => fields.add("pn_dcp.suboption_ip_standard_gateway", address),
        Value::Signal(signal) => fields.add("pn_dcp.suboption_control_signal_value", signal),
        Value::Response { id, error } => {
            fields.add("pn_dcp.suboption_control_option", id.option);
            dcp_suboption(&mut fields, id);
            fields.add("pn_dcp.block_error", error.code());
        }
        Value::Initiative(value) => fields.add("pn_dcp.deviceinitiative_value", value),
        Value::Dhcp(_) | Value::Other(_) => panic!("none of these is in the frames"),
    }
    fields
}

fn dcp_id(fields: &mut Fields, id: BlockId) {
    fields.add("pn_dcp.option", id.option);
    dcp_suboption(fields, id);
}

fn dcp_suboption(fields: &mut Fields, id: BlockId) {
    let name = match id.option {
        1 => "pn_dcp.suboption_ip",
        2 => "pn_dcp.suboption_device",
        3 => "pn_dcp.suboption_dhcp",
        5 => "pn_dcp.suboption_control",
        6 => "pn_dcp.suboption_deviceinitiative",
        0xff => "pn_dcp.suboption_all",
        other => panic!("option {other}"),
    };
    fields.add(name, id.suboption);
}

fn ip_suite(fields: &mut Fields, suite: IpSuite) {
    fields.add("pn_dcp.suboption_ip_ip", suite.address);
    fields.add("pn_dcp.suboption_ip_subnetmask", suite.mask);
    fields.add("pn_dcp.suboption_ip_standard_gateway", suite.gateway);
}
