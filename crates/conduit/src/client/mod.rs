//! The headend's half: one client's Modbus/TCP connection.

mod route;
mod under_way;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use fieldlock_modbus::{Exception, FramingError, mbap};
use fieldlock_policy::{Client, Origin, Phase, Policy, Side, View};

use crate::admit::{Count, Permit, Refused, Why, admit};
use crate::meter::{Meter, Who};
pub use route::{Routes, Target};
pub use under_way::UnderWay;

/// Who a client is, as far as the headend knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    pub address: Option<IpAddr>,
    /// What its certificate proves (MBAPS), if it showed one.
    pub identity: Option<String>,
    pub role: Option<String>,
}

impl Origins {
    /// Who uses up a rate: an identity is the same from wherever it connects.
    fn who(&self) -> Who {
        let address = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let identity = self.identity.as_deref();
        identity.map_or(Who::Address(address), |identity| {
            Who::Identity(identity.into())
        })
    }

    pub fn as_client(&self) -> Client<'_> {
        Client {
            address: self.address,
            identity: self.identity.as_deref(),
            role: self.role.as_deref(),
        }
    }
}

/// One ADU of a client, judged.
#[derive(Debug)]
pub struct Step<'a> {
    /// The client's own transaction id; its answer carries it.
    pub transaction: u16,
    /// The unit that the client used.
    pub unit: u8,
    pub verdict: Verdict<'a>,
}

#[derive(Debug)]
pub enum Verdict<'a> {
    /// To be sent to this device; [`ClientSide::begin`] once it is.
    Forward { device: usize, permit: Permit<'a> },
    /// To be answered with the exception at once.
    Refuse {
        /// Where the unit leads, if anywhere.
        target: Option<Target>,
        refused: Refused<'a>,
    },
}

/// Cuts a client's bytes into requests and judges each.
///
/// Feed [`ClientSide::next`] what has arrived until it gives nothing; an error means that
/// the framing is lost and the connection must be closed. [`ClientSide::begin`] and
/// [`ClientSide::end`] count the requests under way.
#[derive(Debug)]
pub struct ClientSide {
    origin: Origins,
    who: Who,
    routes: Arc<Routes>,
    policy: Arc<Policy>,
    phase: Phase,
    /// What this client may do, by device; looked up once per policy and phase.
    views: Vec<(usize, Arc<View>)>,
    in_flight: usize,
    limit: usize,
}

impl ClientSide {
    /// `phase` is one of the policy; `limit` is how many requests the client may have without an
    /// answer, 1 and up.
    pub fn new(
        origin: Origins,
        routes: Arc<Routes>,
        policy: Arc<Policy>,
        phase: Phase,
        limit: usize,
    ) -> Self {
        Self {
            who: origin.who(),
            origin,
            routes,
            policy,
            phase,
            views: Vec::new(),
            in_flight: 0,
            limit,
        }
    }

    pub fn origin(&self) -> &Origins {
        &self.origin
    }

    /// A permitted request is not sent on after all.
    pub fn put_back(&self, permit: &Permit<'_>, meter: &mut Meter) {
        permit.put_back(meter, &self.who);
    }

    /// Judges by this policy, in this phase of it, from the next request on.
    pub fn set_policy(&mut self, policy: Arc<Policy>, phase: Phase) {
        self.policy = policy;
        self.phase = phase;
        self.views.clear();
    }

