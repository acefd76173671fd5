//! `fieldlock policy schema`: the JSON Schema of a policy file, and the reference made of it.

use std::fmt::Write as _;
use std::process::ExitCode;

use fieldlock_policy::SCHEMA;
use serde_json::{Map, Value};

/// Print the JSON Schema of policy files, for editors, or the reference of all keys.
///
/// Editors that know TOML (taplo, Even Better TOML) check and complete a policy that says in its
/// first line where the schema is: `#:schema ./policy.schema.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fieldlock policy schema > policy.schema.json
  fieldlock policy schema --reference > policy-reference.md")]
pub(super) struct Schema {
    /// Print the reference of all keys, as Markdown.
    #[arg(long)]
    reference: bool,
}

pub(super) fn run(args: &Schema) -> ExitCode {
    match args.reference {
        true => print!("{}", reference()),
        false => print!("{SCHEMA}"),
    }
    ExitCode::SUCCESS
}

/// The tables of a file, in the order in which they are explained, by their definitions.
const TABLES: [(&str, &str); 10] = [
    ("`[[client]]`", "client"),
    ("`[[set]]`", "set"),
    ("`[[allow]]`", "allow"),
    ("`[[deny]]`", "deny"),
    ("`value`", "bounds"),
    ("`time`", "window"),
    ("`rate`", "rate"),
    ("`step`", "step"),
    ("`[[test]]`", "test"),
    ("`given`", "given"),
];

fn reference() -> String {
    // The schema is part of the program, and a test reads it.
    let schema: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    let mut out = String::from(
        "# Policy reference\n\nEvery key of a policy file. Made of the schema: \
         `fieldlock policy schema --reference`. What they mean together: [policy.md](policy.md).\n",
    );
    section(&mut out, "The file", &schema);
    for (title, name) in TABLES {
        section(&mut out, title, &schema["$defs"][name]);
    }
    out
}

fn section(out: &mut String, title: &str, table: &Value) {
    let none = Map::new();
    let required = table["required"].as_array();
    let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|k| k == key));
    // Writing to a String can't fail.
    let _ = write!(
        out,
        "\n## {title}\n\n| key | | values | |\n|---|---|---|---|\n"
    );
    for (key, about) in table["properties"].as_object().unwrap_or(&none) {
        let need = if is_required(key) { "required" } else { "" };
        let text = about["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, "| `{key}` | {need} | {} | {text} |", values(about));
    }
}

/// What may stand there, as far as a cell of a table can say it.
fn values(about: &Value) -> String {
    if let Some(reference) = about["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return match name {
            "name" => "text, at most 100 characters",
            "text" => "text, at most 1,000 characters",
            "clients" | "devices" => "a name, or a list of names",
            "units" => "0 to 255, `\"1-10\"`, or a list",
            "functions" => "a function, or a list",
            "function" => "1 to 127, a name or a group",
            "addresses" => "a range, or a list",
            "address" => "an address",
            "mac" => "an Ethernet address",
            "macs" => "an Ethernet address, or a list",
            "station" => "a name-of-station",
            "stations" => "a name-of-station, or a list",
            "service" => "a service",
            "services" => "a service or group, or a list",
            "ar" => "a kind of AR",
            "ars" => "a kind of AR, or a list",
            "index" => "0 to 65535, or `\"0x8001\"`",
            "records" => "an index or range, or a list",
            "slot" => "a slot",
            "number" => "`int16`, `uint16`, `int32`, `uint32`, `float32`, `float64`",
            "order" => "`\"big\"`, `\"little\"`; `\"big\"` if left out",
            "slots" => "a slot or range, or a list",
            "windows" => "a window, or a list of at most 100",
            _ => "a table, see below",
        }
        .to_owned();
    }
    let choices = about["enum"].as_array().map(|choices| {
        let quoted = choices.iter().map(|choice| format!("`{choice}`"));
        quoted.collect::<Vec<_>>().join(", ")
    });
    let range = || {
        let (least, most) = (about["minimum"].as_i64()?, about["maximum"].as_i64()?);
        Some(format!("{least} to {most}"))
    };
    let what = choices
        .or_else(range)
        .or_else(|| (!about["const"].is_null()).then(|| about["const"].to_string()))
        .unwrap_or_else(|| match (about["type"].as_str(), &about["anyOf"]) {
            (Some("array"), _) => "tables".to_owned(),
            (Some("string"), _) => "text".to_owned(),
            (Some("number"), _) => "a number".to_owned(),
            (None, Value::Array(parts)) if parts.iter().any(|part| part["type"] == "boolean") => {
                "`true`, `false`, or a list of names".to_owned()
            }
            _ => "one, or a list".to_owned(),
        });
    match &about["default"] {
        Value::Null => what,
        default => format!("{what}; `{default}` if left out"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use fieldlock_policy::{Policy, Problem};

    use super::*;

    /// What the parser says that it knows, where `text` has a key that it doesn't.
    fn known(text: &str) -> BTreeSet<String> {
        let errors = Policy::parse(&format!("syntax = 1\n{text}"), "test").unwrap_err();
        let known = errors
            .errors
            .into_iter()
            .find_map(|error| match error.problem {
                Problem::UnknownKey { known, .. } => Some(known),
                _ => None,
            });
        known.unwrap().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_schema_and_the_parser_know_the_same_keys() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let definitions = &schema["$defs"];
        for (text, table) in [
            ("zz = 1", &schema),
            ("[[client]]\nzz = 1", &definitions["client"]),
            ("[[set]]\nzz = 1", &definitions["set"]),
            ("[[allow]]\nzz = 1", &definitions["allow"]),
            ("[[allow]]\nvalue = { zz = 1 }", &definitions["bounds"]),
            ("[[allow]]\ntime = { zz = 1 }", &definitions["window"]),
            ("[[allow]]\nrate = { zz = 1 }", &definitions["rate"]),
            ("[[allow]]\nstep = { zz = 1 }", &definitions["step"]),
            ("[[test]]\nzz = 1", &definitions["test"]),
            ("[[test]]\ngiven = { zz = 1 }", &definitions["given"]),
        ] {
            let properties = table["properties"].as_object().unwrap();
            let mut listed: BTreeSet<String> = properties.keys().cloned().collect();
            if table == &definitions["allow"] {
                // The parser has one list for both kinds of rules.
                listed.insert("reason".to_owned());
            }
            assert_eq!(known(text), listed, "{text}");
            for (key, about) in properties {
                assert!(about["description"].is_string(), "{text}: {key}");
            }
        }
    }

    #[test]
    fn the_reference_in_the_docs_is_the_one_that_is_made() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy-reference.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            written == reference(),
            "run `fieldlock policy schema --reference > docs/policy-reference.md`"
        );
    }
}
