//! Certificates and lists of revoked ones, as a stranger shows them: they are read before
//! anything is proven of them.

use std::sync::OnceLock;

use fieldlock_pki::issue::{Authority, RevocationList, Validity};
use fieldlock_pki::{Crl, Identity, ModbusRole, Serial, Summary, TrustList, bundle, signing};
use rcgen::KeyPair;

/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;
const DAY: i64 = 86_400;

/// A certificate (DER): what is read of it agrees with itself, and no CA of an agent's list has
/// signed it.
pub fn certificate(data: &[u8]) {
    let list = own_list();
    assert!(list.judge(data, NOW).is_err());
    assert!(list.issuer_of(data).is_none() && list.root_of(data).is_none());
    assert!(!list.revokes(data));
    assert!(!signing::is_signed_by(data, b"checkpoint", data));
    let identity = Identity::from_certificate(data);
    let role = ModbusRole::of_certificate(data);
    let Ok(summary) = Summary::of(data) else {
        assert!(identity.is_err() && role.is_err());
        return;
    };
    assert_eq!(summary.identity.as_ref(), identity.as_ref().ok());
    assert_eq!(
        summary.modbus_role.as_ref(),
        role.as_ref().ok().and_then(Option::as_ref)
    );
    assert!(!(summary.is_ca && identity.is_ok()));
    if let Ok(identity) = identity {
        assert!(role.is_ok());
        assert_eq!(Identity::from_uri(&identity.uri()).unwrap(), identity);
        assert!(identity.dns().len() <= 253);
        assert!(identity.uri().bytes().all(|octet| octet.is_ascii_graphic()));
    }
    // As part of a list of somebody else's it vouches for nothing.
    let Ok(offered) = TrustList::parse(&bundle::certificate_pem(data)) else {
        return;
    };
    if let Ok(vouched) = list.with_vouched(&offered) {
        assert_eq!(
            (&vouched.roots, &vouched.issuing),
            (&list.roots, &list.issuing)
        );
    }
}

/// A list of revoked certificates (DER): no CA has signed it, and it replaces none.
pub fn crl(data: &[u8]) {
    let list = own_list();
    for authority in list.roots.iter().chain(&list.issuing) {
        assert!(Crl::signed_by(data, authority).is_err());
    }
    if let Ok(crl) = Crl::parse(data) {
        assert!(crl.revoked().all(|serial| crl.is_revoked(serial)));
        assert!(crl.revoked().len() <= data.len());
    }
    let offered = TrustList {
        crls: vec![data.to_vec()],
        ..TrustList::default()
    };
    let mut own = list.clone();
    let taken = own.merge(&offered, &site());
    assert!(taken.is_err() || own == *list);
}

fn site() -> fieldlock_pki::Site {
    "plant1.example".parse().unwrap()
}

/// Of a CA made here and now: nobody outside has its keys.
fn own_list() -> &'static TrustList {
    static LIST: OnceLock<TrustList> = OnceLock::new();
    LIST.get_or_init(|| {
        let validity = Validity {
            not_before: NOW - DAY,
            not_after: NOW + 1000 * DAY,
        };
        let key = || Box::new(KeyPair::generate().unwrap());
        let serial = |octet| Serial::from_octets(&[octet; 16]);
        let root = Authority::root(&site(), "1", key(), &serial(1), validity).unwrap();
        let issuing = root
            .issuing(&site(), "1", key(), &serial(2), validity)
            .unwrap();
        let crl = |authority: &Authority| {
            let list = RevocationList {
                number: 1,
                this_update: NOW - DAY,
                next_update: NOW + DAY,
                revoked: Vec::new(),
            };
            bundle::crl_pem(&authority.crl(&list).unwrap())
        };
        let pem = [&root, &issuing]
            .map(|authority| bundle::certificate_pem(authority.certificate()) + &crl(authority));
        TrustList::parse(&pem.concat()).unwrap()
    })
}
