//! Tests of whole agents.
