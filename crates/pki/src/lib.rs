//! Fieldlock: pki.
