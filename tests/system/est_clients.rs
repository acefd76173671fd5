//! EST as other people's clients speak it, and HTTP as it should be: requests octet by octet, over TLS
//! of openssl and of Python.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::Directory;
use fieldlock_tests::{CaServer, SOON, Setup, Site, Transport, binary, trial, within};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let python = |name: &str, run: fn()| trial::with_peers(name, &["cryptography"], run);
    let openssl = |name: &str, run: fn()| trial::with_peers(name, &["openssl", "curl"], run);
    vec![
        python("est::a_client_like_libest_enrols_and_renews", libest),
        python(
            "est::a_client_like_libest_goes_through_a_headend",
            libest_through_a_headend,
        ),
        python(
            "est::python_cryptography_enrols_and_renews",
            python_cryptography,
        ),
        openssl(
            "est::what_is_weaker_than_the_settings_is_refused_on_record",
            weaker,
        ),
        openssl(
            "est::malformed_requests_and_foreign_certificates_are_on_record",
            on_record,
        ),
        openssl("est::headers_are_spelled_as_in_the_rfcs", spelling),
        openssl(
            "est::http_is_judged_before_the_body_is_there",
            before_the_body,
        ),
        openssl("est::one_host_no_codings_and_heads", http),
    ]
}

/// What network gear needs.
const GEAR: &str = "tls12 = true\nmin_rsa_bits = 2048";

/// A site of its own whose `[serve]` says so.
fn site(more: &str) -> Site {
    let site = Site::new();
    let path = site.ca().join("ca.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let changed = settings.replace("tls12 = false", more);
    assert!(changed != settings || more == "tls12 = false", "{settings}");
    fs::write(&path, changed).unwrap();
    site
}

fn libest() {
    let site = site(GEAR);
    let server = site.serve();
    client(&site, "libest", server.address, "client/gear-1");
    let refused = site.ca_command(&[&"log", &"--kind", &"refused"]);
    assert_eq!(
        refused, "",
        "asking without credentials first is no offence"
    );
}

fn libest_through_a_headend() {
    let site = site(GEAR);
    let server = site.serve();
    let entrance = free_address().unwrap();
    let authority = format!(
        "[ca]\naddress = \"{}\"\nlisten = [\"{entrance}\"]\n",
        server.address
    );
    let pair = Setup::new(Transport::Tls).headend(&authority).up();
    client(&site, "libest", entrance, "client/gear-2");
    // At the port of the tunnels it is told what it lacks.
    let said = s_client(pair.tunnel, &["-tls1_2"], "");
    assert!(said.contains("protocol version"), "{said}");
    within(SOON, "the hint", || {
        pair.headend.log().contains("`listen` under [ca]")
    });
}

fn python_cryptography() {
    let site = Site::shared();
    let server = site.serve();
    client(&site, "python", server.address, "edge/python-07");
}

fn client(site: &Site, kind: &str, address: SocketAddr, identity: &str) {
    let (role, name) = identity.split_once('/').unwrap();
    let token = site.token(role, name, address);
    let secret = token.rsplit('.').next().unwrap();
    let output = Command::new(Peer::find("cryptography").unwrap())
        .arg(workspace_root().join("tests/peers/est_client.py"))
        .args([kind, &address.to_string(), identity, secret])
        .output()
        .unwrap();
    let said = binary::text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("simplereenroll").count(), 2, "{said}");
    let listed = site.ca_command(&[&"list", &"--name", &name]);
    assert_eq!(listed.matches("valid").count(), 3, "{listed}");
}

/// By default: TLS 1.3 alone, and no RSA at all; P-521 never.
fn weaker() {
    let site = Site::new();
    let mut server = site.serve();
    let said = s_client(server.address, &["-tls1_2"], "");
    assert!(said.contains("protocol version"), "{said}");
    is_on_record(&site, &mut server, "`tls12 = true` under [serve]");

    let directory = Directory::new().unwrap();
    for (kind, option, why) in [
        ("rsa:2048", &[][..], "RSA with 2048 bits"),
        (
            "ec",
            &["-pkeyopt", "ec_paramgen_curve:P-521"],
            "use P-256, P-384 or Ed25519",
        ),
    ] {
        let request = request(&directory, kind, option);
        let token = site.token("client", "gear-3", server.address);
        let answer = post(&server, "client/gear-3", &token, &request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains(why), "{answer}");
        is_on_record(&site, &mut server, why);
    }
    // An agent signs with its key what RSA does not: RSA is not for edges, whatever is set.
    let site = self::site(GEAR);
    let server = site.serve();
    let request = request(&directory, "rsa:2048", &[]);
    let token = site.token("edge", "press-07", server.address);
    let answer = post(&server, "edge/press-07", &token, &request);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("of a kind that the role edge can't have"),
        "{answer}"
    );
}

