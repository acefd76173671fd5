//! Policies of a fleet: signed offline, carried by headends or by hand, judged by edges.

use std::fs;
use std::path::{Path, PathBuf};

use fieldlock_audit::{Kind, Record};
use fieldlock_policy::Bundle;
use fieldlock_session::frame::{CONTROL, MAX_PIECE};
use fieldlock_session::{Fate, Frame};
use fieldlock_signed::{PublicKey, Signature, Signer as AgentKey};
use fieldlock_testkit::modbus::{read, write_register};
use fieldlock_testkit::process::Directory;
use fieldlock_tests::answers::{
    ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, expect_exception, read_registers, write_one,
};
use fieldlock_tests::rogue::Rogue;
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{
    Agent, EDGE, HEADEND, OPEN_POLICY, Pair, Role, SOON, Setup, Site, Transport, binary, eventually,
};
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use rcgen::PublicKeyData as _;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::negative::hostile_headend::edge_of_a_rogue;
use crate::trust::polls_go_on;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("bundles::commands", commands),
        test("bundles::local_file_narrows_and_never_widens", narrowed),
        test("bundles::brought_by_hand_and_in_force_when_due", by_hand),
        test("bundles::refusal_is_seen_at_the_headend", refusal_is_seen),
    ];
    trials.extend(both("bundles::carried_to_a_running_edge", carried));
    trials.extend(both(
        "bundles::polls_go_on_while_one_waits_for_the_disk",
        slow_disk,
    ));
    trials.extend(both("attacks::a21_bundles_of_a_hostile_headend", hostile));
    trials
}

/// Who signs policies.
struct Signer {
    directory: Directory,
    public: String,
}

impl Signer {
    fn new() -> Self {
        let directory = Directory::new().unwrap();
        let passphrase = Site::shared().passphrase_file();
        let public = binary::run_ok(&[
            &"policy",
            &"key",
            &directory.join("policy.key"),
            &"--passphrase-file",
            &passphrase,
        ]);
        let public = public.trim().to_owned();
        Self { directory, public }
    }

    /// A bundle of `policy` for these edges, with these arguments more.
    fn sign(&self, version: u32, policy: &str, more: &[&str]) -> String {
        let file = self.directory.write("policy.toml", policy).unwrap();
        let output = self.directory.join("signed.bundle");
        let passphrase = Site::shared().passphrase_file();
        let mut command = binary::command();
        command.args(["policy", "sign"]).arg(file);
        command.arg("--key").arg(self.directory.join("policy.key"));
        command.arg("--passphrase-file").arg(passphrase);
        command.arg("--version").arg(version.to_string());
        command.arg("-o").arg(&output).args(more);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", binary::text(&done));
        fs::read_to_string(output).unwrap()
    }

    fn for_any(&self, version: u32, policy: &str) -> String {
        self.sign(version, policy, &["--any-edge"])
    }

    /// The table of an edge that pins this signer.
    fn pinned(&self) -> String {
        format!("[bundle]\nsigners = [\"{}\"]\n", self.public)
    }
}

const READS: &str = "syntax = 1\n[[allow]]\nname = \"reads\"\ndevice = \"any\"\nfunction = \"read\"\naddress = \"any\"\n";

/// Puts a bundle where an agent looks, in one step.
fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, file).unwrap();
}

/// Of the bundle in force at the edge.
fn version(edge: &Agent) -> Value {
    edge.try_status().unwrap_or_default()["bundle"]["version"].clone()
}

fn wait_version(pair: &Pair, wanted: u32) {
    eventually(&format!("bundle {wanted} in force"), || {
        version(&pair.edge) == wanted
    });
}

fn has_alarm(agent: &Agent, name: &str) -> bool {
    agent.alarms().iter().any(|alarm| alarm == name)
}

/// What the headend knows of the edge's bundle.
fn known(pair: &Pair) -> Value {
    pair.headend.status()["tunnels"][0]["bundle"].clone()
}

