//! Fieldlock: session.
