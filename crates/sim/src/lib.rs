//! Fieldlock: sim.
