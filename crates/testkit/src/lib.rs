//! Fieldlock: testkit.
