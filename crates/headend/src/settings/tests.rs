use fieldlock_agent::settings::{checked, parse};
use fieldlock_profinet::Mac;

use super::*;

#[test]
fn an_address_without_a_port_gets_a_hint() {
    let text = "state = \"s\"\npolicy = \"p\"\n[tunnel]\nlisten = [\"127.0.0.1\"]\n";
    let file = Path::new("headend.toml");
    let parsed: Result<File, _> = parse(text, file, File::LISTS, HashMap::new());
    let text = parsed.unwrap_err().to_string();
    assert!(
        text.contains("hint: write an IP address and a port"),
        "{text}"
    );
}

#[test]
fn the_environment_overrides_scalars_and_lists() {
    let text = "state = \"a\"\npolicy = \"p\"\n[tunnel]\nlisten = [\"[::]:4433\"]\n";
    let variables = HashMap::from([
        ("FIELDLOCK__STATE".into(), "b".into()),
        (
            "FIELDLOCK__TUNNEL__LISTEN".into(),
            "127.0.0.1:1,127.0.0.1:2".into(),
        ),
    ]);
    let file: File = parse(text, Path::new("headend.toml"), File::LISTS, variables).unwrap();
    assert_eq!(file.state, Path::new("b"));
    assert_eq!(file.tunnel.listen.len(), 2);
}

#[test]
fn the_least_version_of_tls_is_a_text_in_the_file_and_the_environment() {
    let load = |text: &str, variables| -> Result<File, _> {
        parse(text, Path::new("headend.toml"), File::LISTS, variables)
    };
    let text = "state = \"a\"\npolicy = \"p\"\n";
    assert_eq!(
        load(text, HashMap::new()).unwrap().mbaps.tls,
        MinimumTls::Tls13
    );
    let variables = HashMap::from([("FIELDLOCK__MBAPS__TLS".into(), "1.2".into())]);
    assert_eq!(load(text, variables).unwrap().mbaps.tls, MinimumTls::Tls12);
    let error = load(&format!("{text}[mbaps]\ntls = \"1.1\"\n"), HashMap::new());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("headend.toml:4:"), "{error}");
    assert!(error.contains("use \"1.3\" or \"1.2\""), "{error}");
}

// --- PROFINET

const HEADEND: &str = r#"
state = "s"
policy = "p"
"#;
const WIRE: &str = "[profinet]\ninterface = \"enp3s0\"\n";
const STATION: &str = "[[station]]\nname = \"drive-1\"\n";
const CONTROLLER: &str = "[[controller]]\nname = \"plc-1\"\nmac = \"00:1b:1b:01:02:03\"\n";

fn headend(text: &str) -> Result<File, SettingsError> {
    let (text, file) = (format!("{HEADEND}{text}"), Path::new("headend.toml"));
    let parsed: File = parse(&text, file, File::LISTS, HashMap::new())?;
    checked(&parsed, file, Checks::new(&text))?;
    Ok(parsed)
}

#[test]
fn a_station_belongs_to_the_edge_of_its_name_or_another() {
    let bound = |keys: &str| {
        let file = headend(&format!("{WIRE}{STATION}{keys}{CONTROLLER}"))?;
        Ok::<_, SettingsError>(file.station[0].edge().to_owned())
    };
    assert_eq!(bound("").unwrap(), "drive-1");
    assert_eq!(bound("edge = \"cell-4\"\n").unwrap(), "cell-4");
    assert!(bound("edge = \"Cell 4\"\n").is_err());
}

#[test]
fn who_may_be_heard_is_said_once() {
    let right = format!("{WIRE}{STATION}");
    for (text, part) in [
        (right.clone(), "[[station]] without [[controller]]"),
        (CONTROLLER.to_owned(), "[[controller]] without [[station]]"),
        (
            format!("{right}{CONTROLLER}{CONTROLLER}"),
            "duplicate controller `plc-1`",
        ),
        (
            format!(
                "{right}{CONTROLLER}{}",
                CONTROLLER.replace("plc-1", "plc-2")
            ),
            "another controller or station has its `mac`",
        ),
        (
            format!("{right}{}", CONTROLLER.replace("00:1b", "ff:1b")),
            "no station's own address",
        ),
        (
            format!("{right}mac = \"00:1b:1b:01:02:03\"\n{CONTROLLER}"),
            "another controller or station has its `mac`",
        ),
        (
            format!(
                "{WIRE}{}{CONTROLLER}",
                STATION.replace("drive-1", "drive-1.line-4")
            ),
            "name the edge that offers it in `edge`",
        ),
    ] {
        let refused = headend(&text).unwrap_err().to_string();
        assert!(refused.contains(part), "{text}: {refused}");
    }
    let file = headend(&format!("{right}{CONTROLLER}")).unwrap();
    assert_eq!(file.controller[0].mac, Mac([0, 0x1b, 0x1b, 1, 2, 3]));
}
