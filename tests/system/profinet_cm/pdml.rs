//! What tshark sees in frames: its PDML, one field a line.

use std::path::Path;
use std::process::Command;

use fieldlock_testkit::peers::Peer;

/// A field that stands in the frame itself; what tshark adds of its own has no octets.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// Numbers in decimal, as far as they are numbers.
    pub(super) show: String,
    /// In hex.
    value: String,
}

/// The fields of one frame, in their order.
#[derive(Debug)]
pub(super) struct Dissected {
    /// From 1.
    pub(super) frame: u32,
    pub(super) fields: Vec<Field>,
    /// Severities of expert information, and malformed packets, in words.
    pub(super) complaints: Vec<String>,
}

impl Dissected {
    /// The octets of a field.
    pub(super) fn octets(&self, name: &str) -> Option<Vec<u8>> {
        let field = self.fields.iter().find(|field| field.name == name)?;
        let digits: Vec<_> = field.value.bytes().collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.chunks_exact(2).map(octet).collect()
    }
}

/// The frames of a file to which `filter` applies.
pub(super) fn dissect(file: &Path, filter: &str) -> Vec<Dissected> {
    let output = Command::new(Peer::find("tshark").unwrap())
        .args(["-n", "-T", "pdml", "-Y", filter, "-r"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    read(&String::from_utf8_lossy(&output.stdout))
}

fn read(pdml: &str) -> Vec<Dissected> {
    let mut frames = Vec::new();
    for packet in pdml.split("<packet>").skip(1) {
        let mut dissected = Dissected {
            frame: 0,
            fields: Vec::new(),
            complaints: Vec::new(),
        };
        for line in packet.lines().map(str::trim_start) {
            let text = |name| attribute(line, name).unwrap_or_default();
            let name = text("name");
            match name.as_str() {
                "frame.number" => dissected.frame = text("show").parse().unwrap(),
                "_ws.expert" => dissected.complaints.push(text("showname")),
                "_ws.malformed" => dissected.complaints.push("malformed".to_owned()),
                _ => {}
            }
            if line.starts_with("<field") && text("size") != "0" && !name.is_empty() {
                let value = text("value");
                let show = match name.as_str() {
                    // Shown by its name only.
                    "pn_io.artype_req" => format!("0x{value}"),
                    _ => text("show"),
                };
                dissected.fields.push(Field {
                    name,
                    show: plain(show),
                    value,
                });
            }
        }
        frames.push(dissected);
    }
    frames
}

fn attribute(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

fn plain(show: String) -> String {
    match show
        .strip_prefix("0x")
        .map(|hex| u64::from_str_radix(hex, 16))
    {
        Some(Ok(number)) => number.to_string(),
        _ => show,
    }
}
