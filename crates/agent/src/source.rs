//! Where an agent's policy comes from: a file, or signed bundles, which a file can narrow.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use fieldlock_pki::{Name, hex, store};
use fieldlock_policy::bundle::{self, MAX_BUNDLE};
use fieldlock_policy::{Bundle, Policy};
use fieldlock_signed::PublicKey;

use crate::sandbox::hint;

/// As the configuration names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Without signers, the policy.
    pub file: Option<PathBuf>,
    /// Whose bundles count.
    pub signers: Vec<PublicKey>,
}

/// What a source says.
#[derive(Debug)]
pub struct Rules {
    pub policy: Policy,
    pub hash: [u8; 32],
    pub bundle: Bundled,
}

/// What the policy in force has to do with bundles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundled {
    /// None is asked for.
    Plain,
    /// None can be used, for this reason: nothing crosses.
    Missing(String),
    InForce {
        bundle: Floor,
        signer: String,
    },
}

impl Bundled {
    /// Of the bundle in force; 0 where there is none, nothing where none is asked for.
    pub fn version(&self) -> Option<u64> {
        match self {
            Self::Plain => None,
            Self::Missing(_) => Some(0),
            Self::InForce { bundle, .. } => Some(bundle.version),
        }
    }

    /// Why nothing crosses, where one is asked for and there is none.
    pub fn missing(&self) -> Option<&str> {
        match self {
            Self::Missing(reason) => Some(reason),
            Self::Plain | Self::InForce { .. } => None,
        }
    }
}

/// As the subject of a sentence.
impl fmt::Display for Bundled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => Ok(()),
            Self::Missing(reason) => write!(f, "no policy bundle ({reason})"),
            Self::InForce { bundle, signer } => {
                write!(f, "policy bundle {} signed by {signer}", bundle.version)
            }
        }
    }
}

impl Source {
    pub fn file(file: PathBuf) -> Self {
        Self {
            file: Some(file),
            signers: Vec::new(),
        }
    }

    /// The policy in force for the edge `name` (or for any agent, by a file alone). The hash is
    /// SHA-256 of the file; with signers, of the bundle, or of the hashes of bundle and file.
    pub fn load(&self, state: &Path, name: &Name) -> Result<Rules, String> {
        let local = self.file.as_deref().map(read_policy).transpose()?;
        if self.signers.is_empty() {
            // The configuration has been checked to name one of the two.
            let (policy, hash) = local.unwrap_or_else(nothing);
            let bundle = Bundled::Plain;
            return Ok(Rules {
                policy,
                hash,
                bundle,
            });
        }
        let installed = self.installed(state, name).and_then(|bundle| {
            let policy = bundle::compile(&bundle, store::POLICY_BUNDLE);
            Ok((policy.map_err(|errors| errors.to_string())?, bundle))
        });
        Ok(match installed {
            Ok((policy, bundle)) => join(policy, &bundle, local),
            Err(reason) => {
                let (policy, hash) = nothing();
                let bundle = Bundled::Missing(reason);
                Rules {
                    policy,
                    hash,
                    bundle,
                }
            }
        })
    }

    /// Whether what narrows bundles can be used.
    pub fn check_file(&self) -> Result<(), String> {
        self.file.as_deref().map(read_policy).transpose()?;
        Ok(())
    }

    /// The rules by this bundle, which has been judged.
    pub fn rules_of(&self, bundle: &Bundle, policy: Policy) -> Result<Rules, String> {
        let local = self.file.as_deref().map(read_policy).transpose()?;
        Ok(join(policy, bundle, local))
    }

    /// Whether a bundle is for the edge `name` and of a signer that is pinned.
    pub fn believe(&self, bundle: &Bundle, name: &Name) -> Result<(), String> {
        let believed = bundle.verify_by(&self.signers);
        believed.map_err(|error| error.to_string())?;
        let edges = &bundle.header.edges;
        match edges.includes(name.as_str()) {
            true => Ok(()),
            false => Err(format!("it is for other edges than `{name}`")),
        }
    }

