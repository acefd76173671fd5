//! EST (RFC 7030) with nothing of ours on the asking side: curl and openssl.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::process::Directory;
use fieldlock_tests::{CaServer, SOON, Site, binary, trial, within};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let test = |name: &str, run: fn()| trial::with_peers(name, &["curl", "openssl"], run);
    vec![
        test(
            "est::a_certificate_by_token_and_its_renewal",
            enroll_and_renew,
        ),
        test("est::ca_certificates_and_attributes", cacerts),
        test("est::what_is_not_offered_says_so", not_offered),
        test("est::the_trust_list_waits_for_a_revocation", long_poll),
        test("est::killed_and_started_again", killed),
        test("attacks::a15_slow_and_huge_requests", slow_and_huge),
        test("est::guesses_do_not_keep_a_token_out", guesses),
        test("attacks::a19_names_lead_nowhere", names),
        test("attacks::a16_request_asks_for_more", asks_for_more),
    ]
}

const NOTHING: &[&str] = &[];

fn enroll_and_renew() {
    let est = Est::new();
    est.request("press", &[]);
    let (code, body) = est.enroll("est-07", "press");
    assert_eq!(code, "200");
    est.certificate("press", &body);
    let text = est.openssl(&["x509", "-in", "press.pem", "-noout", "-text"]);
    assert!(
        text.contains("URI:spiffe://plant1.example/edge/est-07"),
        "{text}"
    );
    assert!(text.contains("CA:FALSE"), "{text}");

    let renew = |key: &str, csr: &str| {
        est.post(
            "simplereenroll",
            csr,
            &["--cert", "press.pem", "--key", key],
        )
    };
    est.request("next", &[]);
    let (code, body) = renew("press.key", "next");
    assert_eq!(code, "200", "{body}");
    est.certificate("next", &body);
    let text = est.openssl(&["x509", "-in", "next.pem", "-noout", "-text"]);
    assert!(
        text.contains("URI:spiffe://plant1.example/edge/est-07"),
        "{text}"
    );

    let (code, body) = est.post("simplereenroll", "next", NOTHING);
    assert_eq!(code, "403", "{body}");
    est.site.revoke(fieldlock_tests::Role::Edge, "est-07");
    let (code, body) = renew("press.key", "next");
    assert_eq!(code, "403");
    assert!(body.contains("is revoked"), "{body}");
}

