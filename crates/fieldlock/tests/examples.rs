//! The files under `examples/` are what people start from: they must be valid, and fit together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use fieldlock_edge::settings as edge;
use fieldlock_headend::settings as headend;
use fieldlock_pki::Name;
use fieldlock_policy::{Controller, Policy, Side, StationOrigin, warnings};
use tempfile::TempDir;

fn plants() -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let plants: Vec<_> = fs::read_dir(examples)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("policy.toml").exists())
        .collect();
    assert!(plants.len() >= 2, "{plants:?}");
    plants
}

/// A copy of a plant's files where its configurations look for what they name.
fn installed(plant: &Path) -> TempDir {
    let directory = TempDir::new().unwrap();
    for entry in fs::read_dir(plant)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let text = fs::read_to_string(&entry).unwrap_or_default();
        let here = directory.path().join(entry.file_name().unwrap());
        fs::write(here, text.replace("/etc/fieldlock/", "")).unwrap();
    }
    directory
}

#[test]
fn every_example_parses_and_its_policy_draws_no_warning() {
    for plant in plants() {
        let files = installed(&plant);
        let plant = files.path();
        edge::File::load(&plant.join("edge.toml")).unwrap_or_else(|error| panic!("{error}"));
        headend::File::load(&plant.join("headend.toml")).unwrap_or_else(|error| panic!("{error}"));
        let file = plant.join("policy.toml");
        let text = fs::read_to_string(&file).unwrap();
        let policy = Policy::parse(&text, &file.display().to_string())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let warnings: Vec<_> = warnings(&policy, 0)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(warnings.is_empty(), "{}: {warnings:?}", file.display());
    }
}

#[test]
fn headend_and_edge_of_a_plant_name_the_same_devices() {
    for plant in plants() {
        let files = installed(&plant);
        let plant = files.path();
        let edge = edge::File::load(&plant.join("edge.toml")).unwrap();
        let headend = headend::File::load(&plant.join("headend.toml")).unwrap();
        let mut offered: Vec<_> = edge.device.iter().map(|d| d.name.clone()).collect();
        let mut bound: Vec<_> = headend.device.iter().map(|d| d.name.clone()).collect();
        offered.sort();
        bound.sort();
        assert_eq!(offered, bound, "{}", plant.display());
        for device in &headend.device {
            assert!(device.edge().parse::<Name>().is_ok());
            let mapped = headend.listener.iter().flat_map(|l| &l.unit);
            let reachable =
                device.listen.is_some() || mapped.into_iter().any(|m| m.device == device.name);
            assert!(reachable, "no client reaches {}", device.name);
        }
    }
}

#[test]
fn headend_and_edge_of_a_plant_name_the_same_stations_and_controllers_have_rules() {
    let mut seen = 0;
    for plant in plants() {
        let files = installed(&plant);
        let plant = files.path();
        let edge = edge::File::load(&plant.join("edge.toml")).unwrap();
        let headend = headend::File::load(&plant.join("headend.toml")).unwrap();
        let mut offered: Vec<_> = edge.station.iter().map(|s| (&s.name, s.mac)).collect();
        let mut bound: Vec<_> = headend.station.iter().map(|s| (&s.name, s.mac)).collect();
        offered.sort_by_key(|(name, _)| name.as_str());
        bound.sort_by_key(|(name, _)| name.as_str());
        assert_eq!(offered, bound, "{}", plant.display());
        let text = fs::read_to_string(plant.join("policy.toml")).unwrap();
        let policy = Policy::parse(&text, "policy.toml").unwrap();
        for controller in &headend.controller {
            let origin = StationOrigin {
                side: Side::Headend,
                via: None,
                controller: Controller {
                    mac: controller.mac,
                    station: None,
                },
            };
            let mut views = bound
                .iter()
                .map(|(name, _)| policy.station_view(&origin, name));
            assert!(
                views.any(|view| view.any()),
                "no rule for {}",
                controller.name
            );
            seen += 1;
        }
    }
    assert!(seen > 0);
}