fn says(record: &Record, text: &str) -> bool {
    record
        .reason
        .as_ref()
        .is_some_and(|reason| reason.contains(text))
}

fn slow_disk(transport: Transport) {
    let signer = Signer::new();
    let file = signer.directory.join("fleet.bundle");
    put(&file, &signer.for_any(1, READS));
    let pair = Setup::new(transport)
        .edge(&signer.pinned())
        .headend(&format!("[bundle]\nfiles = [{file:?}]\n"))
        .up();
    wait_version(&pair, 1);
    let disk = pair.edge.hold_disk();
    put(&file, &signer.for_any(2, READS));
    polls_go_on(&pair);
    // What is not on the disk is not in force.
    assert_eq!(version(&pair.edge), 1);
    drop(disk);
    wait_version(&pair, 2);
    assert_eq!(pair.edge.audit_kind(Kind::TunnelUp).len(), 1);
}

fn carried(transport: Transport) {
    let signer = Signer::new();
    let file = signer.directory.join("fleet.bundle");
    let mut pair = Setup::new(transport)
        .edge(&signer.pinned())
        .headend(&format!("[bundle]\nfiles = [{file:?}]\n"))
        .up();

    // Before any has come nothing crosses, whatever the local file allows.
    assert!(has_alarm(&pair.edge, "policy-bundle-missing"));
    let mut client = pair.client();
    expect_exception(&mut client, &read(3, 0, 1), ILLEGAL_FUNCTION);

    // A client that stays connected is judged by each as it comes.
    put(&file, &signer.for_any(1, READS));
    wait_version(&pair, 1);
    assert!(!has_alarm(&pair.edge, "policy-bundle-missing"));
    read_registers(&mut client, 0, 1);
    expect_exception(&mut client, &write_register(40, 7), ILLEGAL_FUNCTION);
    put(&file, &signer.sign(2, OPEN_POLICY, &["--edge", EDGE]));
    wait_version(&pair, 2);
    write_one(&mut client, 40, 7);

    // Both sides have it on record, and the headend shows it.
    let signed = format!("policy bundle 2 signed by {} is in force", signer.public);
    pair.edge.wait_record("the bundle", |record| {
        record.kind == Kind::Reload && says(record, &signed)
    });
    pair.headend.wait_record("the acknowledgement", |record| {
        record.kind == Kind::Reload && says(record, "edge press-07 has policy bundle 2 in force")
    });
    eventually("the headend to know", || known(&pair)["version"] == 2);
    assert_eq!(
        pair.edge.status()["bundle"]["signer"],
        signer.public.as_str()
    );
    let socket = pair.edge.state().join("control.sock");
    let shown = binary::run_ok(&[&"status", &"--socket", &socket]);
    assert!(
        shown.contains("policy bundle 2, signed by p256:"),
        "{shown}"
    );

    // An earlier policy comes back as a later version, an earlier bundle never.
    let old = signer.for_any(3, READS);
    put(&file, &old);
    wait_version(&pair, 3);
    expect_exception(&mut client, &write_register(40, 8), ILLEGAL_FUNCTION);
    // What is for others only is not for this one.
    put(&file, &signer.sign(9, OPEN_POLICY, &["--edge", "press-08"]));
    put(&file, &signer.for_any(2, OPEN_POLICY));
    assert_eq!(pair.edge.audit_kind(Kind::TunnelUp).len(), 1);

    // A restart keeps it, with no headend to ask.
    pair.headend.kill();
    pair.edge.kill();
    pair.edge.start();
    pair.edge.wait_ready();
    assert_eq!(version(&pair.edge), 3);
    pair.headend.start();
    pair.wait_up();
    assert_eq!(version(&pair.edge), 3);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    expect_exception(&mut client, &write_register(40, 8), ILLEGAL_FUNCTION);

    // Whoever has the disk and not the key gains nothing.
    let installed = pair.edge.state().join("policy/bundle");
    pair.headend.kill();
    for forged in [
        signer.for_any(2, OPEN_POLICY),
        signer.for_any(3, OPEN_POLICY),
        old.replace("reads", "Reads"),
        Signer::new().for_any(4, OPEN_POLICY),
        String::new(),
    ] {
        pair.edge.kill();
        fs::write(&installed, &forged).unwrap();
        pair.edge.start();
        pair.edge.wait_ready();
        assert_eq!(version(&pair.edge), 0, "{forged}");
        assert!(has_alarm(&pair.edge, "policy-bundle-missing"));
    }
    // The very bundle that was the last in force is taken again.
    put(&file, &old);
    pair.headend.start();
    pair.wait_up();
    wait_version(&pair, 3);
}

