use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fieldlock_audit::{FILE_NAME, Journal, Options, Sign};
use fieldlock_pki::bundle::{certificate_pem, crl_pem};
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::{Authority, Reason, Revocation, RevocationList, Validity};
use fieldlock_pki::profile::Profile;
use fieldlock_pki::{Serial, Site};
use fieldlock_signed::Signer;
use rcgen::KeyPair;
use tempfile::TempDir;

use super::*;

const SOON: Duration = Duration::from_secs(20);
const DAY: i64 = 86_400;

#[test]
fn a_log_that_its_agent_signed_is_in_order() {
    let ca = Ca::new("1");
    let log = Log::of("press-07", &ca.agent("press-07"));
    let whole = verify(log.path(), Some(ca.list(&[])), &[]).unwrap();
    assert_eq!((whole.agent.as_str(), whole.files), ("press-07", 1));
    assert!(whole.in_order && whole.judged && !whole.revoked);
    assert_eq!(whole.first, 1);
    assert_eq!(whole.signed_to + 1, whole.last);
    let signer = whole.signer.unwrap();
    assert_eq!(signer, "spiffe://plant1.example/edge/press-07");
    assert_eq!((whole.misdated, whole.unfinished), (0, 0));

    let unjudged = verify(log.path(), None, &[]).unwrap();
    assert!(!unjudged.judged && unjudged.signed > 0);
}

#[test]
fn a_certificate_of_another_agent_signs_nothing() {
    let ca = Ca::new("1");
    let log = Log::of("press-07", &ca.agent("press-08"));
    let fault = checkpoint_fault(verify(log.path(), None, &[]));
    assert!(matches!(fault, CheckpointFault::Other(_)), "{fault}");
}

#[test]
fn a_signature_by_another_key_is_not_the_agents() {
    let ca = Ca::new("1");
    let mut signer = ca.agent("press-07");
    signer.key = ca.agent("press-07").key;
    let log = Log::of("press-07", &signer);
    let fault = checkpoint_fault(verify(log.path(), None, &[]));
    assert!(matches!(fault, CheckpointFault::Signature), "{fault}");
}

#[test]
fn a_certificate_that_is_none_is_named_so() {
    let ca = Ca::new("1");
    let signer = AgentKey {
        leaf: b"no certificate".to_vec(),
        ..ca.agent("press-07")
    };
    let log = Log::of("press-07", &signer);
    let error = verify(log.path(), None, &[]).unwrap_err().to_string();
    assert!(error.contains(": its certificate: "), "{error}");
}

#[test]
fn a_changed_record_breaks_the_chain() {
    let ca = Ca::new("1");
    let log = Log::of("press-07", &ca.agent("press-07"));
    let file = log.path().join(FILE_NAME);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"denied\"", "\"client-open\"", 1)).unwrap();
    let error = verify(log.path(), None, &[]).unwrap_err();
    assert!(
        matches!(error, VerifyError::Chain(Fault::Changed { .. })),
        "{error}"
    );
}

#[test]
fn a_revoked_certificate_is_told_and_breaks_nothing() {
    let ca = Ca::new("1");
    let agent = ca.agent("press-07");
    let serial = Certificate::of(&agent.leaf).unwrap().serial;
    let log = Log::of("press-07", &agent);
    let whole = verify(log.path(), Some(ca.list(&[serial])), &[]).unwrap();
    assert!(whole.revoked && whole.signed > 0);
}

#[test]
fn a_list_that_cannot_judge_is_at_fault_and_not_the_log() {
    let (ca, other) = (Ca::new("1"), Ca::new("2"));
    let log = Log::of("press-07", &ca.agent("press-07"));
    let fault_of = |change: &dyn Fn(&mut TrustList)| {
        let mut list = ca.list(&[]);
        change(&mut list);
        match verify(log.path(), Some(list), &[]) {
            Err(VerifyError::Trust(fault)) => fault,
            verdict => panic!("{verdict:?}"),
        }
    };
    let none = fault_of(&|list| list.issuing.clear());
    assert!(matches!(none, TrustFault::NoIssuing { .. }), "{none}");
    let foreign = fault_of(&|list| list.issuing = other.list(&[]).issuing);
    assert!(
        matches!(foreign, TrustFault::OtherIssuing { .. }),
        "{foreign}"
    );
    let rootless = fault_of(&|list| list.roots.clear());
    assert!(matches!(rootless, TrustFault::NoRoot { .. }), "{rootless}");
    let astray = fault_of(&|list| list.roots = other.list(&[]).roots);
    assert!(matches!(astray, TrustFault::OtherRoot { .. }), "{astray}");
}

#[test]
fn a_ca_of_the_same_name_vouches_for_nothing() {
    let (ca, namesake) = (Ca::new("1"), Ca::new("1"));
    let log = Log::of("press-07", &ca.agent("press-07"));
    let fault = checkpoint_fault(verify(log.path(), Some(namesake.list(&[])), &[]));
    assert!(matches!(fault, CheckpointFault::Distrusted(_)), "{fault}");
}

