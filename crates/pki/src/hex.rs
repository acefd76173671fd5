//! Octets as text, in the two spellings that `openssl` users meet.

use std::fmt::Write;

/// `abcd..`
pub fn lower(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() * 2);
    for octet in octets {
        // Writing to a String can't fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}

/// `AB:CD:..`, as `openssl x509 -fingerprint` prints it.
pub(crate) fn upper_with_colons(octets: &[u8]) -> String {
    let pairs: Vec<String> = octets.iter().map(|octet| format!("{octet:02X}")).collect();
    pairs.join(":")
}