fn narrowed() {
    let signer = Signer::new();
    let file = signer.directory.join("fleet.bundle");
    put(&file, &signer.for_any(1, OPEN_POLICY));
    let local = |last: u16| {
        format!(
            "syntax = 1\n[[allow]]\nname = \"local\"\ndevice = \"any\"\nfunction = [\"read\", 6]\n\
             address = [\"holding 0-{last}\"]\n"
        )
    };
    let pair = Setup::new(Transport::Quic)
        .edge(&signer.pinned())
        .edge_policy(&local(40))
        .headend(&format!("[bundle]\nfiles = [{file:?}]\n"))
        .up();
    wait_version(&pair, 1);
    let mut client = pair.client();
    write_one(&mut client, 40, 7);
    expect_exception(&mut client, &write_register(41, 7), ILLEGAL_ADDRESS);

    // Narrower and wider again, under the same client.
    let policy = || pair.edge.status()["policy"].clone();
    let before = policy();
    pair.edge.write_policy(&local(39));
    eventually("the narrower file", || policy() != before);
    expect_exception(&mut client, &write_register(40, 7), ILLEGAL_ADDRESS);
    let before = policy();
    pair.edge.write_policy(OPEN_POLICY);
    eventually("the wider file", || policy() != before);
    write_one(&mut client, 41, 8);

    // Under a narrower bundle the widest file opens nothing.
    put(&file, &signer.for_any(2, READS));
    wait_version(&pair, 2);
    expect_exception(&mut client, &write_register(40, 7), ILLEGAL_FUNCTION);
    read_registers(&mut client, 0, 1);
    let denied = pair
        .edge
        .wait_record("the refusal", |r| r.kind == Kind::Denied);
    assert!(
        says(&denied, "holding 41 outside every range"),
        "{denied:?}"
    );
}

fn by_hand() {
    let signer = Signer::new();
    let file = signer.directory.join("usb.bundle");
    put(&file, &signer.for_any(1, READS));
    let config = format!("{}file = {file:?}\n", signer.pinned());
    let mut pair = Setup::new(Transport::Quic).edge(&config).prepare();
    // No local file at all.
    let text = format!("state = {:?}\n{}", pair.edge.state(), pair.edge_config);
    fs::write(pair.edge.config_file(), text).unwrap();
    let checked = pair.edge.check();
    assert!(checked.status.success(), "{}", binary::text(&checked));
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    assert_eq!(version(&pair.edge), 1);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);

    let due = Timestamp::now() + SignedDuration::from_secs(4);
    let not_before = Timestamp::from_second(due.as_second()).unwrap().to_string();
    let more = ["--any-edge", "--not-before", &not_before];
    put(&file, &signer.sign(2, OPEN_POLICY, &more));
    eventually("the bundle to wait", || {
        pair.edge.status()["bundle"]["waiting"]["version"] == 2
    });
    assert_eq!(version(&pair.edge), 1);
    expect_exception(&mut client, &write_register(40, 7), ILLEGAL_FUNCTION);
    eventually("the headend to hear", || {
        known(&pair)["waiting"]["text"] != Value::Null
    });
    wait_version(&pair, 2);
    assert!(Timestamp::now().as_second() >= due.as_second());
    write_one(&mut client, 40, 7);
    eventually("the headend to hear of it", || known(&pair)["version"] == 2);
    assert_eq!(pair.edge.status()["bundle"]["waiting"], Value::Null);

    // A file that is none is refused, and the alarm says so until it is one.
    put(&file, READS);
    eventually("the alarm", || {
        has_alarm(&pair.edge, "policy-bundle-refused")
    });
    let checked = pair.edge.check();
    assert_eq!(checked.status.code(), Some(2), "{}", binary::text(&checked));
    put(&file, &signer.for_any(1, READS));
    eventually("its end", || {
        !has_alarm(&pair.edge, "policy-bundle-refused")
    });
    assert_eq!(version(&pair.edge), 2);
    write_one(&mut client, 40, 8);
}

