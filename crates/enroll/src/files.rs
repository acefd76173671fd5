//! The asking side: an agent's key and request, and the installation of the answer.
//!
//! A request and its answer travel as files, over any way; nothing in them is secret. What makes
//! the answer trustworthy is the fingerprint of the root, compared by a person at the first
//! installation ([`Expect::root`]) and by this module ever after.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fieldlock_pki::bundle::{Bundle, BundleError};
use fieldlock_pki::private::{self, NotPrivate};
use fieldlock_pki::store::{self, Installed, Request, StoreError};
use fieldlock_pki::trust::{Merged, TrustList, TrustListError};
use fieldlock_pki::{Crl, Identity, Name, Role, Summary, TokenError, csr};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::client::ClientError;

/// A request ready to be sent.
#[derive(Debug)]
pub struct Asked {
    pub pem: String,
    pub role: Role,
    pub name: Name,
    /// The same request was waiting already; its key was kept.
    pub repeated: bool,
}

/// Makes a key in the state directory and a request for it. An agent that is installed already
/// may leave out role and name: it asks as what it is, with a new key. A request that waits is
/// repeated unchanged, so that an answer under way stays good; one for another name is replaced
/// only by `replace`.
pub fn request(
    state: &Path,
    role: Option<Role>,
    name: Option<Name>,
    replace: bool,
) -> Result<Asked, EnrollError> {
    let (role, name) = asked_identity(state, role, name)?;
    if let Some(waiting) = Request::load(state)?.filter(|_| !replace) {
        if waiting.role != role || waiting.name != name {
            return Err(EnrollError::OtherRequest {
                role: waiting.role,
                name: waiting.name,
            });
        }
        let key = KeyPair::try_from(waiting.key_der.as_slice()).map_err(EnrollError::Key)?;
        return asked(&key, role, name, true);
    }
    let key = KeyPair::generate().map_err(EnrollError::Key)?;
    let pem = Zeroizing::new(key.serialize_pem());
    Request::keep(state, role, &name, &pem)?;
    asked(&key, role, name, false)
}

/// What an installation must find.
#[derive(Debug, Default)]
pub struct Expect {
    /// SHA-256 fingerprint of the root, as read off the CA's screen; colons and case don't matter.
    pub root: Option<String>,
    /// Accept another root than the installed one: the site has a new CA.
    pub replace_root: bool,
}

/// What was installed.
#[derive(Debug)]
pub struct InstalledNow {
    pub identity: Identity,
    pub leaf: Summary,
    pub root: Summary,
    /// The state directory had a root before this, and it is the same.
    pub root_known: bool,
}

/// Checks a bundle against the waiting request and everything it claims, then installs it as one
/// step. CRLs that are installed already and newer are kept; CAs that it leaves out are dropped.
pub fn install(
    state: &Path,
    mut bundle: Bundle,
    expect: &Expect,
    now: i64,
) -> Result<InstalledNow, EnrollError> {
    let proof = bundle.check(now)?;
    let summary = |der: &[u8]| Summary::of(der).map_err(|_| EnrollError::Unreadable);
    let leaf = summary(&bundle.leaf)?;
    let root = summary(&proof.root)?;
    let installed = installed(state)?;
    let key = matching_key(state, &bundle.leaf, &proof.identity, installed.as_ref())?;
    check_fingerprint(&root, expect)?;
    let root_known = match installed {
        Some(installed) => follow(&mut bundle, installed, &proof.root, expect)?,
        None => false,
    };
    let key = KeyPair::try_from(key.as_slice()).map_err(EnrollError::Key)?;
    let key_pem = Zeroizing::new(key.serialize_pem());
    store::install(state, &key_pem, &bundle)?;
    Ok(InstalledNow {
        identity: proof.identity,
        leaf,
        root,
        root_known,
    })
}

