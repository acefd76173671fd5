//! Enrolment by a one-time token.

use std::path::Path;
use std::sync::Arc;

use fieldlock_pki::bundle::Bundle;
use fieldlock_pki::store::{Installed, StoreError};
use fieldlock_pki::{Token, certificate};

use crate::client::Client;
use crate::clock::AgentClock;
use crate::files::{self, EnrollError, Expect, InstalledNow};

/// Gets a certificate for a key that is made here and installs it, with all that belongs to it.
/// The key is kept until then: after a lost answer, joining again with the same token ends with
/// the same certificate.
pub async fn join(
    state: &Path,
    token: &Token,
    clock: &Arc<AgentClock>,
) -> Result<InstalledNow, EnrollError> {
    match Installed::load(state) {
        Ok(Installed { identity, .. })
            if (identity.role, &identity.name) != (token.role, &token.name) =>
        {
            return Err(EnrollError::Installed { identity });
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
    let asked = files::request(state, Some(token.role), Some(token.name.clone()), false)?;
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
    files::install(state, bundle, &expect, now)
}