fn refusal_is_seen() {
    let (signer, other) = (Signer::new(), Signer::new());
    let file = signer.directory.join("fleet.bundle");
    put(&file, &other.for_any(1, OPEN_POLICY));
    let pair = Setup::new(Transport::Quic)
        .edge(&signer.pinned())
        .headend(&format!("[bundle]\nfiles = [{file:?}]\n"))
        .up();
    eventually("the alarm", || {
        has_alarm(&pair.headend, "policy-bundle-refused press-07")
    });
    let refused = known(&pair)["refused"].clone();
    assert_eq!(refused["version"], 1);
    let text = refused["text"].as_str().unwrap();
    assert!(
        text.contains("is not one of those that are pinned"),
        "{text}"
    );
    pair.headend.wait_record("the refusal", |record| {
        record.kind == Kind::ReloadRefused && says(record, "edge press-07 refuses policy bundle 1")
    });

    // The edge pins the other key as well: what was refused comes anew, without a restart.
    let both = format!(
        "[bundle]\nsigners = [{:?}, {:?}]\n",
        signer.public, other.public
    );
    let config = pair.edge_config.replace(&signer.pinned(), &both);
    pair.edge.write_config(&config);
    wait_version(&pair, 1);
    eventually("the end of the alarm", || {
        !has_alarm(&pair.headend, "policy-bundle-refused press-07")
    });

    // And it stops to count as soon as its key is not pinned any more.
    let only = format!("[bundle]\nsigners = [{:?}]\n", signer.public);
    pair.edge
        .write_config(&pair.edge_config.replace(&signer.pinned(), &only));
    wait_version(&pair, 0);
    assert!(has_alarm(&pair.edge, "policy-bundle-missing"));
    put(&file, &signer.for_any(2, OPEN_POLICY));
    wait_version(&pair, 2);
}

