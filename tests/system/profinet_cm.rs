//! Every RPC PDU of the PROFINET captures as Fieldlock reads it and as tshark does, field by field.

mod facts;
mod pdml;

use std::collections::{BTreeMap, HashMap};

use fieldlock_profinet::cm::Message;
use fieldlock_profinet::fragments::Reassembly;
use fieldlock_profinet::rpc::{PacketType, Rpc};
use fieldlock_testkit::capture::data_folder;
use fieldlock_tests::trial;
use libtest_mimic::Trial;

use facts::{BESIDES, BLOCKS, Facts};
use pdml::{Dissected, dissect};

/// The captures, how many RPC PDUs they hold, and how many values were compared.
const CAPTURES: [(&str, usize, usize); 8] = [
    ("icsnpp_profinet_io_cm_connect.pcapng", 328, 26751),
    ("icsnpp_profinet_io_cm_connect_minimal.pcapng", 2, 190),
    ("icsnpp_profinet_io_cm_control.pcapng", 289, 5489),
    ("icsnpp_profinet_io_cm_device.pcapng", 10, 412),
    ("icsnpp_profinet_io_cm_mixed_1.pcap", 38, 1916),
    ("icsnpp_profinet_io_cm_read.pcapng", 18, 399),
    ("icsnpp_profinet_io_cm_release.pcapng", 6, 114),
    ("icsnpp_profinet_io_cm_write.pcapng", 308, 12178),
];

pub(crate) fn trials() -> Vec<Trial> {
    let capture = |&(file, pdus, values): &(&'static str, usize, usize)| {
        let name = format!("profinet_cm::{file}");
        let path = data_folder().map(|folder| folder.join("profinet").join(file));
        match path.filter(|path| path.exists()) {
            None => trial::ignored(&name, "no such capture; FIELDLOCK_DATA names the folder"),
            Some(path) => trial::with_peers(&name, &["tshark"], move || {
                let compared = compare(&dissect(&path, "dcerpc"));
                let total: usize = compared.values().sum();
                eprintln!("{file}: {total} values");
                for ((block, field), count) in &compared {
                    eprintln!("  {block:#06x} {field}: {count}");
                }
                assert_eq!(compared[&(0, "dcerpc.pkt_type")], pdus);
                assert_eq!(total, values);
            }),
        }
    };
    CAPTURES.iter().map(capture).collect()
}

/// Compares all frames; how many values of each field there were.
fn compare(frames: &[Dissected]) -> BTreeMap<(u16, &'static str), usize> {
    let mut compared = BTreeMap::new();
    let mut pieces: HashMap<_, Reassembly> = HashMap::new();
    for frame in frames {
        let octets = frame.octets("udp.payload").unwrap();
        let number = frame.frame;
        let rpc = Rpc::parse(&octets).unwrap_or_else(|error| panic!("frame {number}: {error}"));
        let mut facts = Facts::default();
        facts.header(&rpc);
        let whole = match rpc.is_fragment() {
            false => Some(rpc.body),
            true => {
                let call = (rpc.activity, rpc.sequence, rpc.ptype == PacketType::Request);
                let message = pieces.entry(call).or_default();
                message
                    .push(&rpc)
                    .unwrap_or_else(|error| panic!("frame {number}: {error}"))
            }
        };
        let carries = matches!(rpc.ptype, PacketType::Request | PacketType::Response);
        if let Some(body) = whole.filter(|_| carries) {
            let message = Message::parse(&rpc, body);
            facts.message(&message.unwrap_or_else(|error| panic!("frame {number}: {error}")));
        }
        let theirs = theirs(frame, &facts);
        let mut ours: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (block, name, value) in facts.0 {
            ours.entry((block, name)).or_default().push(value);
        }
        for (key, values) in &ours {
            assert_eq!(theirs.get(key), Some(values), "frame {number}: {key:?}");
            *compared.entry(*key).or_default() += values.len();
        }
        let extra: Vec<_> = theirs
            .keys()
            .filter(|key| !ours.contains_key(key))
            .collect();
        assert!(extra.is_empty(), "frame {number}: {extra:?}");
    }
    compared
}