/// What became of a file with CRLs.
#[derive(Debug)]
pub struct TrustChange {
    pub merged: Merged,
    /// The CRLs of the file, as they are in force.
    pub crls: Vec<Crl>,
    /// This agent's own certificate, or its issuing CA, is revoked.
    pub revokes_us: bool,
}

/// Merges a file of CRLs, and of CAs where there are some, into the installed trust list. Each
/// must be vouched for by a root that is installed; an older CRL is never installed.
pub fn merge_trust(state: &Path, pem: &str) -> Result<TrustChange, EnrollError> {
    let installed = Installed::load(state)?;
    let offered = TrustList::parse(pem)?;
    let mut list = installed.trust.clone();
    let merged = list.merge(&offered, &installed.identity.site)?;
    if let Some(subject) = merged.foreign.first() {
        return Err(EnrollError::Foreign {
            subject: subject.clone(),
        });
    }
    if let Some(older) = merged.older.first().filter(|_| merged.news.is_empty()) {
        return Err(EnrollError::OlderCrl {
            number: older.number,
            installed: older.installed,
        });
    }
    if !merged.news.is_empty() {
        store::install_trust(state, &list)?;
    }
    let in_force = offered.crls.iter().filter(|der| list.crls.contains(der));
    let crls = in_force.filter_map(|der| Crl::parse(der).ok()).collect();
    Ok(TrustChange {
        merged,
        crls,
        revokes_us: list.revokes(installed.leaf()),
    })
}

/// Reads a bundle or CRL file of at most [`Bundle::MAX_PEM`] octets.
pub fn read_file(path: &Path) -> Result<String, EnrollError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?
            .take(Bundle::MAX_PEM as u64)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| EnrollError::io(path, error))
}

/// Reads a file with a token, which nobody else may read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, EnrollError> {
    let data = std::fs::metadata(path).map_err(|error| EnrollError::io(path, error))?;
    private::check(path, &data)?;
    read_file(path).map(Zeroizing::new)
}

fn asked_identity(
    state: &Path,
    role: Option<Role>,
    name: Option<Name>,
) -> Result<(Role, Name), EnrollError> {
    if let (Some(role), Some(name)) = (role, name.clone()) {
        return Ok((role, name));
    }
    match installed(state)? {
        Some(Installed { identity, .. }) => {
            Ok((role.unwrap_or(identity.role), name.unwrap_or(identity.name)))
        }
        None => Err(EnrollError::Unnamed),
    }
}

fn asked(key: &KeyPair, role: Role, name: Name, repeated: bool) -> Result<Asked, EnrollError> {
    Ok(Asked {
        pem: csr::request(key, role, &name).map_err(EnrollError::Key)?,
        role,
        name,
        repeated,
    })
}