    /// The installed bundle, judged again: the configuration may pin other keys than when it came.
    fn installed(&self, state: &Path, name: &Name) -> Result<Bundle, String> {
        let file = state.join(store::POLICY_BUNDLE);
        if !file.exists() {
            return Err("none has come yet".to_owned());
        }
        let octets = read_bundle(&file)?;
        let named = |error: String| format!("{}: {error}", file.display());
        let bundle = Bundle::parse(&octets).map_err(|error| named(error.to_string()))?;
        self.believe(&bundle, name).map_err(named)?;
        let floor = Floor::read(state);
        match floor.is_none_or(|floor| floor.admits(&bundle)) {
            true => Ok(bundle),
            false => Err(named(format!(
                "version {} was not the last in force",
                bundle.header.version
            ))),
        }
    }
}

/// What is the policy, or, with a space before it, what narrows it.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.signers.is_empty()) {
            (Some(file), true) => write!(f, "policy {}", file.display()),
            (Some(file), false) => write!(f, " narrowed by {}", file.display()),
            (None, _) => Ok(()),
        }
    }
}

/// The highest version that was ever in force, and what it was: no way back, and no other bundle of
/// the same version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    pub version: u64,
    /// In hexadecimal.
    hash: String,
}

impl Floor {
    pub fn of(bundle: &Bundle) -> Self {
        Self {
            version: bundle.header.version,
            hash: hex::lower(&bundle_hash(bundle)),
        }
    }

    /// What `state` keeps; none if nothing legible is there.
    pub fn read(state: &Path) -> Option<Self> {
        let text = fs::read_to_string(state.join(store::POLICY_FLOOR)).ok()?;
        let (version, hash) = text.trim_end().split_once(' ')?;
        Some(Self {
            version: version.parse().ok()?,
            hash: hash.to_owned(),
        })
    }

    pub fn text(&self) -> String {
        format!("{} {}\n", self.version, self.hash)
    }

    /// The higher of two, each if there is one.
    pub fn higher(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        [one, other]
            .into_iter()
            .flatten()
            .max_by_key(|floor| floor.version)
    }

    pub fn admits(&self, bundle: &Bundle) -> bool {
        bundle.header.version > self.version || Self::of(bundle) == *self
    }
}

/// SHA-256 of the bundle's file.
fn bundle_hash(bundle: &Bundle) -> [u8; 32] {
    sha256(bundle.to_string().as_bytes())
}

/// A file that may be a bundle; no more of it than one has.
pub fn read_bundle(file: &Path) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let read = File::open(file).and_then(|open| {
        let limit = MAX_BUNDLE as u64 + 1;
        open.take(limit).read_to_end(&mut octets)
    });
    read.map_err(|error| format!("{}: {error}{}", file.display(), hint(&error)))?;
    Ok(octets)
}

fn join(policy: Policy, bundle: &Bundle, local: Option<(Policy, [u8; 32])>) -> Rules {
    let own = bundle_hash(bundle);
    let bundle = Bundled::InForce {
        bundle: Floor::of(bundle),
        signer: bundle.signers(),
    };
    let (policy, hash) = match local {
        None => (policy, own),
        Some((local, hash)) => {
            let mut both = Context::new(&SHA256);
            both.update(&own);
            both.update(&hash);
            (policy.narrowed_by(local), octets(both.finish().as_ref()))
        }
    };
    Rules {
        policy,
        hash,
        bundle,
    }
}

fn nothing() -> (Policy, [u8; 32]) {
    (Policy::deny_all(), sha256(b""))
}

fn read_policy(file: &Path) -> Result<(Policy, [u8; 32]), String> {
    let name = file.display().to_string();
    let text =
        fs::read_to_string(file).map_err(|error| format!("{name}: {error}{}", hint(&error)))?;
    let policy = Policy::parse(&text, &name).map_err(|errors| errors.to_string())?;
    Ok((policy, sha256(text.as_bytes())))
}

fn sha256(text: &[u8]) -> [u8; 32] {
    octets(digest(&SHA256, text).as_ref())
}

/// Of a SHA-256, which has 32.
fn octets(hash: &[u8]) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.copy_from_slice(hash);
    octets
}
