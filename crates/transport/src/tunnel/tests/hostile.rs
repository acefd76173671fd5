//! What the other end of a tunnel may send, once it has proven who it is.

use fieldlock_session::frame::{Checkpoint, ClientOpen, Outcome};
use fieldlock_session::state::{MAX_BUNDLE, MAX_TRUST};
use fieldlock_session::{Decoder, Side};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const STATIONS: [&str; 2] = ["a", "b"];

/// Accepts a hello with all that it offers, and sees to it that nothing comes that has no place.
#[derive(Default)]
struct Strict {
    devices: Cell<u16>,
    stations: Cell<u16>,
    hellos: Cell<usize>,
    ups: Cell<usize>,
}

impl Handler for Strict {
    fn event(&self, link: &Rc<Link>, event: Event) {
        match event {
            Event::Hello(offered) => {
                assert!(!link.is_up() && link.side == Side::Headend);
                self.hellos.set(self.hellos.get() + 1);
                self.devices.set(count(offered.devices.len()));
                self.stations.set(count(offered.stations.len()));
                let stations = offered.stations.clone();
                let answer = Hello {
                    stations,
                    ..hello(0, &[])
                };
                link.accept(&answer, &offered);
            }
            Event::Up(theirs) => {
                assert!(link.is_up());
                self.ups.set(self.ups.get() + 1);
                if let Some(theirs) = theirs {
                    self.stations.set(count(theirs.stations.len()));
                }
            }
            Event::Trust(pem) => assert!(link.side == Side::Edge && pem.len() <= MAX_TRUST),
            Event::Bundle(text) => assert!(link.side == Side::Edge && text.len() <= MAX_BUNDLE),
            Event::BundleHave { text, .. } => {
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
            Event::Goodbye { .. } | Event::HelloTimeout | Event::Dead => panic!("{event:?}"),
            _ => {}
        }
    }

    fn frame(&self, link: &Rc<Link>, channel: u16, frame: Frame<'_>) -> Result<(), Violation> {
        assert!(link.is_up());
        assert!((1..=self.devices.get()).contains(&channel));
        assert!(!matches!(frame, Frame::Station(_)));
        Ok(())
    }

    fn station(&self, link: &Rc<Link>, station: u16, frame: &[u8]) {
        assert!(link.is_up() && station < self.stations.get() && !frame.is_empty());
    }

    fn datagram(&self, _: &Rc<Link>, _: &[u8]) {}

    fn flush(&self) {}
}

/// One frame of any kind on `channel`.
fn encoded(kind: u8, channel: u16, octets: &[u8]) -> Vec<u8> {
    let number = octets.first().copied().unwrap_or(1);
    let mut hash = [0; 32];
    hash[0] = number;
    let offers = |devices| hello(devices, &STATIONS[..usize::from(number % 3)]).encode();
    let (with_device, without) = (offers(1), offers(0));
    let frame = match kind {
        0 => Frame::Hello(&with_device),
        1 => Frame::Hello(&without),
        2 => Frame::Hello(octets),
        3 => Frame::Ready,
        4 => Frame::Ping(number.into()),
        5 => Frame::Pong(number.into()),
        6 => Frame::Goodbye {
            code: number.into(),
            text: octets,
        },
        7 => Frame::Policy(hash),
        8 => Frame::Trust {
            last: number < 64,
            piece: octets,
        },
        9 => Frame::TrustHave(hash),
        10 => Frame::Bundle {
            last: number < 64,
            piece: octets,
        },
        11 => Frame::BundleHave {
            version: number.into(),
            fate: Fate::Refused,
            text: octets,
        },
        12 => Frame::Checkpoint(Checkpoint {
            seq: number.into(),
            hash,
            signature: octets.to_vec(),
        }),
        13 => Frame::Drain,
        14 => Frame::ClientOpen(ClientOpen {
            client: number.into(),
            address: "192.0.2.7:502".parse().unwrap(),
            name: octets,
            identity: &[],
            role: octets,
        }),
        15 => Frame::ClientClose {
            client: number.into(),
        },
        16 => Frame::Request {
            id: number.into(),
            client: number.into(),
            within: 100,
            unit: 1,
            pdu: &[3, 0, 0, 0, 1],
        },
        17 => Frame::Answer {
            id: number.into(),
            outcome: Outcome::Answered,
            pdu: &[3, 2, 0, 0],
        },
        18 => Frame::Station(&[7; 60]),
        _ => Frame::Station(&[]),
    };
    let mut out = Vec::new();
    frame.encode(channel, &mut out);
    out
}

proptest! {
    #[test]
    fn what_a_peer_sends_reaches_only_what_it_is_for(
        is_edge: bool,
        begins_well: bool,
        frames in vec((0_u8..20, prop_oneof![3 => Just(0_u16), 1 => 0_u16..5], vec(any::<u8>(), 0..80)), 0..40),
        broken in prop_oneof![3 => Just(None), 1 => any::<(prop::sample::Index, u8)>().prop_map(Some)],
    ) {
        let handler = Strict::default();
        let link = match is_edge {
            true => {
                handler.devices.set(1);
                Link::edge(peer(Transport::Tls), Path::Tls, 1, &hello(1, &STATIONS))
            }
            false => Link::headend(peer(Transport::Tls), Path::Tls, 1),
        };
        let mut stream = Vec::new();
        if begins_well {
            let offer = if is_edge { 1 } else { 0 };
            stream.extend(encoded(offer, 0, &[2]));
            if !is_edge {
                stream.extend(encoded(3, 0, &[]));
            }
        }
        for (kind, channel, octets) in &frames {
            stream.extend(encoded(*kind, *channel, octets));
        }
        if let Some((place, value)) = broken && !stream.is_empty() {
            let place = place.index(stream.len());
            stream[place] = value;
        }
        let mut decoder = Decoder::default();
        let fed = decoder.feed(&stream, |channel, frame| {
            link.deliver(&handler, Instant::now(), channel, frame)
        });
        prop_assert!(handler.hellos.get() <= 1 && handler.ups.get() <= 1);
        prop_assert!(!link.control.is_flooded());
        if let Err(end) = fed {
            let text = end.to_string();
            prop_assert!(!text.is_empty() && !text.chars().any(char::is_control), "{:?}", text);
        } else if begins_well && broken.is_none() {
            prop_assert!(link.is_up());
        }
    }
}