    /// Takes the first complete ADU of `input`, and says how many octets it took. `meter` is shared
    /// by all clients; `now` does not decrease.
    pub fn next<'a>(
        &mut self,
        input: &'a [u8],
        meter: &mut Meter,
        now: Instant,
    ) -> Result<Option<(Step<'a>, usize)>, FramingError> {
        let Some((adu, consumed)) = mbap::decode(input)? else {
            return Ok(None);
        };
        let step = Step {
            transaction: adu.transaction,
            unit: adu.unit,
            verdict: self.judge(adu.unit, adu.pdu, meter, now),
        };
        Ok(Some((step, consumed)))
    }

    fn judge<'a>(
        &mut self,
        unit: u8,
        pdu: &'a [u8],
        meter: &mut Meter,
        now: Instant,
    ) -> Verdict<'a> {
        let Some(target) = self.routes.target(unit) else {
            return Verdict::Refuse {
                target: None,
                refused: refused(
                    pdu,
                    Exception::GatewayPathUnavailable,
                    Why::NoRoute { unit },
                ),
            };
        };
        let device = target.device;
        let index = self.view(device);
        let count = Count {
            meter: &mut *meter,
            who: &self.who,
            registers: None,
            now,
        };
        match admit(&self.views[index].1, target.unit, pdu, count) {
            Err(refused) => Verdict::Refuse {
                target: Some(target),
                refused,
            },
            Ok(permit) if self.in_flight >= self.limit => {
                self.put_back(&permit, meter);
                let why = Why::InFlight { limit: self.limit };
                Verdict::Refuse {
                    target: Some(target),
                    refused: refused(pdu, Exception::ServerDeviceBusy, why),
                }
            }
            Ok(permit) => Verdict::Forward { device, permit },
        }
    }

    /// A forwarded request is under way.
    pub fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A request under way has been answered, or never will be.
    pub fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The place in the views of that of the device.
    fn view(&mut self, device: usize) -> usize {
        let known = self.views.iter().position(|(known, _)| *known == device);
        known.unwrap_or_else(|| {
            let origin = Origin {
                side: Side::Headend,
                via: None,
                client: self.origin.as_client(),
            };
            let name = self.routes.name(device);
            let view = self.policy.view(&origin, name, &self.phase);
            self.views.push((device, view));
            self.views.len() - 1
        })
    }
}

fn refused(pdu: &[u8], exception: Exception, why: Why) -> Refused<'_> {
    Refused {
        function: pdu.first().copied().unwrap_or(0),
        exception,
        why,
        rule: None,
        request: None,
    }
}

#[cfg(test)]
mod tests {
    use fieldlock_policy::Now;

    use super::*;

    const POLICY: &str = r#"
        syntax = 1
        [[client]]
        name = "hmi-1"
        address = ["192.0.2.1/32"]
        [[allow]]
        name = "reads"
        client = ["hmi-1"]
        device = ["press-07"]
        function = ["read"]
        address = ["holding 0-9"]
    "#;

    fn side(routes: Routes) -> ClientSide {
        let origin = Origins {
            address: Some([192, 0, 2, 1].into()),
            ..Origins::default()
        };
        let policy = Policy::parse(POLICY, "policy.toml").unwrap();
        let phase = policy.phase(Now::Unknown);
        ClientSide::new(origin, Arc::new(routes), Arc::new(policy), phase, 2)
    }

    fn one_device() -> Routes {
        Routes::all_units(0, &["press-07".into()].into())
    }

    fn read(unit: u8, start: u8, count: u8) -> Vec<u8> {
        vec![0, 9, 0, 0, 0, 6, unit, 3, 0, start, 0, count]
    }

    fn exception(step: &Step<'_>) -> u8 {
        match &step.verdict {
            Verdict::Refuse { refused, .. } => refused.exception.code(),
            Verdict::Forward { .. } => 0,
        }
    }

    #[test]
    fn what_is_allowed_goes_to_its_device() {
        let mut side = side(one_device());
        let input = read(1, 0, 10);
        let (step, consumed) = side
            .next(&input, &mut Meter::default(), Instant::now())
            .unwrap()
            .unwrap();
        assert_eq!((step.transaction, step.unit, consumed), (9, 1, 12));
        let Verdict::Forward { device: 0, permit } = step.verdict else {
            panic!("{step:?}");
        };
        assert_eq!(permit.request().pdu(), &input[7..]);
    }

    #[test]
    fn refusals_carry_their_exception() {
        let mut side = side(one_device());
        for (input, expected) in [
            (read(1, 5, 6), 0x02),
            (read(1, 0, 0), 0x03),
            (vec![0, 1, 0, 0, 0, 6, 1, 6, 0, 0, 0, 1], 0x01),
        ] {
            let (step, _) = side
                .next(&input, &mut Meter::default(), Instant::now())
                .unwrap()
                .unwrap();
            assert_eq!(exception(&step), expected, "{input:?}");
        }
    }

