//! What a reader of files is told in place of `serde`'s own words.

/// How a key is written, by its path; the first that fits the end of the path.
const EXAMPLES: [(&str, &str); 32] = [
    ("state", "state = \"/var/lib/fieldlock/edge\""),
    ("policy", "policy = \"/etc/fieldlock/policy.toml\""),
    ("drain", "drain = \"5s\""),
    ("sandbox", "sandbox = true"),
    ("headend.name", "name = \"hd-1\""),
    ("headend.address", "address = [\"hd-1.dmz.example:4433\"]"),
    ("headend.transport", "transport = \"auto\""),
    ("headend", "[[headend]]"),
    ("device.name", "name = \"press-07\""),
    ("device.answer_within", "answer_within = \"1s\""),
    ("device.edge", "edge = \"press-07\""),
    ("device.listen", "listen = \"10.1.0.7:502\""),
    ("modbus_tcp.address", "address = \"192.0.2.10:502\""),
    (
        "modbus_tcp",
        "modbus_tcp = { address = \"192.0.2.10:502\" }",
    ),
    (
        "modbus_rtu.path",
        "path = \"/dev/serial/by-id/usb-adapter\"",
    ),
    (
        "modbus_rtu",
        "modbus_rtu = { path = \"/dev/serial/by-id/usb-adapter\", baud = 19200 }",
    ),
    ("device", "[[device]]"),
    ("tunnel.listen", "listen = [\"[::]:4433\"]"),
    ("tunnel", "[tunnel]"),
    ("listener.address", "address = \"10.1.0.5:502\""),
    ("unit.device", "device = \"press-07\""),
    ("unit.unit", "unit = 7"),
    (
        "listener.unit",
        "unit = [{ unit = 7, device = \"press-07\", device_unit = 1 }]",
    ),
    ("listener", "[[listener]]"),
    ("ca.name", "name = \"ca\""),
    ("bundle.signers", "signers = [\"p256:...\"]"),
    ("bundle.files", "files = [\"/etc/fieldlock/fleet.bundle\"]"),
    ("monitor.listen", "listen = \"127.0.0.1:9464\""),
    ("interface", "interface = \"enp3s0\""),
    ("station.name", "name = \"drive-1\""),
    ("mac", "mac = \"00:1b:1b:01:02:03\""),
    ("hold", "hold = { max_age = \"50ms\" }"),
];

/// `message` of `serde` or `toml` about the key at `path` (`device.modbus_tcp`; empty where it is not known), as a
/// reader of the file needs it: what the key wants, and how that is written.
pub(super) fn in_words(message: &str, path: &str) -> String {
    let key = path.rsplit('.').next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let message = rest.replacen(", expected one of ", " is no key here; the keys are ", 1);
        let message = message.replacen(", expected ", " is no key here; the keys are ", 1);
        return with_nearest(&message);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let message = rest.replacen(", expected one of ", " is no choice; choose from ", 1);
        let message = message.replacen(", expected ", " is no choice; choose from ", 1);
        return of_key(key, &with_nearest(&message));
    }
    if message.starts_with("missing field ") {
        return with_example(&format!("`{key}` is missing"), path);
    }
    let value = message.strip_prefix("invalid type: ");
    let value = value.or_else(|| message.strip_prefix("invalid value: "));
    if let Some((got, wanted)) = value.and_then(|value| value.rsplit_once(", expected ")) {
        let text = format!(
            "is {}, and has to be {}",
            given(got),
            wanted_in_words(wanted)
        );
        let text = match key {
            "" => format!("this {text}"),
            _ => format!("`{key}` {text}"),
        };
        return with_example(&text, path);
    }
    if message == "invalid socket address syntax" {
        let text = of_key(key, "this is no IP address with a port");
        return format!(
            "{text}\nhint: write an IP address and a port, such as \"10.1.0.7:502\" or \"[::]:502\""
        );
    }
    of_key(key, message)
}

fn of_key(key: &str, message: &str) -> String {
    match key {
        "" => message.to_owned(),
        _ => format!("`{key}`: {message}"),
    }
}

fn with_example(text: &str, path: &str) -> String {
    let fits = |end: &str| path == end || path.ends_with(&format!(".{end}"));
    match EXAMPLES.iter().find(|(end, _)| fits(end)) {
        Some((_, example)) => format!("{text}\nhint: write {example}"),
        None => text.to_owned(),
    }
}

/// What stands there.
fn given(got: &str) -> String {
    let (kind, value) = got.split_once(' ').unwrap_or((got, ""));
    let value = value.trim_matches('`');
    match kind {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        "string" => format!("the text {value}"),
        "integer" => format!("the number {value}"),
        "boolean" => value.to_owned(),
        "floating" => format!("the number {}", value.trim_start_matches("point `")),
        _ => got.to_owned(),
    }
}

/// What has to stand there.
fn wanted_in_words(wanted: &str) -> String {
    match wanted {
        "a sequence" => "a list, in [ ]",
        "a string" | "path string" => "a text, in quotes",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number from 0",
        "a map" => "a table",
        _ if wanted.starts_with("struct ") => "a table, under a [header] or in { }",
        _ => wanted,
    }
    .to_owned()
}

const DID_YOU_MEAN: &str = "\nhint: did you mean `";

/// The key that a message of [`in_words`] takes to be meant.
pub(super) fn nearest_in(message: &str) -> Option<&str> {
    message.split_once(DID_YOU_MEAN)?.1.split('`').next()
}

/// Adds the nearest of the words in backticks to the first of them, which nobody knows.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if let Some(wrong) = quoted.next() {
        let nearest = quoted
            .map(|key| (strsim::jaro_winkler(wrong, key), key))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, key)) = nearest.filter(|(likeness, _)| *likeness > 0.7) {
            return format!("{message}{DID_YOU_MEAN}{key}`?");
        }
    }
    message.to_owned()
}
