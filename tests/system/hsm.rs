//! Keys of the CA on PKCS#11 tokens. The token is SoftHSM; OpenSC's tools look at it from outside.

mod bench;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use bench::{Bench, PIN, ROOT_PIN, softhsm, spied_uri, uri, without_secrets};
use fieldlock_testkit::process::Directory;
use fieldlock_tests::{SOON, binary, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let test = |name: &str, more: &[&str], run: fn()| {
        let peers = [&["softhsm2-util", "pkcs11-tool", "openssl"], more].concat();
        trial::with_peers(&format!("hsm::{name}"), &peers, run)
    };
    vec![
        test("both_keys_on_tokens", &[], both_keys),
        test("certificates_and_crls_pass_pkilint", &["pkilint"], lint),
        test("the_server_outlives_the_token", &[], serve),
        test("issuing_ca_and_root_move_to_tokens", &[], rotation),
        test("a_wrong_pin_is_tried_once", &[], wrong_pin),
        test(
            "a_changed_pin_is_tried_once_by_the_server",
            &[],
            changed_pin,
        ),
        test("what_is_missing_is_said", &[], missing),
        test("another_key_under_the_name", &[], another_key),
        test("a_uri_holds_no_pin", &[], no_pin),
        test("backup_and_restore", &[], backup),
    ]
}

fn both_keys() {
    let bench = Bench::with_ca();
    for (file, token, pin) in [
        ("ca/issuing.key.pem", "plant1", PIN),
        ("root/root.key.pem", "root", ROOT_PIN),
    ] {
        let text = bench.read(file);
        assert!(text.starts_with("pkcs11:token="), "{text}");
        assert_eq!(text.lines().count(), 1);
        let listed = bench.tool(token, pin, "--list-objects --type privkey");
        assert!(listed.contains(&bench.object(file)), "{listed}");
        assert!(
            listed.contains("sensitive, always sensitive, never extractable, local"),
            "{listed}"
        );
        assert!(listed.contains("Usage:      sign\n"), "{listed}");
        assert_eq!(listed.matches("ID:  ").count(), 1, "{listed}");
    }
    // The key is named after its generation.
    let subject = bench.openssl("x509 -in ca/issuing.pem -noout -subject");
    let object = bench.object("ca/issuing.key.pem");
    let mark = object.trim_start_matches("fieldlock-issuing-");
    assert!(binary::text(&subject).contains(mark), "{object}");

    bench.ok("ca issue --dir ca --role edge --name made --out made --passphrase-file pin");
    let of_bundle = bench.verify("made/bundle.pem");
    assert!(of_bundle.contains("made/bundle.pem: OK"), "{of_bundle}");
    bench.openssl("ecparam -name prime256v1 -genkey -noout -out asked.key");
    bench.openssl("req -new -key asked.key -subj /CN=x -out asked.csr");
    bench.ok(
        "ca sign asked.csr --dir ca --role edge --name asked --out asked.pem --passphrase-file pin",
    );
    assert!(bench.verify("asked.pem").contains("asked.pem: OK"));

    bench.ok("ca revoke edge/made --dir ca --passphrase-file pin");
    bench.ok("ca root crl --dir ca --root root --passphrase-file root-pin");
    let revoked = bench.verify("made/bundle.pem");
    assert!(revoked.contains("certificate revoked"), "{revoked}");
    assert!(bench.verify("asked.pem").contains("asked.pem: OK"));
    for ca in ["root", "issuing"] {
        let crl = format!("crl -in ca/{ca}.crl.pem -noout -verify -CAfile ca/{ca}.pem");
        let checked = binary::text(&bench.openssl(&crl));
        assert!(checked.contains("verify OK"), "{checked}");
    }
    bench.ok("ca verify --dir ca");
}

/// Certificates and lists by a token are those by a file.
fn lint() {
    let bench = Bench::with_ca();
    let directory = Directory::new().unwrap();
    bench.ok("ca issue --dir ca --role headend --name linted --out linted --passphrase-file pin");
    crate::lint::bundle(&directory, "hsm", &bench.read("linted/bundle.pem"));
}

