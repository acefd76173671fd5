//! Enrolment by a one-time token.

use std::path::Path;
use std::sync::Arc;

use fieldlock_pki::bundle::Bundle;
use fieldlock_pki::store::{self, Installed, StoreError};
use fieldlock_pki::{Identity, Token, certificate, hex};

use crate::client::Client;
use crate::clock::AgentClock;
use crate::files::{self, EnrollError, Expect, InstalledNow};

/// What became of it.
#[derive(Debug)]
pub enum Joined {
    Now(Box<InstalledNow>),
    /// This agent has used this very token already.
    Before(Identity),
}

/// Gets a certificate for a key that is made here and installs it, with all that belongs to it.
/// The key is kept until then: after a lost answer, joining again with the same token leads to
/// the same certificate. A request of another name that waits is thrown away only by `replace`.
pub async fn join(
    state: &Path,
    token: &Token,
    replace: bool,
    clock: &Arc<AgentClock>,
) -> Result<Joined, EnrollError> {
    let token_hash = hex::lower(&token.secret.hash());
    match Installed::load(state) {
        Ok(Installed { identity, .. })
            if (identity.role, &identity.name) != (token.role, &token.name) =>
        {
            return Err(EnrollError::Installed { identity });
        }
        // Asking again with a new key would look like theft of the token.
        Ok(Installed { identity, .. })
            if store::kept_token(state).as_ref() == Some(&token_hash) =>
        {
            return Ok(Joined::Before(identity));
        }
        Err(error)
            if !matches!(
                error,
                StoreError::NotEnrolled { .. } | StoreError::RequestWaiting { .. }
            ) =>
        {
            return Err(error.into());
        }
        _ => {}
    }
    let (role, name) = (token.role, token.name.clone());
    let asked = match files::request(state, Some(role), Some(name.clone()), false) {
        Err(EnrollError::OtherRequest { .. }) if replace => {
            files::request(state, Some(role), Some(name), true)?
        }
        asked => asked?,
    };
    let client = Client::pinned(token.address.clone(), token.root, clock)?;
    let leaf = client
        .enroll(token.role, &token.name, &token.secret, &asked.pem)
        .await?;
    let nothing = || EnrollError::NoTrustList;
    let fetched = client.trust(None, std::time::Duration::ZERO).await?;
    let trust = fetched.ok_or_else(nothing)?.list;
    let root = trust
        .roots
        .iter()
        .find(|der| certificate::hash(der) == token.root)
        .ok_or_else(nothing)?;
    let expect = Expect {
        root: Some(certificate::fingerprint(root)),
        replace_root: false,
    };
    let bundle = Bundle { leaf, trust };
    let now = clock.now_for(&bundle.leaf, &bundle.trust);
    let installed = files::install(state, bundle, &expect, now)?;
    store::keep_token(state, &token_hash)?;
    Ok(Joined::Now(Box::new(installed)))
}