/// Attack 21: the headend of a stolen certificate brings policies of its own.
fn hostile(transport: Transport) {
    let signer = Signer::new();
    // All of them before the edge dials: a headend that is busy with signing is taken for dead.
    let good = signer.for_any(7, READS);
    let open = signer.for_any(8, OPEN_POLICY);
    let own_key = Site::shared()
        .identity(Role::Headend, HEADEND)
        .join("identity/key.pem");
    let mut hostile: Vec<(Vec<u8>, &str)> = vec![
        (OPEN_POLICY.into(), "line 1"),
        (without(&open, "signature: ").into(), "line 6"),
        (without(&open, "signer: ").into(), "line 5"),
        (
            by_agent(&open, &own_key, false).into(),
            "not one of those that are pinned",
        ),
        (
            by_agent(&open, &own_key, true).into(),
            "its signature does not fit",
        ),
        (
            Signer::new().for_any(8, OPEN_POLICY).into(),
            "not one of those that are pinned",
        ),
        (signer.for_any(6, OPEN_POLICY).into(), "is not above 7"),
        (signer.for_any(7, OPEN_POLICY).into(), "another version 7"),
        (
            signer.sign(8, OPEN_POLICY, &["--edge", "press-08"]).into(),
            "for other edges",
        ),
        (open[..open.len() / 2].into(), ""),
        (
            good.replace("version: 7", "version: 8").into(),
            "its signature does not fit",
        ),
        (
            open.replace("edges: any", "edges: press-07").into(),
            "its signature does not fit",
        ),
        (format!("{open}#").into(), "its signature does not fit"),
        (vec![0xFF; 300], "line 1"),
    ];
    let flipped = |place: usize| {
        let mut octets = open.clone().into_bytes();
        octets[place] ^= 1;
        octets
    };
    hostile.push((flipped(open.len() - 3), "its signature does not fit"));

    let setup = Setup::new(transport).edge(&signer.pinned());
    let (pair, headend) = edge_of_a_rogue(setup, transport);
    let mut rogue = headend.tunnel().unwrap();
    assert_eq!(
        offer(&mut rogue, good.as_bytes()),
        (7, Fate::InForce, String::new())
    );
    let policy = || pair.edge.status()["policy"].clone();
    let in_force = policy();
    let refused = || pair.edge.audit_kind(Kind::ReloadRefused).len();
    for (index, (octets, why)) in hostile.iter().enumerate() {
        let (version, fate, text) = offer(&mut rogue, octets);
        assert_eq!((version, fate), (7, Fate::Refused), "{why}: {text}");
        assert!(text.contains(why), "{why}: {text}");
        eventually("it to be on record", || refused() == index + 1);
        assert_eq!(policy(), in_force);
    }

    // That were as many as are looked at in a minute, so a good one has to wait.
    let (_, fate, text) = offer(&mut rogue, open.as_bytes());
    assert_eq!(
        (fate, text.contains("too many")),
        (Fate::Refused, true),
        "{text}"
    );

    // More than a bundle has ends the tunnel, at no more cost than that.
    let piece = vec![b'x'; MAX_PIECE];
    let frame = Frame::Bundle {
        last: false,
        piece: &piece,
    };
    for _ in 0..(2 << 20) / MAX_PIECE {
        if rogue.send(CONTROL, &frame).is_err() {
            break;
        }
    }
    rogue.wait_close(SOON).unwrap();
    pair.edge.wait_record("the end", |record| {
        record.kind == Kind::TunnelDown
            && says(record, "a policy bundle of more than 1048576 octets")
    });
    assert_eq!(policy(), in_force);
    assert_eq!(version(&pair.edge), 7);

    // And the edge still takes what is right.
    let mut rogue = headend.tunnel().unwrap();
    assert_eq!(offer(&mut rogue, open.as_bytes()).1, Fate::InForce);
    assert_ne!(policy(), in_force);
}

fn offer(rogue: &mut Rogue, octets: &[u8]) -> (u64, Fate, String) {
    let mut pieces = octets.chunks(MAX_PIECE).peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        rogue.send(CONTROL, &Frame::Bundle { last, piece }).unwrap();
    }
    loop {
        let frame = rogue.receive(CONTROL).unwrap();
        if let Ok(Some((
            _,
            Frame::BundleHave {
                version,
                fate,
                text,
            },
            _,
        ))) = Frame::decode(&frame)
        {
            return (version, fate, String::from_utf8_lossy(text).into_owned());
        }
    }
}

fn without(bundle: &str, key: &str) -> String {
    let kept = bundle.lines().filter(|line| !line.starts_with(key));
    kept.fold(String::new(), |text, line| text + line + "\n")
}