    #[test]
    fn units_lead_to_devices_and_are_mapped() {
        let devices = ["press-07".into(), "press-08".into()].into();
        let routes = Routes::by_unit([(7, Target { device: 0, unit: 1 })], &devices);
        let mut side = side(routes);
        let input = read(7, 0, 1);
        let (step, _) = side
            .next(&input, &mut Meter::default(), Instant::now())
            .unwrap()
            .unwrap();
        let Verdict::Forward { permit, .. } = step.verdict else {
            panic!("{step:?}");
        };
        assert_eq!((step.unit, permit.unit()), (7, 1));
        let input = read(8, 0, 1);
        let (step, _) = side
            .next(&input, &mut Meter::default(), Instant::now())
            .unwrap()
            .unwrap();
        assert_eq!(exception(&step), 0x0a);
    }

    #[test]
    fn requests_beyond_the_limit_are_busy() {
        let mut side = side(one_device());
        let input = read(1, 0, 1);
        side.begin();
        side.begin();
        assert_eq!(
            exception(
                &side
                    .next(&input, &mut Meter::default(), Instant::now())
                    .unwrap()
                    .unwrap()
                    .0
            ),
            0x06
        );
        side.end();
        assert_eq!(
            exception(
                &side
                    .next(&input, &mut Meter::default(), Instant::now())
                    .unwrap()
                    .unwrap()
                    .0
            ),
            0
        );
    }

    #[test]
    fn a_new_policy_judges_the_next_request() {
        let mut side = side(one_device());
        let input = read(1, 0, 1);
        assert_eq!(
            exception(
                &side
                    .next(&input, &mut Meter::default(), Instant::now())
                    .unwrap()
                    .unwrap()
                    .0
            ),
            0
        );
        let policy = Policy::deny_all();
        let phase = policy.phase(Now::Unknown);
        side.set_policy(Arc::new(policy), phase);
        assert_eq!(
            exception(
                &side
                    .next(&input, &mut Meter::default(), Instant::now())
                    .unwrap()
                    .unwrap()
                    .0
            ),
            0x01
        );
    }

    #[test]
    fn lost_framing_is_an_error() {
        let mut side = side(one_device());
        assert!(
            side.next(b"GET / HTTP/1.1\r\n", &mut Meter::default(), Instant::now())
                .is_err()
        );
        assert!(matches!(
            side.next(&[0, 1, 0, 0, 0], &mut Meter::default(), Instant::now()),
            Ok(None)
        ));
    }

    #[test]
    fn a_rate_outlives_the_connection_and_is_not_used_by_what_is_refused() {
        let text = format!("{POLICY}rate = {{ count = 2, per = \"1h\" }}\n");
        let policy = Arc::new(Policy::parse(&text, "policy.toml").unwrap());
        let connect = |last: u8| {
            let origin = Origins {
                address: Some([192, 0, 2, last].into()),
                ..Origins::default()
            };
            let phase = policy.phase(Now::Unknown);
            ClientSide::new(
                origin,
                Arc::new(one_device()),
                Arc::clone(&policy),
                phase,
                1,
            )
        };
        let (mut meter, now) = (Meter::default(), Instant::now());
        let (fits, beyond) = (read(1, 0, 1), read(1, 0, 11));
        let mut asks = |side: &mut ClientSide, input: &[u8]| {
            let (step, _) = side.next(input, &mut meter, now).unwrap().unwrap();
            exception(&step)
        };
        let mut side = connect(1);
        assert_eq!(asks(&mut side, &beyond), 0x02);
        side.begin();
        // In flight already.
        assert_eq!(asks(&mut side, &fits), 0x06);
        side.end();
        assert_eq!(asks(&mut side, &fits), 0);
        let mut side = connect(1);
        assert_eq!(asks(&mut side, &fits), 0);
        let mut side = connect(1);
        assert_eq!(asks(&mut side, &fits), 0x06);
    }
}
