//! What an asker sends to the CA, and what a carrier brings of whom to trust.

use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::{ModbusRole, Token, TrustList, est};

/// Bodies of EST in both directions, tokens, and Modbus roles of certificates: what is accepted is bounded and says the same
/// when it is said again.
pub fn enrolment(data: &[u8]) {
    if let Ok(der) = est::decode(data) {
        assert_eq!(est::decode(est::encode(&der).as_bytes()).unwrap(), der);
        if let Ok(key) = PublicKey::from_request_der(&der) {
            assert_eq!(key.hash().len(), 64);
        }
        if let Ok(certificates) = est::parse_certs_only(&der) {
            let all: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
            let again = est::certs_only(&all).map(|message| est::parse_certs_only(&message));
            assert!(matches!(again, Ok(Ok(same)) if same.len() <= all.len()));
        }
    }
    if let Ok(role) = ModbusRole::from_der(data) {
        assert_eq!(role.to_der(), data);
        assert!(
            role.as_str()
                .chars()
                .all(|c| c == ' ' || c.is_ascii_graphic())
        );
    }
    let text = std::str::from_utf8(data).unwrap_or_default();
    if let Ok(token) = text.parse::<Token>() {
        let shown = token.to_text();
        assert!(shown.len() <= Token::MAX_LEN);
        assert_eq!(shown.parse::<Token>().unwrap(), token);
        assert!(shown.chars().all(|character| character.is_ascii_graphic()));
    }
}

/// A trust list of a stranger: it may be read, and nothing of it is taken.
pub fn trust_list(data: &[u8]) {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let Ok(list) = TrustList::parse(text) else {
        return;
    };
    assert_eq!(
        TrustList::parse(&list.to_pem()).unwrap().hash(),
        list.hash()
    );
    let site = "plant2.example".parse().unwrap();
    let mut own = TrustList::default();
    assert!(own.merge(&list, &site).is_err());
    assert!(own.is_empty());
}