fn serve() {
    let bench = Bench::with_ca();
    let (mut server, address) = bench.serve("--passphrase-file pin");
    assert!(bench.joins("press-01", address));
    // A command beside it has the token too.
    bench.ok("ca revoke edge/press-01 --dir ca --passphrase-file pin");
    assert!(bench.joins("press-02", address));
    bench.pull();
    assert!(!bench.joins("press-03", address));
    let gone = "signing failed: no token \"plant1\" is to be found (there is: none)";
    server.wait_log(gone, SOON).unwrap();
    bench.put_in();
    assert!(bench.joins("press-04", address));
    bench.tool(
        "plant1",
        PIN,
        &format!(
            "--delete-object --type privkey --label {}",
            bench.object("ca/issuing.key.pem")
        ),
    );
    assert!(!bench.joins("press-05", address));
    server.wait_log("has no private key", SOON).unwrap();
    server.terminate();
    assert!(server.wait_exit(SOON).unwrap().success());
    without_secrets(&server.log());
    bench.ok("ca verify --dir ca");
}

/// From keys in files, with a passphrase that is not the PIN; first under a running server.
fn rotation() {
    let bench = Bench::new();
    bench.ok("ca init --site plant1.example --dir ca --root-out root --passphrase-file passphrase");
    let (mut server, address) = bench.serve(SECRETS);
    // Without a PIN it expects no token, and confines itself to files.
    let (mut confined, _) = bench.serve("--passphrase-file passphrase");
    let new = format!("ca issuing new --dir ca --out next.csr {SECRETS}");
    let key = uri("plant1");
    bench.ok(&format!("{new} --key {key}"));
    let again = bench.refused(&format!("{new} --key {key}"));
    assert!(again.contains("was made before"), "{again}");
    bench.ok(&new);
    let mark = sign_and_use(&bench, "root --passphrase-file passphrase");
    let key_file = bench.read(&format!("ca/issuing-{mark}.key.pem"));
    assert!(key_file.starts_with("pkcs11:token=plant1;"), "{key_file}");
    // 2 would keep the service manager from starting it anew.
    assert_eq!(confined.wait_exit(SOON).unwrap().code(), Some(1));
    let log = confined.log();
    assert!(log.contains("start `ca serve` anew"), "{log}");
    assert!(bench.joins("press-01", address));
    let issuer = bench.openssl("x509 -in press-01/identity/chain.pem -noout -issuer");
    assert!(binary::text(&issuer).contains(&mark));
    server.terminate();
    assert!(server.wait_exit(SOON).unwrap().success());
    without_secrets(&server.log());

    let root = uri("root");
    bench.ok(&format!(
        "ca root new --site plant1.example --root root --root-out root2 --out root2.pem \
         --passphrase-file passphrase --new-passphrase-file root-pin --key {root}"
    ));
    assert!(
        bench
            .read("root2/root.key.pem")
            .starts_with("pkcs11:token=root;")
    );
    bench.ok("ca root add root2.pem --dir ca");
    bench.ok(&format!("{new} --key {key}"));
    let mark = sign_and_use(&bench, "root2 --passphrase-file root-pin");
    bench.ok("ca root crl --dir ca --root root2 --passphrase-file root-pin");
    bench.ok(&format!(
        "ca issue --dir ca --role edge --name press-02 --out out {SECRETS}"
    ));
    bench.ok("ca crl --dir ca --out crls.pem");
    let checked = bench.openssl(&format!(
        "verify -crl_check_all -CAfile root2/root.pem -untrusted ca/issuing-{mark}.pem \
         -CRLfile crls.pem out/bundle.pem"
    ));
    assert!(checked.status.success(), "{}", binary::text(&checked));
}

/// Has next.csr signed by a root, and takes it into use; its mark.
fn sign_and_use(bench: &Bench, root: &str) -> String {
    bench.ok(&format!(
        "ca root sign next.csr --site plant1.example --out next.pem --root {root}"
    ));
    bench.ok(&format!("ca issuing add next.pem --dir ca {SECRETS}"));
    let subject = bench.openssl("x509 -in next.pem -noout -subject");
    let subject = String::from_utf8_lossy(&subject.stdout).into_owned();
    let mark = subject.trim().rsplit(' ').next().unwrap().to_owned();
    bench.ok(&format!("ca issuing use {mark} --dir ca"));
    mark
}