fn cacerts() {
    let est = Est::new();
    let body = est.curl("/.well-known/est/cacerts", &[]).1;
    est.write("cacerts.b64", &body);
    est.openssl(&["base64", "-d", "-in", "cacerts.b64", "-out", "cacerts.p7"]);
    let p7 = ["pkcs7", "-inform", "DER", "-in", "cacerts.p7"];
    let text = est.openssl(&[&p7[..], &["-print_certs", "-noout"]].concat());
    assert_eq!(text.matches("subject=").count(), 2, "{text}");
    // With these the server is who it says, whatever address was dialled.
    est.openssl(&[&p7[..], &["-print_certs", "-out", "cas.pem"]].concat());
    let port = est.server.address.port();
    let output = Command::new(Peer::find("curl").unwrap())
        .current_dir(est.directory.path())
        .args(["-s", "--cacert", "cas.pem", "--connect-to"])
        .arg(format!("ca.ca.plant1.example:{port}:127.0.0.1:{port}"))
        .arg(format!("https://ca.ca.plant1.example:{port}/crl/"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", binary::text(&output));
    let attributes = est.curl("/.well-known/est/csrattrs", &[]).1;
    est.write("attributes.b64", &attributes);
    est.openssl(&[
        "base64",
        "-d",
        "-in",
        "attributes.b64",
        "-out",
        "attributes.der",
    ]);
    let text = est.openssl(&["asn1parse", "-inform", "DER", "-in", "attributes.der"]);
    assert!(
        text.contains("id-ecPublicKey") && text.contains("prime256v1"),
        "{text}"
    );

    let names = est.curl("/crl/", &[]).1;
    assert_eq!(names.lines().count(), 2, "{names}");
    for name in names.lines() {
        let output = est.path(name);
        est.curl(&format!("/crl/{name}"), &["-o", output.to_str().unwrap()]);
        let text = est.openssl(&[
            "crl",
            "-inform",
            "DER",
            "-in",
            name,
            "-noout",
            "-nextupdate",
        ]);
        assert!(text.contains("nextUpdate"), "{text}");
    }
}

fn not_offered() {
    let est = Est::new();
    for (path, arguments, code) in [
        ("/.well-known/est/fullcmc", &["-X", "POST"][..], "501"),
        ("/.well-known/est/serverkeygen", &["-X", "POST"], "501"),
        ("/.well-known/est/nothing", &[], "404"),
        ("/.well-known/est/../est/x", &["--path-as-is"], "404"),
        ("/", &[], "404"),
        ("/crl/../../ca.toml", &["--path-as-is"], "404"),
        ("/.well-known/est/cacerts", &["-X", "POST"], "405"),
        ("/.well-known/est/simpleenroll", &[], "405"),
        ("/.well-known/est/simpleenroll", &["-d", "x"], "401"),
        (
            "/.well-known/est/simpleenroll",
            &["-d", "x", "-u", "edge/../../etc:AAAA"],
            "401",
        ),
        (
            "/.well-known/est/simpleenroll",
            &["-d", "x", "-u", "edge/a:AAAAAAAAAAAAAAAAAAAAAA"],
            "415",
        ),
    ] {
        let (got, body) = est.curl(path, arguments);
        assert_eq!(got, code, "{path} {arguments:?}: {body}");
        assert_eq!(body.trim_end().lines().count(), 1, "{body}");
    }
}

fn long_poll() {
    // A site of its own: other tests revoke too.
    let est = Est::at(std::sync::Arc::new(Site::new()));
    est.site.identity(fieldlock_tests::Role::Edge, "polled-07");
    let headers = est.curl("/.well-known/fieldlock/trust", &["-D", "-"]).1;
    let etag = headers.lines().find(|line| line.starts_with("ETag: "));
    let etag = etag.unwrap().trim_start_matches("ETag: ").to_owned();
    let arguments = [
        "-H",
        &format!("If-None-Match: {etag}"),
        "-H",
        "Prefer: wait=1",
    ];
    let path = "/.well-known/fieldlock/trust";
    assert_eq!(est.curl(path, &arguments).0, "304");
    let waiting = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let arguments = [
                "-H",
                &format!("If-None-Match: {etag}"),
                "-H",
                "Prefer: wait=30",
            ];
            est.curl(path, &arguments)
        });
        est.site.revoke(fieldlock_tests::Role::Edge, "polled-07");
        asked.join().unwrap()
    });
    assert_eq!(waiting.0, "200");
    assert!(waiting.1.contains("BEGIN X509 CRL"));
}

/// Whatever the moment, there is afterwards one recorded certificate or none, and the same key
/// with the same token gets it.
fn killed() {
    let mut est = Est::new();
    est.request("press", &[]);
    let token = est.site.token("edge", "killed-07", est.server.address);
    for pause in [0, 2, 5, 10, 20] {
        let mut asking = est.post_command("simpleenroll", "press", &login("killed-07", &token));
        let mut asking = asking.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        est.server.process.kill();
        asking.wait().unwrap();
        est.server = est.site.serve();
    }
    let (code, body) = est.post("simpleenroll", "press", &login("killed-07", &token));
    assert_eq!(code, "200", "{body}");
    let list = binary::run_ok(&[&"ca", &"list", &"--dir", &est.site.ca()]);
    assert_eq!(list.matches("killed-07").count(), 1, "{list}");
}

/// Attack 15: slow headers and bodies, silence, and a body of 10 MB.
fn slow_and_huge() {
    let est = Est::new();
    let idle: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(est.server.address).unwrap())
        .collect();
    est.write("huge", &"A".repeat(10 << 20));
    let arguments = [
        &["-H", "Content-Type: application/pkcs10", "-H", "Expect:"][..],
        &[
            "-u",
            "edge/a:AAAAAAAAAAAAAAAAAAAAAA",
            "--data-binary",
            "@huge",
        ],
    ]
    .concat();
    let (code, body) = est.curl("/.well-known/est/simpleenroll", &arguments);
    assert!(code == "413" || code == "000", "{code} {body}");
    // Others are served meanwhile.
    assert_eq!(est.curl("/.well-known/est/cacerts", &[]).0, "200");
    // A peer that says nothing is sent away.
    let mut first = idle.into_iter().next().unwrap();
    first.set_read_timeout(Some(SOON)).unwrap();
    first.write_all(&[22, 3, 1]).unwrap();
    let mut octets = [0; 16];
    assert!(matches!(first.read(&mut octets), Ok(0) | Err(_)));
    within(SOON, "the server to be well", || {
        est.curl("/.well-known/est/cacerts", &[]).0 == "200"
    });
}

