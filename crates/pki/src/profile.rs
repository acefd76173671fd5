//! What a certificate of each role may be: compiled in from `pki/profiles`.

use serde::Deserialize;

use crate::identity::Role;

/// The rules for the certificates of one role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub role: Role,
    pub usage: Usage,
    /// Life of a certificate, 1 to 3650 days, unless the CA's settings say otherwise.
    pub days: u16,
    /// Accepted public keys.
    pub keys: Vec<KeyKind>,
}

/// The extended key usage of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    ServerAuth,
    ClientAuth,
}

/// Public key algorithms of leaves. Agents have no RSA: its handshakes are slow on the small machines
/// that edges are. For others a site can allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl Profile {
    pub fn of(role: Role) -> Result<Self, ProfileError> {
        let source = match role {
            Role::Edge => include_str!("../../../pki/profiles/edge.toml"),
            Role::Headend => include_str!("../../../pki/profiles/headend.toml"),
            Role::Operator => include_str!("../../../pki/profiles/operator.toml"),
            Role::Client => include_str!("../../../pki/profiles/client.toml"),
            Role::Device => include_str!("../../../pki/profiles/device.toml"),
            Role::Ca => include_str!("../../../pki/profiles/ca.toml"),
        };
        toml::from_str(source).map_err(|error| ProfileError {
            role,
            message: error.message().to_owned(),
        })
    }
}

/// A profile that was compiled in is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the built-in profile of the role {role}: {message}")]
pub struct ProfileError {
    pub role: Role,
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_profile_that_agrees_with_it() {
        for role in Role::ALL {
            let profile = Profile::of(role).unwrap();
            assert_eq!(profile.role, role);
            assert_eq!(profile.usage == Usage::ServerAuth, role.serves(), "{role}");
            assert!((1..=3650).contains(&profile.days));
            assert_eq!(profile.keys.first(), Some(&KeyKind::P256));
        }
    }
}