#[test]
fn the_other_end_confirms_what_it_has_on_record() {
    let ca = Ca::new("1");
    let log = Log::of("press-07", &ca.agent("press-07"));
    let whole = verify(log.path(), None, &[]).unwrap();
    let head = Head {
        agent: Some("press-07".into()),
        ..checkpoint_of(log.path())
    };
    let told = Record {
        head: Some(Box::new(head)),
        ..Record::new(Kind::PeerCheckpoint)
    };
    let other = Log::with("hd-1", &ca.agent("hd-1"), &[told]);
    let others = [other.path().to_owned()];
    let confirmed = verify(log.path(), None, &others).unwrap();
    assert_eq!(
        (confirmed.confirmed, confirmed.confirmed_to),
        (1, whole.signed_to)
    );

    // Begun anew: in order by itself, and not what the other end knows.
    let anew = Log::with(
        "press-07",
        &ca.agent("press-07"),
        &[Record::new(Kind::Start)],
    );
    let error = verify(anew.path(), None, &others).unwrap_err();
    assert!(matches!(error, VerifyError::Chain(_)), "{error}");
}

#[test]
fn a_log_that_knows_nothing_of_this_one_confirms_nothing() {
    let ca = Ca::new("1");
    let log = Log::of("press-07", &ca.agent("press-07"));
    let other = Log::of("hd-1", &ca.agent("hd-1"));
    let error = verify(log.path(), None, &[other.path().to_owned()]).unwrap_err();
    assert!(
        matches!(&error, VerifyError::Untold { agent, .. } if agent == "press-07"),
        "{error}"
    );
}

#[test]
fn what_is_not_there_or_empty_is_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let error = verify(folder.path(), None, &[]).unwrap_err();
    assert!(matches!(error, VerifyError::Read { .. }), "{error}");
    fs::write(folder.path().join(FILE_NAME), "").unwrap();
    let error = verify(folder.path(), None, &[]).unwrap_err();
    assert!(matches!(error, VerifyError::Empty { .. }), "{error}");
}

fn checkpoint_fault(verdict: Result<Verified, VerifyError>) -> CheckpointFault {
    match verdict {
        Err(VerifyError::Checkpoint { fault, .. }) => fault,
        verdict => panic!("{verdict:?}"),
    }
}

/// A log as its agent leaves it: records, and a signed checkpoint at the end.
struct Log(TempDir);

impl Log {
    fn of(agent: &str, key: &AgentKey) -> Self {
        Self::with(agent, key, &[])
    }

    fn with(agent: &str, key: &AgentKey, records: &[Record]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(Options::new(folder.path(), agent), |_| {}).unwrap();
        journal.set_signer(Arc::new(key.clone()));
        for record in records {
            journal.append(record.clone()).unwrap();
        }
        for _ in 0..3 {
            journal.append(Record::new(Kind::Denied)).unwrap();
        }
        journal.close(SOON).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn checkpoint_of(log: &Path) -> Head {
    let text = fs::read_to_string(log.join(FILE_NAME)).unwrap();
    let mut records = text
        .lines()
        .map(|line| serde_json::from_str::<Record>(line).unwrap());
    let checkpoint = records.rfind(|record| record.kind == Kind::Checkpoint);
    *checkpoint.unwrap().head.unwrap()
}

#[derive(Clone)]
struct AgentKey {
    key: Vec<u8>,
    leaf: Vec<u8>,
}

impl Sign for AgentKey {
    fn certificate(&self) -> Box<str> {
        BASE64_STANDARD.encode(&self.leaf).into()
    }

    fn sign(&self, text: &str) -> Option<Box<str>> {
        let signature = Signer::new(&self.key)?.sign(text.as_bytes())?;
        Some(BASE64_STANDARD.encode(signature).into())
    }
}

struct Ca {
    root: Authority,
    issuing: Authority,
}

impl Ca {
    fn new(mark: &str) -> Self {
        let key = || Box::new(KeyPair::generate().unwrap());
        let root = Authority::root(&site(), mark, key(), &serial(), validity(1000)).unwrap();
        let issuing = root
            .issuing(&site(), mark, key(), &serial(), validity(1000))
            .unwrap();
        Self { root, issuing }
    }

    fn agent(&self, name: &str) -> AgentKey {
        let uri = format!("spiffe://plant1.example/edge/{name}");
        let identity = Identity::from_uri(&uri).unwrap();
        let key = KeyPair::generate().unwrap();
        let public = PublicKey::of(&key).unwrap();
        let profile = Profile::of(identity.role).unwrap();
        let leaf = self
            .issuing
            .leaf(&identity, None, &profile, &public, &serial(), validity(90))
            .unwrap();
        AgentKey {
            key: key.serialize_der(),
            leaf,
        }
    }

    fn list(&self, revoked: &[Serial]) -> TrustList {
        let pem = certificate_pem(self.root.certificate())
            + &certificate_pem(self.issuing.certificate())
            + &crl_pem(&crl(&self.root, &[]))
            + &crl_pem(&crl(&self.issuing, revoked));
        TrustList::parse(&pem).unwrap()
    }
}

fn crl(authority: &Authority, revoked: &[Serial]) -> Vec<u8> {
    let revoked = revoked.iter().map(|serial| Revocation {
        serial: serial.clone(),
        time: now(),
        reason: Reason::KeyCompromise,
    });
    let list = RevocationList {
        number: 1,
        this_update: now() - 300,
        next_update: now() + 30 * DAY,
        revoked: revoked.collect(),
    };
    authority.crl(&list).unwrap()
}

fn site() -> Site {
    "plant1.example".parse().unwrap()
}

fn serial() -> Serial {
    let key = PublicKey::of(&KeyPair::generate().unwrap()).unwrap();
    format!("4{}", &key.hash()[..31]).parse().unwrap()
}

fn validity(days: i64) -> Validity {
    Validity {
        not_before: now() - 300,
        not_after: now() + days * DAY,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}