const SECRETS: &str = "--passphrase-file passphrase --pin-file pin";

fn wrong_pin() {
    let bench = Bench::new();
    let key = spied_uri("plant1");
    let init = format!(
        "ca init --site plant1.example --dir ca --root-out root --key {key} \
         --root-passphrase-file passphrase"
    );
    let said = bench.refused(&format!("{init} --passphrase-file wrong"));
    assert!(said.contains("refuses this PIN"), "{said}");
    assert!(!said.contains("99999999"), "{said}");
    assert_eq!(bench.spied("C_Login"), 1);
    // Nor is a key left on the other token.
    let root = uri("root");
    bench.refused(&format!(
        "ca init --site plant1.example --dir ca --root-out root --key {key} --root-key {root} \
         --passphrase-file wrong --root-passphrase-file root-pin"
    ));
    let left = bench.tool("root", ROOT_PIN, "--list-objects");
    assert!(!left.contains("fieldlock"), "{left}");
    assert!(!bench.path("ca.init").exists());
    bench.ok(&format!("{init} --passphrase-file pin"));

    let refused = [
        "ca issue --role edge --name press-07 --out out",
        "ca crl --renew",
        "ca serve --listen 127.0.0.1:0",
        "ca issuing new",
    ];
    for line in refused {
        let before = bench.spied("C_Login");
        let output = bench.run(&format!("{line} --dir ca --passphrase-file wrong"));
        let said = binary::text(&output);
        // With 2 the service manager does not start it again and again.
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("ca/issuing.key.pem"), "{said}");
        assert!(said.contains("refuses this PIN"), "{said}");
        assert_eq!(bench.spied("C_Login"), before + 1, "{line}");
    }
}

/// The server asks a token with the PIN that it holds, and never twice when it is refused.
fn changed_pin() {
    let bench = Bench::new();
    let key = spied_uri("plant1");
    bench.ok(&format!(
        "ca init --site plant1.example --dir ca --root-out root --key {key} \
         --passphrase-file pin --root-passphrase-file passphrase"
    ));
    let (mut server, address) = bench.serve("--passphrase-file pin");
    assert!(bench.joins("press-01", address));
    bench.tool("plant1", PIN, "--change-pin --new-pin 27182818");
    // It is put in again with another PIN.
    bench.pull();
    assert!(!bench.joins("press-02", address));
    bench.put_in();
    let before = bench.spied("C_Login");
    for name in ["press-03", "press-04", "press-05"] {
        assert!(!bench.joins(name, address));
    }
    server.wait_log("is not asked again", SOON).unwrap();
    assert_eq!(bench.spied("C_Login"), before + 1);
    without_secrets(&server.log());
}

fn missing() {
    let bench = Bench::with_ca();
    let issue = "ca issue --dir ca --role edge --name press-07 --out out --passphrase-file pin";
    let init = |key: &str| {
        let line = "ca init --site plant1.example --dir other --passphrase-file pin";
        bench.refused(&format!("{line} --key {key}"))
    };
    let key = uri("plant1");
    for (key, expected) in [
        (uri("plant2"), "no token \"plant2\" is to be found"),
        (key.replace("libsofthsm2", "nothing"), "can't be used"),
        (key.replace("plant1?", "plant1;serial=1?"), "no token"),
        (key.replace("plant1?", "plant1;slot-id=1?"), "`slot-id`"),
        ("pkcs11:token=plant1".to_owned(), "module-path"),
        ("plant1".to_owned(), "begins with `pkcs11:`"),
    ] {
        let said = init(&key);
        assert!(said.contains(expected), "{key}: {said}");
    }
    // Code that others can change would see the PIN.
    fs::copy(softhsm(), bench.path("module.so")).unwrap();
    fs::set_permissions(bench.path("module.so"), Permissions::from_mode(0o666)).unwrap();
    let module = bench.path("module.so");
    let said = init(&format!(
        "pkcs11:token=plant1?module-path={}",
        module.display()
    ));
    assert!(said.contains("chmod go-w"), "{said}");

    bench.pull();
    let said = bench.refused(issue);
    assert!(
        said.contains("ca/issuing.key.pem: no token \"plant1\""),
        "{said}"
    );
    bench.put_in();

    let object = bench.object("ca/issuing.key.pem");
    let taken = init(&key.replace("plant1?", &format!("plant1;object={object}?")));
    assert!(taken.contains("nothing is overwritten"), "{taken}");
    bench.ok(issue);
    fs::remove_dir_all(bench.path("out")).unwrap();
    let delete = format!("--delete-object --type privkey --label {object}");
    bench.tool("plant1", PIN, &delete);
    let said = bench.refused(issue);
    assert!(
        said.contains(&format!("has no private key \"{object}\"")),
        "{said}"
    );
}