/// Fields of compared blocks that say nothing of their own, or nothing that Fieldlock needs.
const READ_OVER: [&str; 17] = [
    // In front of the blocks: parsing fails if they do not fit each other.
    "pn_io.args_max",
    "pn_io.args_len",
    "pn_io.array",
    "pn_io.array_max_count",
    "pn_io.array_offset",
    "pn_io.array_act_count",
    // Nodes of tshark's tree, and block headers, without which nothing would be read.
    "pn_io.block",
    "pn_io.block_header",
    "pn_io.block_type",
    "pn_io.block_length",
    "pn_io.block_version_high",
    "pn_io.block_version_low",
    "pn_io.status",
    // Reserved, or of no meaning to a gateway.
    "pn_io.reserved16",
    "pn_io.add_val1",
    "pn_io.add_val2",
    "pn_io.module_properties",
];

/// The same of the RPC header: its parts are compared, or fixed.
const OF_HEADER: [&str; 10] = [
    "dcerpc.ver",
    "dcerpc.drep",
    "dcerpc.drep.character",
    "dcerpc.drep.fp",
    "dcerpc.dg_if_ver",
    "dcerpc.dg_ihint",
    "dcerpc.dg_ahint",
    "dcerpc.dg_auth_proto",
    "dcerpc.dg_server_boot",
    "dcerpc.payload_stub_data",
];

/// Blocks of Connect and Control answers and of ApplicationReady that only say more about what is
/// compared (ModuleDiffBlock, ARServerBlockRes), and what such a block or ARFSUBlock holds within
/// (PDInterfaceAdjust, FSParameterBlock).
const MORE: [u16; 4] = [0x8104, 0x8106, 0x0250, 0x0601];

/// The values that tshark has for what [`Facts`] speak of.
fn theirs(frame: &Dissected, ours: &Facts) -> BTreeMap<(u16, &'static str), Vec<String>> {
    let number = frame.frame;
    let mut all: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut block = 0;
    let mut in_record = false;
    for field in &frame.fields {
        let name = field.name.as_str();
        if name == "pn_io.block_type" {
            block = field.show.parse().unwrap();
            in_record |= matches!(block, 0x0008 | 0x8009);
            // What stands in records is not read, and blocks that a Connect has besides are named.
            let named = |(kind, name, _): &(u16, _, _)| *kind == block && *name == BESIDES;
            let known = BLOCKS.contains(&block) || MORE.contains(&block);
            let explained = known || in_record || ours.0.iter().any(named);
            assert!(explained, "frame {number}: block {block:#06x}");
            if !known && !in_record {
                let value = field.show.clone();
                all.entry((block, BESIDES)).or_default().push(value);
            }
        }
        let bits = name
            .strip_prefix("pn_io.")
            .is_some_and(|rest| rest.contains('.'));
        let compared = ours.0.iter().find(|(_, own, _)| *own == name);
        let over = READ_OVER.contains(&name) || OF_HEADER.contains(&name);
        // Parts of the AR UUID of an AR that is redundant.
        let parts = [
            "arnumber",
            "arresource",
            "arreserved",
            "configid",
            "discriminator",
            "selector",
        ];
        let part = name.strip_prefix("pn_io.ar_");
        let part = part.is_some_and(|part| parts.contains(&part));
        let tree = part || name.ends_with("_tree") || TREES.contains(&name);
        let flags = [
            "dcerpc.dg_flags1_",
            "dcerpc.dg_flags2_",
            "dcerpc.fragment",
            "dcerpc.fack_",
        ];
        let flags = flags.iter().any(|start| name.starts_with(start));
        let of_protocol = name.starts_with("pn_io.") || name.starts_with("dcerpc.");
        // How many APIs a block of submodules has shows in its modules.
        let over = over || (block == 0x0104 && name == "pn_io.number_of_apis");
        // A redundant AR's UUID comes a second time, above its parts.
        let again = block == 0x0101 && name == "pn_io.ar_uuid" && {
            let first = all.get(&(0x0101, "pn_io.ar_uuid"));
            first.is_some_and(|first| first.last() == Some(&field.show))
        };
        match compared {
            _ if again => {}
            _ if !BLOCKS.contains(&block) || !of_protocol || over => {}
            Some((_, own, _)) => all
                .entry((block, *own))
                .or_default()
                .push(field.show.clone()),
            None => assert!(
                bits || tree || flags,
                "frame {number}: {name} is not compared"
            ),
        }
    }
    all
}

/// Nodes of tshark's tree.
const TREES: [&str; 4] = [
    "pn_io.io_data_object",
    "pn_io.io_cs",
    "pn_io.data_description",
    "pn_io.number_of_submodules",
];