fn on_record() {
    let site = Site::new();
    let mut server = site.serve();
    let token = || site.token("edge", "press-07", server.address);
    for (body, why) in [
        ("AAAA", "not a PKCS #10"),
        ("%%%%", "base64"),
        ("", "empty"),
    ] {
        let answer = post(&server, "edge/press-07", &token(), body);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(
            answer.to_lowercase().contains(&why.to_lowercase()),
            "{answer}"
        );
    }
    let refused = site.ca_command(&[&"log", &"--kind", &"refused", &"--name", &"press-07"]);
    assert_eq!(refused.lines().count(), 3, "{refused}");
    assert!(refused.contains("\"address\":\"127.0.0.1\""), "{refused}");

    // The token whole in place of its secret.
    let login = ["-u", "edge/press-07:fl1:edge/press-07@a:1#b.c"];
    let code = curl(
        &server,
        "/.well-known/est/simpleenroll",
        &[&login[..], &["-d", "x"]].concat(),
    );
    assert_eq!(code, "401");
    is_on_record(&site, &mut server, "credentials");

    let theirs = Site::new();
    let foreign = theirs.issued("edge", "foreign-07", &[]);
    let (key, certificate) = (foreign.join("key.pem"), foreign.join("bundle.pem"));
    let shown = [
        "--cert",
        certificate.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let code = curl(&server, "/.well-known/est/cacerts", &shown);
    assert_eq!(code, "000");
    is_on_record(&site, &mut server, "it is of another CA");

    plain(server.address, "GET / HTTP/1.1\r\n\r\n");
    is_on_record(&site, &mut server, "does not speak TLS");
    s_client(server.address, &[], "NONSENSE\r\n\r\n");
    is_on_record(&site, &mut server, "not HTTP/1.1");
}

/// Clients compare names of headers with the case that they have in RFC 7030 and RFC 9110.
fn spelling() {
    let server = Site::shared().serve();
    let answer = ask(
        &server,
        "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: ca\r\n\r\n",
    );
    for header in [
        "\r\nContent-Type: application/pkcs7-mime; smime-type=certs-only\r\n",
        "\r\nContent-Transfer-Encoding: base64\r\n",
        "\r\nContent-Length: ",
        "\r\nDate: ",
    ] {
        assert!(answer.contains(header), "{header:?}: {answer}");
    }
    let login = "edge/press-07:AAAAAAAAAAAAAAAAAAAAAA";
    for credentials in ["", login] {
        let answer = ask(
            &server,
            &enrol(credentials, "Content-Length: 4\r\n", "AAAA"),
        );
        assert!(
            answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("\r\nWWW-Authenticate: Basic realm=\""),
            "{answer}"
        );
    }
    let answer = ask(
        &server,
        "GET /.well-known/fieldlock/trust HTTP/1.1\r\nHost: ca\r\n\r\n",
    );
    assert!(answer.contains("\r\nETag: \""), "{answer}");
}

/// No body follows; a wait for one would take 10 s.
fn before_the_body() {
    let site = Site::shared();
    let server = site.serve();
    let wrong = "edge/press-07:AAAAAAAAAAAAAAAAAAAAAA";
    let token = site.token("edge", "waits-07", server.address);
    let right = format!("edge/waits-07:{}", token.rsplit('.').next().unwrap());
    for (credentials, headers, status) in [
        ("", "Content-Length: 500\r\n", "401"),
        (wrong, "Content-Length: 500\r\n", "401"),
        (
            wrong,
            "Content-Length: 500\r\nExpect: 100-continue\r\n",
            "401",
        ),
        (wrong, "Transfer-Encoding: chunked\r\n", "401"),
        (&right, "Content-Length: 99999999\r\n", "413"),
        (
            &right,
            "Content-Length: 500\r\nContent-Encoding: gzip\r\n",
            "415",
        ),
        (
            &right,
            "Content-Length: 500\r\nExpect: a-miracle\r\n",
            "417",
        ),
        (&right, "Transfer-Encoding: gzip, chunked\r\n", "501"),
    ] {
        let begun = Instant::now();
        let answer = ask(&server, &enrol(credentials, headers, ""));
        let status = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&status), "{headers}: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{headers}");
    }
    // Who may send is told to go on.
    let headers = "Content-Length: 4\r\nExpect: 100-continue\r\n";
    let answer = ask(&server, &enrol(&right, headers, "AAAA"));
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 "),
        "{answer}"
    );
}

