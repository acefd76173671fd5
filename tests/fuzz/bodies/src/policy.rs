//! Policy files, which people paste, and bundles of them, which anybody may carry.

use fieldlock_modbus::{Request, Table};
use fieldlock_policy::bundle::{self, MAX_BUNDLE, MAX_VERSION};
use fieldlock_policy::{
    Asked, Bundle, Client, Decision, Now, Origin, Policy, PolicyErrors, RuleId, Side, View,
    ceiling, explain, summary, warnings,
};
use fieldlock_signed::PublicKey;

const MAX_REPORTED: usize = 50;
const REQUESTS: [&[u8]; 9] = [
    &[3, 0, 0, 0, 10],
    &[1, 0, 8, 0, 8],
    &[5, 0, 1, 0xFF, 0],
    &[6, 0, 40, 4, 176],
    &[16, 0, 40, 0, 2, 4, 0, 1, 4, 177],
    &[22, 0, 40, 0, 1, 0, 2],
    &[23, 0, 0, 0, 2, 0, 41, 0, 1, 2, 0, 9],
    &[43, 14, 1, 0],
    &[90, 0, 1],
];

/// The text of a policy file: errors have a place inside of the file, and what is accepted
/// decides every request as it explains it.
pub fn policy_parse(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    match Policy::parse(&source, "policy.toml") {
        Ok(policy) => check_policy(&policy),
        Err(errors) => check_errors(&source, &errors),
    }
}

/// A bundle of a stranger: it may be read, it has one spelling, and the key of the one whom an edge
/// pins has not signed it.
pub fn policy_bundle(data: &[u8]) {
    let Ok(bundle) = Bundle::parse(data) else {
        return;
    };
    assert_eq!(bundle.to_string().as_bytes(), data);
    assert!((1..=MAX_VERSION).contains(&bundle.header.version));
    assert!(data.len() <= MAX_BUNDLE);
    let pinned: PublicKey = PINNED.parse().unwrap();
    assert!(bundle.verify_by(&[pinned]).is_err());
    if let Err(errors) = bundle::compile(&bundle, "fleet.bundle") {
        let lines = data.split(|octet| *octet == b'\n').count();
        assert!(errors.errors.iter().all(|error| error.line <= lines));
    }
}

/// Some point of P-256.
const PINNED: &str =
    "p256:BGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=";

fn check_errors(source: &str, errors: &PolicyErrors) {
    assert!((1..=MAX_REPORTED).contains(&errors.errors.len()));
    assert!(errors.omitted == 0 || errors.errors.len() == MAX_REPORTED);
    let lines: Vec<&str> = source.split('\n').collect();
    let mut last = (1, 1);
    for error in &errors.errors {
        let place = (error.line, error.column);
        assert!(last <= place, "{place:?} after {last:?}");
        last = place;
        let line = lines[error.line - 1];
        assert!((1..=line.chars().count() + 1).contains(&error.column));
        assert!(!error.problem.to_string().is_empty());
    }
    assert!(errors.to_string().starts_with("policy.toml:"));
}

fn check_policy(policy: &Policy) {
    let _ = (summary(policy), warnings(policy, 0));
    for via in [None, Some("hd-1")] {
        let _ = ceiling(policy, via);
        for (side, address) in [
            (Side::Headend, [192, 0, 2, 1]),
            (Side::Edge, [192, 0, 2, 1]),
            (Side::Edge, [10, 1, 1, 20]),
        ] {
            let client = Client {
                address: Some(address.into()),
                identity: Some("spiffe://plant1.example/operator/jane"),
                role: Some("Operator"),
            };
            check_origin(policy, &Origin { side, via, client });
        }
    }
}

fn check_origin(policy: &Policy, origin: &Origin<'_>) {
    // 2026-03-29T00:59:59Z: Europe is about to lose an hour.
    for now in [Now::Unknown, Now::At(0), Now::At(1_774_745_999)] {
        let phase = policy.phase(now);
        assert!(phase.holds(now));
        for device in ["press-07", "meter-02"] {
            check_view(
                policy,
                origin,
                device,
                now,
                &policy.view(origin, device, &phase),
            );
        }
    }
}

fn check_view(policy: &Policy, origin: &Origin<'_>, device: &str, now: Now, view: &View) {
    for unit in [0, 1, 255] {
        for pdu in REQUESTS {
            let request = &Request::parse(pdu).unwrap();
            let decision = view.decide(unit, request);
            let asked = Asked {
                device,
                unit,
                request,
                now,
            };
            let explained = explain(policy, origin, asked);
            assert_eq!(decision.allowed(), explained.allowed, "{pdu:?} to {unit}");
            if let Decision::Allow { rule, .. } = decision {
                check_step(policy, device, view, (unit, rule, request));
            }
        }
    }
}

/// What a step judges is kept.
fn check_step(
    policy: &Policy,
    device: &str,
    view: &View,
    (unit, rule, request): (u8, RuleId, &Request<'_>),
) {
    let write = request.write();
    let registers = write.filter(|write| write.range.table == Table::HoldingRegister);
    if let (Some(write), true) = (registers, view.step(rule).is_some()) {
        let (first, last) = (write.range.start, write.range.last());
        let stepped = policy.stepped(device);
        let kept = stepped.within(unit, first, last);
        assert!(kept.flatten().eq(first..=last), "{request:?} to {unit}");
    }
}