/// Signed with the key of an agent's certificate, which may pass itself off as the one pinned.
fn by_agent(bundle: &str, key: &Path, passed_off: bool) -> String {
    let read = Bundle::parse(bundle.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let pair = rcgen::KeyPair::try_from(key.secret_der()).unwrap();
    let signer = match passed_off {
        true => read.signers(),
        false => PublicKey::new(pair.der_bytes()).unwrap().to_string(),
    };
    let mut bundle = Bundle::new(read.header, read.body);
    let key = AgentKey::new(key.secret_der()).unwrap();
    let octets = key.sign(bundle.signed_text(&signer).as_bytes()).unwrap();
    bundle.sign(Signature { signer, octets });
    bundle.to_string()
}

fn commands() {
    let signer = Signer::new();
    let place = &signer.directory;
    let bundle = place.join("fleet.bundle");
    fs::write(
        &bundle,
        signer.sign(7, READS, &["--edge", "press-08", "--edge", EDGE]),
    )
    .unwrap();
    let passphrase = Site::shared().passphrase_file();
    let key = place.join("policy.key");
    let shown = binary::run_ok(&[
        &"policy",
        &"key",
        &key,
        &"--print",
        &"--passphrase-file",
        &passphrase,
    ]);
    assert_eq!(shown.trim(), signer.public);

    let shown = binary::run_ok(&[&"policy", &"check", &bundle, &"--signer", &signer.public]);
    for line in [
        "  bundle     version 7\n",
        "  edges      press-07, press-08\n",
        "  in force   at once\n",
        &format!("  signer     {}\n", signer.public),
        "  rules      1 allow, 0 deny\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    let local = place.write("local.toml", "syntax = 1\n").unwrap();
    let explain = |more: &[&str]| {
        let mut command = binary::command();
        command.args(["policy", "explain", "--policy"]).arg(&bundle);
        command.args(["--client", "192.0.2.1", "--device", "press-07"]);
        command
            .args(["--function", "3", "--address", "holding 1"])
            .args(more);
        command.output().unwrap().status.code()
    };
    assert_eq!(explain(&[]), Some(0));
    assert_eq!(
        explain(&["--narrowed-by", local.to_str().unwrap()]),
        Some(1)
    );

    let fails = |arguments: &[&str], code: i32, why: &str| {
        let mut command = binary::command();
        command
            .current_dir(place.path())
            .arg("policy")
            .args(arguments);
        if ["sign", "key"].contains(&arguments[0]) {
            command.arg("--passphrase-file").arg(&passphrase);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let text = binary::text(&output);
        assert!(text.contains(why), "{arguments:?}: {text}");
    };
    let sign = [
        "sign",
        "policy.toml",
        "--key",
        "policy.key",
        "--any-edge",
        "-o",
    ];
    let signing = |more: &[&'static str]| [&sign[..], more].concat();
    let other = Signer::new().public;
    let plain = ["check", "policy.toml", "--signer", &signer.public];
    fails(&plain, 2, "signed by nobody");
    fails(
        &["check", "fleet.bundle", "--signer", &other],
        2,
        "not one of those that are pinned",
    );
    fails(
        &["check", "fleet.bundle", "--signer", "p256:AAAA"],
        2,
        "is not a public key",
    );
    fails(&["key", "policy.key"], 1, "exists");
    let again = ["new.bundle", "--version", "7", "--after", "fleet.bundle"];
    fails(&signing(&again), 2, "version 7 is not above 7");
    fails(
        &signing(&["policy.toml", "--version", "8"]),
        2,
        "it is not overwritten",
    );
    fails(&signing(&["new.bundle", "--version", "0"]), 2, "");
    let signed = [
        "sign",
        "fleet.bundle",
        "--key",
        "policy.key",
        "--any-edge",
        "--version",
        "8",
        "-o",
        "x",
    ];
    fails(&signed, 2, "is a bundle already");
    let no_edge = [
        "sign",
        "policy.toml",
        "--key",
        "policy.key",
        "--version",
        "8",
        "-o",
        "x",
    ];
    fails(&no_edge, 2, "--edge");
    place
        .write("policy.toml", "syntax = 1\n[[allow]]\n")
        .unwrap();
    fails(
        &signing(&["new.bundle", "--version", "8"]),
        2,
        "policy.toml:2:1",
    );
    let flipped = fs::read_to_string(&bundle)
        .unwrap()
        .replace("reads", "Reads");
    place.write("flipped.bundle", &flipped).unwrap();
    fails(
        &["check", "flipped.bundle"],
        2,
        "its signature does not fit",
    );
    let new: PathBuf = place.join("new.bundle");
    assert!(!new.exists());
}
