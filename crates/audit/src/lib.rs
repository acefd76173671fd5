//! Fieldlock: audit.
