//! `fieldlock`: one binary for the edge, the headend, the CA and their operators.
fn main() {}