/// Attack 16: from a request nothing is taken but the key.
fn asks_for_more() {
    let est = Est::new();
    let extensions = [
        "subjectAltName=DNS:*.plant1.example,URI:spiffe://plant1.example/headend/hd-1,IP:10.0.0.1",
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=critical,keyCertSign,cRLSign",
        "extendedKeyUsage=anyExtendedKeyUsage,serverAuth",
    ];
    let arguments: Vec<&str> = extensions.iter().flat_map(|e| ["-addext", e]).collect();
    est.request("greedy", &arguments);
    let (code, body) = est.enroll("greedy-07", "greedy");
    assert_eq!(code, "200", "{body}");
    est.certificate("greedy", &body);
    let text = est.openssl(&["x509", "-in", "greedy.pem", "-noout", "-text"]);
    for absent in [
        "*.",
        "hd-1",
        "10.0.0.1",
        "CA:TRUE",
        "Certificate Sign",
        "Any Extended",
    ] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    assert!(text.contains("TLS Web Client Authentication"), "{text}");
    assert!(!text.contains("TLS Web Server"), "{text}");

    // Damaged, foreign, or for a key that nobody has shown to have.
    let request = fs::read_to_string(est.path("greedy.b64")).unwrap();
    let mut damaged = request.clone().into_bytes();
    let middle = damaged.len() / 2;
    damaged[middle] = if damaged[middle] == b'A' { b'B' } else { b'A' };
    est.write("damaged.b64", std::str::from_utf8(&damaged).unwrap());
    est.write("garbage.b64", "AAAA\n");
    est.write("empty.b64", "\n");
    for wrong in ["damaged", "garbage", "empty"] {
        let (code, body) = est.enroll("greedy-08", wrong);
        assert_eq!(code, "400", "{wrong}: {body}");
    }
}

/// Many wrong tokens for one name: turned away without a record, and the right one still works.
fn guesses() {
    let est = Est::new();
    est.request("guessed", &[]);
    let token = est.site.token("edge", "guessed-07", est.server.address);
    let wrong = login("guessed-07", &format!("x.{}", "A".repeat(22)));
    let codes: Vec<String> = (0..10)
        .map(|_| est.post("simpleenroll", "guessed", &wrong).0)
        .collect();
    assert_eq!(codes[..5], ["401"; 5]);
    assert_eq!(codes[5..], ["429"; 5]);
    let log = est.site.ca_command(&[&"log", &"--name", &"guessed-07"]);
    assert_eq!(log.matches("refused").count(), 5, "{log}");
    let (code, body) = est.post("simpleenroll", "guessed", &login("guessed-07", &token));
    assert_eq!(code, "200", "{body}");
}

/// Attack 19: names that would be paths, in logins, tokens, URLs, commands and backups. Nothing is
/// made outside, nothing is served from there.
fn names() {
    let est = Est::new();
    est.request("plain", &[]);
    let secret = "A".repeat(22);
    for name in [
        "../../press-07",
        "/etc/passwd",
        "press-07/../../x",
        "press-07%2f..",
        "..",
        "\u{202e}press",
        "press\u{2025}07",
        "press-07\n",
    ] {
        let user = ["-u".to_owned(), format!("edge/{name}:{secret}")];
        let (code, body) = est.post("simpleenroll", "plain", &user);
        assert!(
            ["400", "401"].contains(&code.as_str()),
            "{name:?}: {code} {body}"
        );
        for command in ["token", "issue"] {
            let (ca, out) = (est.site.ca(), est.path("out"));
            let passphrase = est.site.passphrase_file();
            let start: [&dyn AsRef<OsStr>; 8] = [
                &"ca", &command, &"--dir", &ca, &"--role", &"edge", &"--name", &name,
            ];
            let end: [&dyn AsRef<OsStr>; 4] = [&"--passphrase-file", &passphrase, &"--out", &out];
            let end = if command == "issue" { &end[..] } else { &[] };
            let output = binary::run(&[&start[..], end].concat());
            assert_eq!(
                output.status.code(),
                Some(2),
                "{name:?}: {}",
                binary::text(&output)
            );
            assert!(!out.exists());
        }
    }
    for path in [
        "/crl/../issuing.key.pem",
        "/crl/..%2fissuing.key.pem",
        "/crl/%2e%2e/records.db",
        "/crl//etc/passwd",
        "/.well-known/est/../../issuing.key.pem",
        "/.well-known/est/label/cacerts",
    ] {
        let (code, body) = est.curl(path, &["--path-as-is"]);
        assert_eq!(code, "404", "{path}: {body}");
    }

    // A backup from elsewhere that names files elsewhere.
    let backup = est.path("backup.json");
    est.site.ca_command(&[&"backup", &backup]);
    let text = fs::read_to_string(&backup).unwrap();
    for name in ["../outside.pem", "/tmp/outside.pem", ".hidden", "a/b.pem"] {
        let hostile = text.replacen("\"issuing.pem\"", &format!("\"{name}\""), 1);
        assert_ne!(hostile, text);
        let file = est.path("hostile.json");
        fs::write(&file, hostile).unwrap();
        let (inside, target) = (est.path("inside"), est.path("inside/ca"));
        let _ = fs::create_dir(&inside);
        let output = binary::run(&[&"ca", &"restore", &file, &"--dir", &target, &"--no-crl"]);
        let said = binary::text(&output);
        assert!(
            !output.status.success() && said.contains("no name of a file"),
            "{said}"
        );
        assert!(!target.exists() && fs::read_dir(&inside).unwrap().next().is_none());
    }
    assert!(!est.path("outside.pem").exists());
}