/// `None` for an agent that was never enrolled; a broken installation is an error.
fn installed(state: &Path) -> Result<Option<Installed>, EnrollError> {
    match Installed::load(state) {
        Ok(installed) => Ok(Some(installed)),
        Err(StoreError::NotEnrolled { .. } | StoreError::RequestWaiting { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The key that the bundle is for: of the waiting request, or the installed one (a bundle that is
/// installed twice, or a certificate renewed for the same key).
fn matching_key(
    state: &Path,
    leaf: &[u8],
    identity: &Identity,
    installed: Option<&Installed>,
) -> Result<Zeroizing<Vec<u8>>, EnrollError> {
    let waiting = Request::load(state)?;
    if let Some(request) = &waiting
        && store::key_fits(&request.key_der, leaf)
    {
        if request.role != identity.role || request.name != identity.name {
            return Err(EnrollError::OtherIdentity {
                got: identity.clone(),
                role: request.role,
                name: request.name.clone(),
            });
        }
        return Ok(request.key_der.clone());
    }
    if let Some(installed) = installed
        && store::key_fits(&installed.key_der, leaf)
    {
        if installed.identity != *identity {
            return Err(EnrollError::OtherIdentity {
                got: identity.clone(),
                role: installed.identity.role,
                name: installed.identity.name.clone(),
            });
        }
        return Ok(installed.key_der.clone());
    }
    Err(match waiting {
        Some(_) => EnrollError::OtherKey {
            identity: identity.clone(),
        },
        None => EnrollError::NoRequest {
            state: state.to_owned(),
        },
    })
}

fn check_fingerprint(root: &Summary, expect: &Expect) -> Result<(), EnrollError> {
    match &expect.root {
        Some(expected) if plain(expected) != plain(&root.fingerprint) => {
            Err(EnrollError::Fingerprint {
                got: root.fingerprint.clone(),
                expected: expected.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Carries the installed list over into the bundle's; whether its root was known, or is vouched
/// for by one that was. Another root is accepted only where it is expected.
fn follow(
    bundle: &mut Bundle,
    installed: Installed,
    root: &[u8],
    expect: &Expect,
) -> Result<bool, EnrollError> {
    let mut list = installed.trust;
    let followed = list
        .replace(&bundle.trust, &installed.identity.site)
        .map(|_| list.roots.iter().any(|known| known == root));
    match followed {
        Ok(true) => {
            bundle.trust = list;
            bundle.verify()?;
            Ok(true)
        }
        _ if expect.replace_root => Ok(false),
        _ => Err(EnrollError::OtherRoot {
            got: fieldlock_pki::certificate::fingerprint(root),
        }),
    }
}

fn plain(fingerprint: &str) -> String {
    fingerprint
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect()
}

/// Why an enrolment went no further. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Readable(#[from] NotPrivate),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "a token does not belong on a command line, where every process can read it: use `--token-file`, the prompt or standard input. This one may have been seen: cancel it with `fieldlock ca tokens --cancel` at the CA"
    )]
    TokenArgument,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the CA's trust list lacks the root that the token names")]
    NoTrustList,
    #[error(
        "{identity} is installed here already: give another `--state`, or remove that one first"
    )]
    Installed { identity: Identity },
    #[error("the bundle is refused: {0}")]
    Bundle(#[from] BundleError),
    #[error("the trust list is refused: {0}")]
    Trust(#[from] TrustListError),
    #[error("the key can't be used: {0}")]
    Key(rcgen::Error),
    #[error("give `--role` and `--name`: nothing is installed here that would say them")]
    Unnamed,
    #[error(
        "a request as {role}/{name} is waiting for its certificate: install that first, or replace it with `--replace`"
    )]
    OtherRequest { role: Role, name: Name },
    #[error(
        "the bundle is for {got}, but the request was made as {role}/{name}: have the CA sign it with that role and name"
    )]
    OtherIdentity {
        got: Identity,
        role: Role,
        name: Name,
    },
    #[error(
        "the bundle for {identity} does not belong to the waiting request's key: it answers an older request; have the CA sign the current one"
    )]
    OtherKey { identity: Identity },
    #[error(
        "no request is waiting in {state}: run `fieldlock enroll request --role ROLE --name NAME --state {state}` first",
        state = state.display()
    )]
    NoRequest { state: PathBuf },
    #[error(
        "the bundle's root has the fingerprint {got}, expected {expected}: it is not from your CA"
    )]
    Fingerprint { got: String, expected: String },
    #[error(
        "the bundle is from another CA (root {got}) than the installed certificate: if the site has a new CA, repeat with `--replace-root`"
    )]
    OtherRoot { got: String },
    #[error(
        "the CRL has number {number}, the installed one has {installed}: an older CRL is never installed"
    )]
    OlderCrl { number: u64, installed: u64 },
    #[error(
        "{subject:?} is not among the CAs installed here, and none of them vouches for it: is the file from your CA?"
    )]
    Foreign { subject: String },
    #[error("a certificate can't be read")]
    Unreadable,
}

impl EnrollError {
    pub fn io(path: &Path, error: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            error,
        }
    }

    /// True for what was wrong in the command line rather than in the doing.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            EnrollError::Unnamed | EnrollError::Token(_) | EnrollError::TokenArgument
        )
    }
}
