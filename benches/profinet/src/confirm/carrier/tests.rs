use super::*;
use crate::plan::Trouble;

#[test]
fn carriers_are_read_as_they_are_written() {
    let with = |tls, redundancy, play_out, hold| {
        Ok(Carrier::Fieldlock(Means {
            tls,
            redundancy,
            play_out,
            hold,
        }))
    };
    assert_eq!("bare".parse(), Ok(Carrier::Bare));
    assert_eq!("openvpn-tcp".parse(), Ok(Carrier::OpenVpn { tcp: true }));
    assert_eq!("fieldlock".parse(), with(false, 0, false, false));
    assert_eq!("fieldlock+r3+playout".parse(), with(false, 3, true, false));
    assert_eq!("fieldlock+hold+tls".parse(), with(true, 0, false, true));
    for text in [
        "",
        "openvpn",
        "fieldlock+r8",
        "fieldlock+r",
        "fieldlock+",
        "bare+r1",
    ] {
        assert!(text.parse::<Carrier>().is_err(), "{text}");
    }
}

#[test]
fn a_station_waits_for_what_is_repeated_and_for_the_jitter_and_says_when_it_fails_safe() {
    let timing = Timing {
        cycle: Duration::from_millis(32),
        factor: 3,
    };
    let network = Network {
        trouble: Trouble::Loss(0.05),
        jitter: Duration::from_millis(10),
    };
    let keys = |redundancy, play_out, hold| {
        let means = Means {
            tls: false,
            redundancy,
            play_out,
            hold,
        };
        means.keys(timing, &network)
    };
    assert_eq!(keys(0, false, false), "redundancy = 0\nplay_out = 0\n");
    assert_eq!(keys(0, true, false), "redundancy = 0\nplay_out = 3\n");
    // 6 cycles, 60 ms of round trip, 96 ms of watchdog; and as much once more.
    assert_eq!(
        keys(5, true, true),
        "redundancy = 5\nplay_out = 6\nhold = { max_age = \"348ms\" }\nfail_safe_limit = \"444ms\"\n"
    );
}