fn http() {
    let server = Site::shared().serve();
    for (hosts, good) in [
        ("Host: ca\r\n", true),
        ("Host: 127.0.0.1:4434\r\n", true),
        ("Host: [::1]:4434\r\n", true),
        ("", false),
        ("Host: ca\r\nHost: ca\r\n", false),
        ("Host: ca\r\nHost: other\r\n", false),
        ("Host: ca other\r\n", false),
        ("Host: user@ca\r\n", false),
    ] {
        let request = format!("GET /crl/ HTTP/1.1\r\n{hosts}\r\n");
        let answer = ask(&server, &request);
        let status = if good {
            "HTTP/1.1 200 "
        } else {
            "HTTP/1.1 400 "
        };
        assert!(answer.starts_with(status), "{hosts:?}: {answer}");
    }
    for path in [
        "/crl/",
        "/.well-known/est/cacerts",
        "/.well-known/fieldlock/trust",
    ] {
        let ask = |method: &str| {
            ask(
                &server,
                &format!("{method} {path} HTTP/1.1\r\nHost: ca\r\n\r\n"),
            )
        };
        let (head, get) = (ask("HEAD"), ask("GET"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        assert!(head.ends_with("\r\n\r\n"), "a head has no body: {head}");
        let length = |answer: &str| {
            let line = answer
                .lines()
                .find(|line| line.starts_with("Content-Length: "));
            line.unwrap_or_else(|| panic!("{answer}")).to_owned()
        };
        assert_eq!(length(&head), length(&get), "{path}");
        assert!(ask("DELETE").contains("\r\nAllow: GET, HEAD\r\n"));
    }
    let answer = ask(
        &server,
        "HEAD /.well-known/est/simpleenroll HTTP/1.1\r\nHost: ca\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("\r\nAllow: POST\r\n"), "{answer}");
}

/// A line in the log, and a record.
fn is_on_record(site: &Site, server: &mut CaServer, what: &str) {
    within(SOON, "a record", || {
        site.ca_command(&[&"log", &"--kind", &"refused"])
            .contains(what)
    });
    let log = server.process.log();
    let line = log.lines().find(|line| line.contains(what));
    assert!(
        line.is_some_and(|line| line.contains("WARN")),
        "{what}: {log}"
    );
}

/// Base64 of a request for a new key of this kind.
fn request(directory: &Directory, kind: &str, option: &[&str]) -> String {
    let output = Command::new(Peer::find("openssl").unwrap())
        .current_dir(directory.path())
        .args(["req", "-new", "-newkey", kind])
        .args(option)
        .args(["-nodes", "-keyout", "key.pem", "-subj", "/CN=x"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", binary::text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn post(server: &CaServer, identity: &str, token: &str, body: &str) -> String {
    let secret = token.rsplit('.').next().unwrap();
    let length = format!("Content-Length: {}\r\n", body.len());
    ask(
        server,
        &enrol(&format!("{identity}:{secret}"), &length, body),
    )
}

/// A request for enrolment with HTTP Basic, if there are credentials.
fn enrol(credentials: &str, headers: &str, body: &str) -> String {
    let authorization = match credentials {
        "" => String::new(),
        credentials => format!("Authorization: Basic {}\r\n", base64(credentials)),
    };
    format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: ca\r\n\
         Content-Type: application/pkcs10\r\n{authorization}{headers}\r\n{body}"
    )
}

fn base64(text: &str) -> String {
    let mut child = Command::new(Peer::find("openssl").unwrap())
        .args(["base64", "-A"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn ask(server: &CaServer, request: &str) -> String {
    s_client(server.address, &["-quiet"], request)
}

/// Sends octets over TLS, and what came back until the server closed. Its own end stays open.
fn s_client(to: SocketAddr, options: &[&str], octets: &str) -> String {
    let mut child = Command::new(Peer::find("openssl").unwrap())
        .args(["s_client", "-ign_eof", "-connect", &to.to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended already, refused.
    let _ = stdin.write_all(octets.as_bytes());
    let _ = stdin.flush();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    match options.contains(&"-quiet") {
        true => String::from_utf8_lossy(&output.stdout).into_owned(),
        false => binary::text(&output),
    }
}

/// The same without TLS.
fn plain(to: SocketAddr, octets: &str) {
    let mut stream = std::net::TcpStream::connect(to).unwrap();
    stream.write_all(octets.as_bytes()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// The status code, 000 without an answer.
fn curl(server: &CaServer, path: &str, more: &[&str]) -> String {
    let output = Command::new(Peer::find("curl").unwrap())
        .args([
            "-sk",
            "--max-time",
            "40",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ])
        .args(more)
        .arg(format!("https://{}{path}", server.address))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
