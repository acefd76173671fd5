use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData as _};

use super::*;
use crate::{Distrust, Edges, PublicKey, Signer, time_or_none};

/// A kind with several signers and no body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    version: u64,
    not_before: Option<i64>,
    not_after: Option<i64>,
    edges: Edges,
}

impl Kind for Order {
    const NAME: &'static str = "order";
    const CALLED: &'static str = "order";
    const MAX: usize = 1024;
    const MAX_SIGNERS: usize = 3;

    fn read(lines: &mut Lines<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            version: lines.version()?,
            not_before: lines.time("not-before")?,
            not_after: lines.time("not-after")?,
            edges: lines.edges()?,
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: {}", self.version)?;
        writeln!(f, "not-before: {}", time_or_none(self.not_before))?;
        writeln!(f, "not-after: {}", time_or_none(self.not_after))?;
        writeln!(f, "edges: {}", self.edges)
    }
}

/// A kind with one signer and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter;

impl Kind for Letter {
    const NAME: &'static str = "letter";
    const CALLED: &'static str = "letter";
    const MAX: usize = 1024;
    const MAX_SIGNERS: usize = 1;
    const BODY: Option<&'static str> = Some("text");

    fn read(_: &mut Lines<'_>) -> Result<Self, Malformed> {
        Ok(Self)
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

fn signature(signer: &str) -> Signature {
    Signature {
        signer: signer.to_owned(),
        octets: vec![1, 2, 3, 4],
    }
}

fn order() -> Signed<Order> {
    let header = Order {
        version: 7,
        not_before: None,
        not_after: Some(1_795_564_800),
        edges: Edges::only(vec!["press-08".into(), "press-07".into()]),
    };
    let mut order = Signed::new(header, String::new());
    order.sign(signature("p256:B"));
    order.sign(signature("p256:A"));
    order
}

fn letter() -> Signed<Letter> {
    let mut letter = Signed::new(Letter, "signer: p256:B\n\n".to_owned());
    letter.sign(signature("p256:A"));
    letter
}

fn public(key: &KeyPair) -> PublicKey {
    PublicKey::new(key.der_bytes()).unwrap()
}

fn sign_with<K: Kind>(text: &mut Signed<K>, key: &KeyPair) {
    let signer = public(key).to_string();
    let key = Signer::new(&key.serialize_der()).unwrap();
    let octets = key.sign(text.signed_text(&signer).as_bytes()).unwrap();
    text.sign(Signature { signer, octets });
}

#[test]
fn a_text_has_one_spelling() {
    let text = "fieldlock-order: 1\nversion: 7\nnot-before: none\nnot-after: 2026-11-25T00:00:00Z\n\
                edges: press-07, press-08\nsigner: p256:A\nsignature: AQIDBA==\n\
                signer: p256:B\nsignature: AQIDBA==\n";
    assert_eq!(order().to_string(), text);
    assert_eq!(Signed::parse(text.as_bytes()), Ok(order()));
    assert!(Signed::<Order>::is_meant(text) && !Signed::<Letter>::is_meant(text));

    let text = "fieldlock-letter: 1\nsigner: p256:A\nsignature: AQIDBA==\n\nsigner: p256:B\n\n";
    assert_eq!(letter().to_string(), text);
    assert_eq!(Signed::parse(text.as_bytes()), Ok(letter()));
    assert_eq!(letter().lines_before_body(), 4);
}

#[test]
fn each_signs_all_but_the_lines_of_the_others() {
    let signed = "fieldlock-order: 1\nversion: 7\nnot-before: none\nnot-after: 2026-11-25T00:00:00Z\n\
                  edges: press-07, press-08\nsigner: p256:B\n";
    assert_eq!(order().signed_text("p256:B"), signed);
    let signed = "fieldlock-letter: 1\nsigner: p256:A\n\nsigner: p256:B\n\n";
    assert_eq!(letter().signed_text("p256:A"), signed);
}

#[test]
fn the_line_that_is_wrong_is_named() {
    let b = "signer: p256:B\nsignature: AQIDBA==\n";
    for (line, old, new) in [
        (1, "order: 1", "order: 2"),
        (2, "version: 7", "version: 07"),
        (2, "version: 7", "version: +7"),
        (2, "version: 7", "version: 0"),
        (2, "version: 7", "version: 1000000000000000"),
        (2, "version: 7", "Version: 7"),
        (2, "version: 7\n", "version: 7\r\n"),
        (3, "none", "None"),
        (4, "T00:00:00Z", "T00:00:00+00:00"),
        (4, "T00:00:00Z", "T00:00:00.5Z"),
        (4, "2026-", "1926-"),
        (5, "press-07, press-08", "press-08, press-07"),
        (5, "press-07, press-08", "press-07, press-07"),
        (5, "press-07, press-08", "press-07,press-08"),
        (5, "press-07, press-08", "any, press-07"),
        (5, "press-07, press-08", ""),
        (6, "p256:A", ""),
        (6, "p256:A", "p256 A"),
        (7, "AQIDBA==", "AQIDBB=="),
        (7, "AQIDBA==", "AQIDBA"),
        (7, "AQIDBA==", ""),
        (7, "signature: AQIDBA==\n", ""),
        // Of the second signer, who comes after the first and is another.
        (8, "p256:A", "p256:C"),
        (8, "p256:B", "p256:A"),
        (10, b, &format!("{b}\n")),
        (10, b, &format!("{b}{b}")),
        (9, b, "signer: p256:B\n"),
        // A fourth of three.
        (
            12,
            b,
            &format!("{b}{}{}", b.replace(":B", ":C"), b.replace(":B", ":D")),
        ),
    ] {
        let text = order().to_string();
        assert!(text.contains(old), "{old}");
        let error = Signed::<Order>::parse(text.replacen(old, new, 1).as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{new}: {error}");
    }
    let error = Signed::<Order>::parse(&[b'a'; 1025]).unwrap_err();
    assert_eq!(error.to_string(), "line 1: a order has at most 1024 octets");
    let error = Signed::<Order>::parse(b"fieldlock-order: 1\nversion: \xff").unwrap_err();
    assert_eq!(error.to_string(), "line 2: not UTF-8");
    let second = letter()
        .to_string()
        .replacen("\n\n", "\nsigner: p256:B\n", 1);
    let error = Signed::<Letter>::parse(second.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 4: in a letter this line is empty: the text comes after it"
    );
}

#[test]
fn all_who_signed_have_to_be_pinned_and_to_have_signed_this() {
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let pins = keys.each_ref().map(public);
    let mut order = Signed::new(order().header, String::new());
    assert_eq!(order.verify_by(&pins), Err(Distrust::Unsigned));
    sign_with(&mut order, &keys[0]);
    sign_with(&mut order, &keys[1]);
    assert_eq!(order.verify_by(&pins), Ok(()));
    assert_eq!(order.verify_whole(), Ok(()));
    assert!(matches!(
        order.verify_by(&pins[..1]),
        Err(Distrust::Signer { .. })
    ));
    assert!(matches!(order.verify_by(&[]), Err(Distrust::Signer { .. })));

    // Under another's name, and over another text.
    let mut passed_off = order.clone();
    let octets = passed_off.signatures[0].octets.clone();
    let signer = pins[2].to_string();
    passed_off.sign(Signature { signer, octets });
    assert_eq!(passed_off.verify_by(&pins), Err(Distrust::Signature));
    let mut changed = order.clone();
    changed.header.version += 1;
    assert_eq!(changed.verify_by(&pins), Err(Distrust::Signature));
    assert_eq!(changed.verify_whole(), Err(Distrust::Signature));
    order.sign(signature("p256:B"));
    assert_eq!(order.verify_whole(), Err(Distrust::NotAKey));
}

#[test]
fn no_flipped_bit_and_no_cut_is_believed() {
    let keys = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut order = Signed::new(order().header, String::new());
    sign_with(&mut order, &keys[0]);
    sign_with(&mut order, &keys[1]);
    // The first signature is good without the second.
    let second = order.to_string().rfind("signer: ");
    assert_only_whole_is_believed(&order, &keys, second);
    let mut letter = Signed::new(Letter, letter().body);
    sign_with(&mut letter, &keys[0]);
    assert_only_whole_is_believed(&letter, &keys, None);
}

fn assert_only_whole_is_believed<K: Kind>(
    text: &Signed<K>,
    keys: &[KeyPair; 2],
    good_cut: Option<usize>,
) {
    let pins = keys.each_ref().map(public);
    let believed =
        |octets: &[u8]| Signed::<K>::parse(octets).is_ok_and(|text| text.verify_by(&pins).is_ok());
    let text = text.to_string().into_bytes();
    assert!(believed(&text));
    for place in 0..text.len() {
        let is_good = good_cut == Some(place);
        assert_eq!(believed(&text[..place]), is_good, "cut at {place}");
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[place] ^= 1 << bit;
            assert!(!believed(&flipped), "bit {bit} of octet {place}");
        }
    }
}

proptest! {
    #[test]
    fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
        let text = order().to_string();
        let cut = cut.min(text.len());
        let octets = [&text.as_bytes()[..cut], &octets].concat();
        let _ = Signed::<Order>::parse(&octets);
        let _ = Signed::<Letter>::parse(&octets);
    }

    #[test]
    fn what_is_read_is_written_the_same(place in 0usize..250, octet in any::<u8>()) {
        let mut text = order().to_string().into_bytes();
        let place = place.min(text.len() - 1);
        text[place] = octet;
        if let Ok(read) = Signed::<Order>::parse(&text) {
            prop_assert_eq!(read.to_string().into_bytes(), text);
        }
    }
}