fn another_key() {
    let bench = Bench::with_ca();
    let issue = "ca issue --dir ca --role edge --name press-07 --out out --passphrase-file pin";
    let object = bench.object("ca/issuing.key.pem");
    let make = |kind: &str, id: &str| {
        let key = format!("--keypairgen --key-type {kind} --id {id} --label {object}");
        bench.tool("plant1", PIN, &key)
    };
    make("EC:prime256v1", "77");
    let said = bench.refused(issue);
    assert!(said.contains("has 2 private keys"), "{said}");
    // By its id the wrong one is found, and does not pass for the CA's.
    let text = bench.read("ca/issuing.key.pem");
    bench.write(
        "ca/issuing.key.pem",
        &text.replace(";type=", ";id=%77;type="),
    );
    let said = bench.refused(issue);
    assert!(said.contains("not for this key"), "{said}");
    let of_other_kinds = [("EC:secp384r1", "78"), ("rsa:2048", "79")];
    for (kind, id) in of_other_kinds {
        make(kind, id);
        let id = format!(";id=%{id};type=");
        bench.write("ca/issuing.key.pem", &text.replace(";type=", &id));
        let said = bench.refused(issue);
        assert!(said.contains("P-256"), "{said}");
    }
}

fn no_pin() {
    let bench = Bench::with_ca();
    let key = uri("plant1");
    for pin in [
        format!("pin-value={PIN}"),
        "pin-source=pin".to_owned(),
        format!("pin-value:{PIN}"),
    ] {
        let init = "ca init --site plant1.example --dir other --passphrase-file pin --key";
        let said = bench.refused(&format!("{init} {key}&{pin}"));
        assert!(said.contains("a PIN is no part of it"), "{said}");
        assert!(!bench.path("other").exists());

        let file = "ca/issuing.key.pem";
        let text = bench.read(file);
        bench.write(file, &format!("{}&{pin}\n", text.trim()));
        let said = bench.refused("ca crl --renew --dir ca --passphrase-file pin");
        assert!(said.contains("a PIN is no part of it"), "{said}");
        assert!(
            bench
                .refused("ca backup --dir ca copy")
                .contains("no part of it")
        );
        bench.write(file, &text);
    }
}

fn backup() {
    let bench = Bench::with_ca();
    bench.ok("ca issue --dir ca --role edge --name press-07 --out out --passphrase-file pin");
    let said = bench.ok("ca backup --dir ca copy.json");
    assert!(said.contains("The key itself stays on the token"), "{said}");
    let copy = bench.read("copy.json");
    without_secrets(&copy);
    assert!(copy.contains(bench.read("ca/issuing.key.pem").trim()));
    bench.ok("ca revoke press-07 --dir ca --passphrase-file pin");
    fs::rename(bench.path("ca"), bench.path("lost")).unwrap();
    bench.ok("ca restore copy.json --dir ca --crl lost/issuing.crl.pem");
    bench.pull();
    bench.refused("ca crl --renew --dir ca --passphrase-file pin");
    bench.put_in();
    bench.ok("ca crl --renew --dir ca --passphrase-file pin");
    let revoked = bench.verify("out/bundle.pem");
    assert!(revoked.contains("certificate revoked"), "{revoked}");
}
