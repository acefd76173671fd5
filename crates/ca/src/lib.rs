//! Fieldlock: ca.
