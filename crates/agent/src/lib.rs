//! Fieldlock: agent.