struct Est {
    site: std::sync::Arc<Site>,
    server: CaServer,
    directory: Directory,
}

impl Est {
    fn new() -> Self {
        Self::at(Site::shared())
    }

    fn at(site: std::sync::Arc<Site>) -> Self {
        let server = site.serve();
        Self {
            site,
            server,
            directory: Directory::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output = Command::new(Peer::find("openssl").unwrap())
            .current_dir(self.directory.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            binary::text(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// NAME.key and NAME.b64, a request for it.
    fn request(&self, name: &str, more: &[&str]) {
        let (key, der, b64) = (
            format!("{name}.key"),
            format!("{name}.der"),
            format!("{name}.b64"),
        );
        self.openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &key,
        ]);
        let req = ["req", "-new", "-key", &key, "-subj", "/CN=whatever\u{7f}"];
        let out = ["-outform", "DER", "-out", &der];
        self.openssl(&[&req[..], more, &out].concat());
        self.openssl(&["base64", "-in", &der, "-out", &b64]);
    }

    /// NAME.pem from the answer.
    fn certificate(&self, name: &str, body: &str) {
        let (p7, pem) = (format!("{name}.p7"), format!("{name}.pem"));
        self.write("answer.b64", body);
        self.openssl(&["base64", "-d", "-in", "answer.b64", "-out", &p7]);
        let p7 = ["pkcs7", "-inform", "DER", "-in", &p7, "-print_certs"];
        self.openssl(&[&p7[..], &["-out", &pem]].concat());
    }

    fn enroll(&self, name: &str, csr: &str) -> (String, String) {
        let token = self.site.token("edge", name, self.server.address);
        self.post("simpleenroll", csr, &login(name, &token))
    }

    fn post(&self, operation: &str, csr: &str, more: &[impl AsRef<str>]) -> (String, String) {
        code_and_body(&self.post_command(operation, csr, more).output().unwrap())
    }

    fn post_command(&self, operation: &str, csr: &str, more: &[impl AsRef<str>]) -> Command {
        let mut command = self.command(&format!("/.well-known/est/{operation}"));
        command
            .args(["-H", "Content-Type: application/pkcs10"])
            .args(["--data-binary", &format!("@{csr}.b64")])
            .args(more.iter().map(AsRef::as_ref))
            .stdout(std::process::Stdio::piped());
        command
    }

    /// Status code and body.
    fn curl(&self, path: &str, more: &[&str]) -> (String, String) {
        code_and_body(&self.command(path).args(more).output().unwrap())
    }

    fn command(&self, path: &str) -> Command {
        let mut command = Command::new(Peer::find("curl").unwrap());
        command
            .current_dir(self.directory.path())
            .args([
                "-sk",
                "--http1.1",
                "--max-time",
                "40",
                "-w",
                "\n%{http_code}",
            ])
            .arg(format!("https://{}{path}", self.server.address));
        command
    }
}

fn login(name: &str, token: &str) -> [String; 2] {
    let secret = token.rsplit('.').next().unwrap();
    ["-u".to_owned(), format!("edge/{name}:{secret}")]
}

fn code_and_body(output: &Output) -> (String, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
    (code.to_owned(), body.to_owned())
}
