//! Fieldlock: conduit.
