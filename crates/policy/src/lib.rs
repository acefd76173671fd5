//! Fieldlock: policy.
