//! What Fieldlock sees in a message, in tshark's words.

use fieldlock_profinet::ArType;
use fieldlock_profinet::cm::{
    ArBlock, ConnectRequest, ConnectResponse, Control, ExpectedSubmodule, Iocr, IocrKind, Message,
    RecordAccess,
};
use fieldlock_profinet::rpc::{Interface, Order, PacketType, Rpc};
use fieldlock_profinet::status::PnioStatus;

/// Values with the block in which they stand (0: in front of the blocks) and tshark's name.
#[derive(Debug, Default)]
pub(super) struct Facts(pub(super) Vec<(u16, &'static str, String)>);

/// Stands for the type of a block that a Connect has besides those that are read.
pub(super) const BESIDES: &str = "another block";

/// Blocks whose fields are compared.
pub(super) const BLOCKS: [u16; 30] = [
    0, 0x0008, 0x0009, 0x0101, 0x0102, 0x0103, 0x0104, 0x0110, 0x0111, 0x0112, 0x0113, 0x0114,
    0x0116, 0x0117, 0x0118, 0x8008, 0x8009, 0x8101, 0x8102, 0x8103, 0x8110, 0x8111, 0x8112, 0x8113,
    0x8114, 0x8116, 0x8117, 0x8118, 0x0115, 0x8115,
];

impl Facts {
    fn put(&mut self, block: u16, name: &'static str, value: impl ToString) {
        self.0.push((block, name, value.to_string()));
    }

    pub(super) fn header(&mut self, rpc: &Rpc<'_>) {
        let ptype = match rpc.ptype {
            PacketType::Request => 0,
            PacketType::Ping => 1,
            PacketType::Response => 2,
            PacketType::Fault => 3,
            PacketType::Working => 4,
            PacketType::NoCall => 5,
            PacketType::Reject => 6,
            PacketType::Ack => 7,
            PacketType::ClientCancel => 8,
            PacketType::Fack => 9,
            PacketType::CancelAck => 10,
        };
        let pnio = |number| format!("dea0000{number}-6c97-11d1-8271-00a02442df7d");
        let interface = match rpc.interface {
            Interface::Device => pnio(1),
            Interface::Controller => pnio(2),
            Interface::Supervisor => pnio(3),
            Interface::ParameterServer => pnio(4),
            Interface::EndpointMapper => "e1af8308-5d1f-11c9-91a4-08002b14a0fa".into(),
            Interface::Other(uuid) => uuid.to_string(),
        };
        self.put(0, "dcerpc.pkt_type", ptype);
        self.put(0, "dcerpc.dg_flags1", rpc.flags1);
        self.put(0, "dcerpc.dg_flags2", rpc.flags2);
        self.put(
            0,
            "dcerpc.drep.byteorder",
            u8::from(rpc.order == Order::Little),
        );
        self.put(0, "dcerpc.obj_id", rpc.object);
        self.put(0, "dcerpc.dg_if_id", interface);
        self.put(0, "dcerpc.dg_act_id", rpc.activity);
        self.put(0, "dcerpc.dg_seqnum", rpc.sequence);
        self.put(0, "dcerpc.opnum", rpc.opnum);
        self.put(0, "dcerpc.dg_frag_len", rpc.body.len());
        self.put(0, "dcerpc.dg_frag_num", rpc.fragment);
        self.put(0, "dcerpc.dg_serial_hi", rpc.serial >> 8);
        self.put(0, "dcerpc.dg_serial_lo", rpc.serial & 0xff);
    }

    pub(super) fn message(&mut self, message: &Message<'_>) {
        match message {
            Message::ConnectRequest(connect) => self.connect(connect),
            Message::ConnectResponse(answer) => self.connected(answer),
            Message::ReleaseRequest(control) | Message::ControlRequest(control) => {
                self.control(control);
            }
            Message::ReleaseResponse(answer) | Message::ControlResponse(answer) => {
                self.status(0, answer.status);
                answer
                    .control
                    .iter()
                    .for_each(|control| self.control(control));
            }
            Message::ReadRequest(access) => self.record(0x0009, access),
            Message::ReadImplicitRequest(access) => {
                self.record(0x0009, access);
                self.put(0x0009, "pn_io.target_ar_uuid", access.target_ar);
            }
            Message::ReadResponse(answer) => {
                self.status(0, answer.status);
                answer
                    .access
                    .iter()
                    .for_each(|access| self.record(0x8009, access));
            }
            Message::WriteRequest(write) => {
                let several = write.outer.index == 0xe040;
                let outer = several.then_some(&write.outer);
                outer
                    .into_iter()
                    .for_each(|outer| self.record(0x0008, outer));
                for item in write.items() {
                    self.record(0x0008, &item.unwrap().access);
                }
            }
            Message::WriteResponse(answer) => {
                self.status(0, answer.status);
                for written in answer.items() {
                    self.record(0x8008, &written.access);
                    self.status(0x8008, written.status);
                }
            }
        }
    }

    fn status(&mut self, block: u16, status: PnioStatus) {
        self.put(block, "pn_io.error_code", status.code);
        self.put(block, "pn_io.error_decode", status.decode);
        self.put(block, "pn_io.error_code1", status.code1);
        self.put(block, "pn_io.error_code2", status.code2);
    }

    fn connect(&mut self, connect: &ConnectRequest<'_>) {
        self.ar(&connect.ar());
        connect.iocrs().for_each(|iocr| self.iocr(&iocr));
        if let Some(alarm) = connect.alarm_cr() {
            self.put(0x0103, "pn_io.alarmcr_type", alarm.kind);
            self.put(0x0103, "pn_io.lt", alarm.lt);
            self.put(0x0103, "pn_io.alarmcr_properties", alarm.properties);
            self.put(0x0103, "pn_io.rta_timeoutfactor", alarm.timeout_factor);
            self.put(0x0103, "pn_io.rta_retries", alarm.retries);
            self.put(0x0103, "pn_io.localalarmref", alarm.local_reference);
            self.put(0x0103, "pn_io.maxalarmdatalength", alarm.max_data);
            self.put(0x0103, "pn_io.alarmcr_tagheaderhigh", alarm.tag_high);
            self.put(0x0103, "pn_io.alarmcr_tagheaderlow", alarm.tag_low);
        }
        for (kind, _) in connect.others() {
            self.put(kind, BESIDES, kind);
        }
        let mut module = None;
        for submodule in connect.expected() {
            let own = (submodule.api, submodule.slot, submodule.module);
            if module.replace(own) != Some(own) {
                self.put(0x0104, "pn_io.api", submodule.api);
                self.put(0x0104, "pn_io.slot_nr", submodule.slot);
                self.put(0x0104, "pn_io.module_ident_number", submodule.module);
            }
            self.submodule(&submodule);
        }
    }

    fn submodule(&mut self, submodule: &ExpectedSubmodule) {
        self.put(0x0104, "pn_io.subslot_nr", submodule.subslot);
        self.put(0x0104, "pn_io.submodule_ident_number", submodule.submodule);
        self.put(0x0104, "pn_io.submodule_properties", submodule.properties);
        for described in submodule.input.iter().chain(&submodule.output) {
            self.put(0x0104, "pn_io.submodule_data_length", described.length);
            self.put(0x0104, "pn_io.length_iocs", described.iocs_length);
            self.put(0x0104, "pn_io.length_iops", described.iops_length);
        }
    }

    fn ar(&mut self, ar: &ArBlock<'_>) {
        self.put(0x0101, "pn_io.artype_req", ar_type(ar.ar_type));
        self.put(0x0101, "pn_io.ar_uuid", ar.ar_uuid);
        self.put(0x0101, "pn_io.session_key", ar.session_key);
        self.put(0x0101, "pn_io.cminitiator_mac_add", ar.mac);
        self.put(0x0101, "pn_io.cminitiator_uuid", ar.object);
        self.put(0x0101, "pn_io.ar_properties", ar.properties.0);
        let timeout = ar.activity_timeout_100ms;
        self.put(0x0101, "pn_io.cminitiator_activitytimeoutfactor", timeout);
        self.put(0x0101, "pn_io.cminitiator_udprtport", ar.udp_rt_port);
        self.put(0x0101, "pn_io.station_name_length", ar.station_name.len());
        let name = String::from_utf8_lossy(ar.station_name);
        self.put(0x0101, "pn_io.cminitiator_station_name", name);
    }

    fn iocr(&mut self, iocr: &Iocr<'_>) {
        self.put(0x0102, "pn_io.iocr_type", iocr_type(iocr.kind));
        self.put(0x0102, "pn_io.iocr_reference", iocr.reference);
        self.put(0x0102, "pn_io.lt", iocr.lt);
        self.put(0x0102, "pn_io.iocr_properties", iocr.properties);
        self.put(0x0102, "pn_io.iocr_properties.rtclass", iocr.rt_class());
        self.put(0x0102, "pn_io.data_length", iocr.data_length);
        self.put(0x0102, "pn_io.frame_id", iocr.frame_id.0);
        self.put(0x0102, "pn_io.send_clock_factor", iocr.send_clock);
        self.put(0x0102, "pn_io.reduction_ratio", iocr.reduction_ratio);
        self.put(0x0102, "pn_io.phase", iocr.phase);
        self.put(0x0102, "pn_io.sequence", iocr.sequence);
        self.put(0x0102, "pn_io.frame_send_offset", iocr.frame_send_offset);
        self.put(0x0102, "pn_io.watchdog_factor", iocr.watchdog_factor);
        self.put(0x0102, "pn_io.data_hold_factor", iocr.data_hold_factor);
        self.put(0x0102, "pn_io.iocr_tag_header", iocr.tag_header);
        self.put(0x0102, "pn_io.iocr_multicast_mac_add", iocr.multicast);
        self.put(0x0102, "pn_io.number_of_apis", iocr.apis().count());
        for api in iocr.apis() {
            self.put(0x0102, "pn_io.api", api.api);
            self.put(0x0102, "pn_io.number_of_io_data_objects", api.data.count());
            self.put(0x0102, "pn_io.number_of_iocs", api.status.count());
            for (places, offset) in [
                (api.data, "pn_io.io_data_object.frame_offset"),
                (api.status, "pn_io.iocs_frame_offset"),
            ] {
                for place in places {
                    self.put(0x0102, "pn_io.slot_nr", place.slot);
                    self.put(0x0102, "pn_io.subslot_nr", place.subslot);
                    self.put(0x0102, offset, place.offset);
                }
            }
        }
    }

    fn connected(&mut self, answer: &ConnectResponse<'_>) {
        self.status(0, answer.status);
        if let Some(ar) = answer.ar() {
            self.put(0x8101, "pn_io.ar_type", ar_type(ar.ar_type));
            self.put(0x8101, "pn_io.ar_uuid", ar.ar_uuid);
            self.put(0x8101, "pn_io.session_key", ar.session_key);
            self.put(0x8101, "pn_io.cmresponder_macadd", ar.mac);
            self.put(0x8101, "pn_io.cmresponder_udprtport", ar.udp_rt_port);
        }
        for iocr in answer.iocrs() {
            self.put(0x8102, "pn_io.iocr_type", iocr_type(iocr.kind));
            self.put(0x8102, "pn_io.iocr_reference", iocr.reference);
            self.put(0x8102, "pn_io.frame_id", iocr.frame_id.0);
        }
        if let Some(alarm) = answer.alarm_cr() {
            self.put(0x8103, "pn_io.alarmcr_type", alarm.kind);
            self.put(0x8103, "pn_io.localalarmref", alarm.local_reference);
            self.put(0x8103, "pn_io.maxalarmdatalength", alarm.max_data);
        }
    }

    fn control(&mut self, control: &Control) {
        let block = control.block;
        self.put(block, "pn_io.ar_uuid", control.ar_uuid);
        self.put(block, "pn_io.session_key", control.session_key);
        self.put(block, "pn_io.control_command", control.command);
        let properties = match block {
            0x0112 => "pn_io.control_block_properties.appl_ready",
            _ => "pn_io.control_block_properties",
        };
        self.put(block, properties, control.properties);
    }

    fn record(&mut self, block: u16, access: &RecordAccess) {
        self.put(block, "pn_io.seq_number", access.sequence);
        self.put(block, "pn_io.ar_uuid", access.ar_uuid);
        self.put(block, "pn_io.api", access.api);
        self.put(block, "pn_io.slot_nr", access.slot);
        self.put(block, "pn_io.subslot_nr", access.subslot);
        self.put(block, "pn_io.index", access.index);
        self.put(block, "pn_io.record_data_length", access.length);
    }
}

fn ar_type(kind: ArType) -> u16 {
    match kind {
        ArType::IoController => 1,
        ArType::Supervisor => 6,
        ArType::RtClass3 => 0x10,
        ArType::Redundant => 0x20,
        ArType::Other(code) => code,
    }
}

fn iocr_type(kind: IocrKind) -> u16 {
    match kind {
        IocrKind::Input => 1,
        IocrKind::Output => 2,
        IocrKind::MulticastProvider => 3,
        IocrKind::MulticastConsumer => 4,
        IocrKind::Other(code) => code,
    }
}
