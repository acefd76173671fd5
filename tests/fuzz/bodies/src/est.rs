//! Requests over HTTP at a CA: a whole CA, in a directory of its own, behind a connection in memory.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_ca::authority::Life;
use fieldlock_ca::init::{self, Plan};
use fieldlock_ca::serve::{Peer, Server};
use fieldlock_ca::{
    Access, Ca, Entry, Order, Passphrase, Settings, Source, Time, TokenOrder, make,
};
use fieldlock_pki::csr::{self, PublicKey};
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Role, Summary, est, hex};
use rcgen::KeyPair;
use tokio::runtime::Runtime;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep;

use crate::wire::{self, TO_END, Talk, Wire, one_answer};

/// Octets that one connection can have the CA read: a head, a body in chunks of one octet each.
const MOST_TAKEN: usize = 32 * 1024 + 8 * est::MAX_BODY;
/// And write: the trust list of a small site.
const MOST_SAID: usize = 64 * 1024;
/// After so many certificates a CA begins anew.
const MOST_ISSUED: usize = 200;
/// Longer than the shortest long poll.
const POLL: Duration = Duration::from_millis(3);
const NAME: &str = "press-07";

/// One connection to the CA by a stranger, or by the holder of a certificate: at most one answer,
/// bounded, and the end; and no certificate but for the holder of a token or of a certificate that
/// is in force, of that identity, once for a token, for a key that the request proves.
///
/// The first octet says who asks. In the others 1 to 8 stand for what a fuzzer can't make up, see
/// [`Site::written`].
pub fn est_http(data: &[u8]) {
    thread_local! {
        static SITE: RefCell<Option<Site>> = const { RefCell::new(None) };
    }
    SITE.with_borrow_mut(|site| {
        if site
            .as_ref()
            .is_some_and(|site| site.issued.len() > MOST_ISSUED)
        {
            *site = None;
        }
        site.get_or_insert_with(Site::new).ask(data);
    });
}

