//! The published schemas are those of the types; and a document is read by other versions.

use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::{ANSWER_SCHEMA, Answer, Refused, SCHEMA, Status, edge, headend, profinet};

/// As it is written: with all fields, and others to come.
fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
}

fn schema_of<T: JsonSchema>(title: &str) -> String {
    let schema = generator().into_root_schema_for::<T>();
    let mut schema = serde_json::to_value(schema).unwrap();
    schema["title"] = title.into();
    tidy(&mut schema);
    format!("{schema:#}\n")
}

/// What is there for a reader that misses a field is nothing to say of a document as it is written.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // Names of fields are not keywords.
            let is_keyword = object.contains_key("type") || object.contains_key("$ref");
            if is_keyword {
                object.remove("default");
            }
            // `uint64` and the like, of which validators know nothing.
            if object.get("format").is_some_and(Value::is_string) {
                object.remove("format");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[track_caller]
fn held(file: &str, written: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(file);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    assert!(
        written == made,
        "{file} is another: run `UPDATE_EXPECTED=1 cargo test -p fieldlock-status`"
    );
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    held(
        "status.schema.json",
        SCHEMA,
        &schema_of::<Status>("Fieldlock status"),
    );
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for its schema alone")]
enum Said {
    Answer(Answer),
    Refused(Refused),
}

#[test]
fn so_is_that_of_answers() {
    let made = schema_of::<Said>("Fieldlock control socket: answers");
    held("control.schema.json", ANSWER_SCHEMA, &made);
}

fn whole_edge() -> Status {
    let direction = profinet::Direction {
        from: "device".into(),
        cycle_ms: 32.0,
        ..profinet::Direction::default()
    };
    Status::Edge(Box::new(edge::Edge {
        bundle: Some(edge::Bundle {
            version: 3,
            signer: Some("p256:x".into()),
            waiting: Some(edge::NextBundle::default()),
            ..edge::Bundle::default()
        }),
        headends: vec![edge::Headend {
            tunnels: vec![edge::Tunnel {
                round_trip_ms: Some(1.5),
                stations: Some(crate::Stations::default()),
                ..edge::Tunnel::default()
            }],
            ..edge::Headend::default()
        }],
        devices: vec![edge::Device {
            units_held_off: vec![7],
            quirks: vec![edge::Quirk::default()],
            ..edge::Device::default()
        }],
        profinet: Some(profinet::Profinet {
            dropped: [("denied".to_owned(), 3)].into(),
            ars: vec![profinet::Ar {
                directions: vec![
                    profinet::Direction {
                        sent: Some(profinet::Sent::default()),
                        ..direction.clone()
                    },
                    profinet::Direction {
                        given_out: Some(profinet::GivenOut::default()),
                        ..direction
                    },
                ],
                ..profinet::Ar::default()
            }],
            ended: vec![profinet::EndedAr::default()],
            stations: vec![profinet::Station::default()],
            controllers: vec![profinet::Controller::default()],
            ..profinet::Profinet::default()
        }),
        ..edge::Edge::default()
    }))
}

fn whole_headend() -> Status {
    Status::Headend(Box::new(headend::Headend {
        tunnels: vec![headend::Tunnel {
            bundle: Some(headend::Bundle {
                refused: Some(headend::PendingBundle::default()),
                ..headend::Bundle::default()
            }),
            ..headend::Tunnel::default()
        }],
        refusals: vec![headend::Refusal::default()],
        devices: vec![headend::Device::default()],
        clients: headend::Clients {
            count: 1,
            connections: vec![headend::Client::default()],
        },
        ..headend::Headend::default()
    }))
}

#[test]
fn a_document_is_read_as_it_was_written() {
    for status in [whole_edge(), whole_headend()] {
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }
}

#[test]
fn so_is_one_of_a_version_that_says_more_or_less() {
    for role in ["edge", "headend"] {
        let status: Status = serde_json::from_value(json!({ "role": role })).unwrap();
        assert_eq!(status.role(), role);
        assert_eq!(status.common().identity, "");
    }
    assert!(serde_json::from_value::<Status>(json!({ "role": "console" })).is_err());
    assert!(serde_json::from_value::<Status>(json!({ "identity": "x" })).is_err());
}

/// Puts a field that no reader knows into each object of `value`, or takes the n-th field out.
fn disturb(value: &mut Value, drop: &mut usize) {
    match value {
        Value::Object(object) => {
            let names: Vec<String> = object.keys().cloned().collect();
            for name in names {
                *drop = drop.wrapping_sub(1);
                match object.get_mut(&name) {
                    // Counts by reasons: its keys are no fields.
                    Some(_) if name == "dropped" => {}
                    // Without its role it is no status.
                    Some(_) if *drop == 0 && name != "role" => {
                        object.remove(&name);
                    }
                    Some(inner) => disturb(inner, drop),
                    None => {}
                }
            }
            object.insert("from_the_future".to_owned(), json!([1, { "a": null }]));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| disturb(item, drop)),
        _ => {}
    }
}

#[test]
fn no_field_that_is_missing_and_none_that_is_new_keeps_a_reader_from_the_rest() {
    for status in [whole_edge(), whole_headend()] {
        for place in 1..200 {
            let mut value = serde_json::to_value(&status).unwrap();
            let mut drop = place;
            disturb(&mut value, &mut drop);
            let read = serde_json::from_value::<Status>(value.clone());
            assert!(read.is_ok(), "{value:#}: {read:?}");
        }
    }
}