struct Site {
    directory: tempfile::TempDir,
    runtime: Runtime,
    server: Arc<Server>,
    /// Of the identity `edge/press-07`.
    in_force: Arc<[u8]>,
    revoked: Arc<[u8]>,
    /// Header values for it: the token, and a guess.
    token: String,
    guess: String,
    token_hash: String,
    /// Requests (base64) and the hashes of their keys.
    requests: [(String, String); 2],
    /// As the CA has them on record.
    issued: Vec<Entry>,
    changes: [u8; 4],
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let passphrase = || Passphrase::new("correct horse battery".to_owned()).unwrap();
        let site = "plant1.example".parse().unwrap();
        let mut settings = Settings::resolve(Some(site), None).unwrap();
        // The limits of one address would end the run.
        settings.serve.requests_per_minute = u32::MAX;
        let plan = Plan {
            directory: directory.path().join("ca"),
            root_out: directory.path().join("usb"),
            settings,
            passphrase: passphrase(),
            root_passphrase: passphrase(),
            token: None,
            root_token: None,
        };
        let now = Time::now();
        init::make(&plan, now).unwrap();
        let mut ca = Ca::open(&plan.directory, Access::Write).unwrap();
        let keys = ca.unlock(&passphrase()).unwrap();
        let mut issue = |name: &str| {
            let order = Order {
                role: Role::Edge,
                name: name.parse().unwrap(),
                modbus_role: None,
                key: make::Key::generate().unwrap().public().unwrap(),
                source: Source::Made,
                life: Life::Usual,
            };
            ca.issue(&keys, order, now).unwrap()
        };
        let in_force = issue(NAME);
        let revoked = issue("press-08");
        let serials = [revoked.summary.serial.clone()];
        ca.revoke(&keys, &serials, Reason::KeyCompromise, now)
            .unwrap();
        let order = TokenOrder {
            role: Role::Edge,
            name: NAME.parse().unwrap(),
            modbus_role: None,
            address: "ca.example:4434".to_owned(),
            life: 1_000_000,
        };
        let (token, _) = ca.token(order, now).unwrap();
        let basic = |secret: &str| format!("Basic {}", base64(&format!("edge/{NAME}:{secret}")));
        let issued = ca.records().certificates().unwrap();
        drop(ca);
        let mut site = Self {
            server: Server::new(&plan.directory, passphrase()).unwrap(),
            runtime: wire::runtime(),
            in_force: in_force.bundle.leaf.into(),
            revoked: revoked.bundle.leaf.into(),
            token: basic(&token.secret.to_text()),
            guess: basic("AAAAAAAAAAAAAAAAAAAAAA"),
            token_hash: hex::lower(&token.secret.hash()),
            requests: [(); 2].map(|()| request()),
            issued,
            changes: [0; 4],
            directory,
        };
        site.changes = site.changes();
        site
    }

    /// The status of the answer.
    fn ask(&mut self, data: &[u8]) -> Option<u16> {
        let (&who, text) = data.split_first().unwrap_or((&0, &[]));
        let peer = Peer {
            address: IpAddr::from([127, 0, 0, 1 + (who >> 4)]),
            certificate: match who & 3 {
                0 | 1 => None,
                2 => Some(self.in_force.clone()),
                _ => Some(self.revoked.clone()),
            },
        };
        let shows = |octet| text.contains(&octet);
        let proves_key = shows(3) || shows(4);
        let may_enroll = proves_key && shows(2);
        let may_renew = proves_key && who & 3 == 2;
        let wire = Wire::new(self.written(text), who & 4 != 0);
        let served = self.server.clone().converse(wire.clone(), peer);
        let works = async || {
            idle().await;
            if shows(5) {
                sleep(POLL).await;
            }
        };
        // Behind more than its client sent with it, a long poll lasts for as long as it says.
        let to_end = if shows(5) { POLL } else { TO_END };
        let talked = self.runtime.block_on(wire.talk(served, works, to_end));
        let (ended, talk) = talked;
        assert!(
            ended.is_some() || shows(5),
            "it does not end when its client leaves"
        );
        if proves_key {
            // What was begun for a client that left is on record too.
            self.runtime.block_on(idle());
        }
        let (status, given) = self.judge(&talk, text);
        let new = self.new_on_record();
        for entry in &new {
            match &entry.source {
                Source::Token(hash) => {
                    assert!(may_enroll && *hash == self.token_hash);
                    let same = |other: &Entry| other.source == entry.source;
                    assert!(!self.issued.iter().any(same), "twice by a token");
                }
                Source::Renewal(serial) => {
                    let current = Summary::of(&self.in_force).unwrap();
                    assert!(may_renew && *serial == current.serial);
                }
                other => panic!("issued by {other:?}"),
            }
            assert_eq!((entry.role, entry.name.as_str()), (Role::Edge, NAME));
            let mut requests = self.requests.iter();
            assert!(requests.any(|(_, hash)| *hash == entry.key_hash));
        }
        assert!(new.len() <= 1, "one request, one certificate");
        self.issued.extend(new);
        assert!(given.is_none_or(|leaf| self.knows(&leaf)), "not on record");
        status
    }

    /// What the answer must be like: its status, and the certificate that it gives.
    fn judge(&self, talk: &Talk, text: &[u8]) -> (Option<u16>, Option<Summary>) {
        assert!(talk.taken <= MOST_TAKEN, "{} octets read", talk.taken);
        assert!(talk.said.len() <= MOST_SAID, "{} said", talk.said.len());
        let is_head = text.windows(4).any(|octets| octets == b"HEAD");
        let Some(answer) = one_answer(&talk.said, is_head) else {
            return (None, None);
        };
        let known = [
            200, 304, 400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 429, 431, 501,
        ];
        assert!(known.contains(&answer.status), "status {}", answer.status);
        let status = Some(answer.status);
        // An answer to HEAD has the headers alone.
        let is_certificates = answer.header("content-type") == Some(est::CERTS_ONLY) && !is_head;
        if answer.status != 200 || !is_certificates {
            return (status, None);
        }
        let message = est::decode(answer.body).unwrap();
        let certificates = est::parse_certs_only(&message).unwrap();
        // All others are the CA's own.
        let leaf = match certificates.as_slice() {
            [leaf] => Some(Summary::of(leaf).unwrap()),
            _ => None,
        };
        (status, leaf)
    }

    fn knows(&self, leaf: &Summary) -> bool {
        self.issued.iter().any(|entry| entry.serial == leaf.serial)
    }

    /// Certificates since the last look.
    fn new_on_record(&mut self) -> Vec<Entry> {
        let changes = self.changes();
        if changes == self.changes {
            return Vec::new();
        }
        self.changes = changes;
        let ca = Ca::open(&self.path("ca"), Access::Read).unwrap();
        let entries = ca.records().certificates().unwrap();
        entries[self.issued.len()..].to_vec()
    }

    /// SQLite's count of changes (its file format, section 1.3.7): times of files are too coarse.
    fn changes(&self) -> [u8; 4] {
        let mut head = [0; 28];
        let mut records = File::open(self.path("ca/records.db")).unwrap();
        records.read_exact(&mut head).unwrap();
        [head[24], head[25], head[26], head[27]]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The pieces of a connection. 1 is a pause; 2 and 7 log in by the token and by a guess; 3 and 4
    /// are requests for certificates, of two keys, and 8 is the length of one; 5 names the trust
    /// list; 6 is much of the octet after it; 14 takes the octet after it as it is.
    fn written(&self, text: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let mut octets = text.iter();
        while let Some(&octet) = octets.next() {
            match octet {
                1 => pieces.push(std::mem::take(&mut piece)),
                2 => piece.extend_from_slice(self.token.as_bytes()),
                7 => piece.extend_from_slice(self.guess.as_bytes()),
                3 | 4 => {
                    let (request, _) = &self.requests[usize::from(octet) - 3];
                    piece.extend_from_slice(request.as_bytes());
                }
                8 => {
                    let length = self.requests[0].0.len();
                    piece.extend_from_slice(length.to_string().as_bytes());
                }
                5 => piece.extend_from_slice(self.server.etag().as_bytes()),
                6 => {
                    let length = piece.len() + (16 << 10);
                    piece.resize(length, octets.next().copied().unwrap_or(b'a'));
                }
                14 => piece.extend(octets.next()),
                octet => piece.push(octet),
            }
        }
        pieces.push(piece);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

/// Until all that waited for the disk has been done: who asks is judged, then his request, and a refusal
/// goes on record.
async fn idle() {
    for _ in 0..4 {
        spawn_blocking(|| ()).await.unwrap();
        yield_now().await;
    }
}

fn request() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let pem = csr::request(&key, Role::Edge, &NAME.parse().unwrap()).unwrap();
    let public = PublicKey::from_request(&pem).unwrap();
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    (lines.collect(), public.hash().to_owned())
}

fn base64(text: &str) -> String {
    est::encode(text.as_bytes()).trim_end().replace('\n', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_get_what_they_are_named_for() {
        let mut site = Site::new();
        let before = site.issued.len();
        let ask = |site: &mut Site, name| {
            let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../seeds/est_http");
            let seed = std::fs::read(format!("{seeds}/{name}")).unwrap();
            site.ask(&seed)
        };
        for (name, status) in [
            ("cacerts", Some(200)),
            ("trust-list", Some(200)),
            ("trust-list-unchanged", Some(304)),
            ("long-poll-left", None),
            ("half-a-head", None),
            ("guess", Some(401)),
            ("by-token", Some(200)),
            ("by-token-with-another-key", Some(403)),
            ("chunks", Some(400)),
            ("body-too-long", Some(413)),
            ("renewal", Some(200)),
            ("renewal-of-a-revoked-one", Some(403)),
            ("renewal-by-a-stranger", Some(403)),
            ("pipelined", Some(200)),
            ("head-too-long", Some(431)),
            ("head", Some(200)),
        ] {
            assert_eq!(ask(&mut site, name), status, "{name}");
        }
        // Each refusal is a write to the disk: they end, whoever asks, and a good answer does not.
        let mut again = (0..10).map(|_| ask(&mut site, "by-token-with-another-key"));
        assert!(again.any(|status| status == Some(429)));
        assert_eq!(ask(&mut site, "by-token"), Some(200));
        assert_eq!(site.issued.len(), before + 2, "by the token and by renewal");
    }
}
