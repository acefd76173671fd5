use super::*;

const MS: Duration = Duration::from_millis(1);

/// Sends packets of 100 octets, one each `gap`; the decision and the time of each.
fn run(impairment: &Impairment, seed: u64, count: u32, gap: Duration) -> Vec<(Instant, Decision)> {
    // Arbitrary, but the same for two runs that are compared.
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let mut link = Link::new(impairment.clone(), seed, *START);
    let send = |number| {
        let now = *START + gap * number;
        (now, link.handle(now, 100))
    };
    (0..count).map(send).collect()
}

fn dropped(decisions: &[(Instant, Decision)]) -> Vec<bool> {
    let lost = |decision| matches!(decision, Decision::Drop(_));
    decisions.iter().map(|(_, it)| lost(*it)).collect()
}

fn delays(decisions: &[(Instant, Decision)]) -> Vec<Duration> {
    let delay = |(now, decision): &(Instant, Decision)| match decision {
        Decision::Deliver(delivery) => Some(delivery.at.duration_since(*now)),
        Decision::Drop(_) => None,
    };
    decisions.iter().filter_map(delay).collect()
}

fn arrivals(decisions: &[(Instant, Decision)]) -> Vec<Instant> {
    let at = |(_, decision): &(Instant, Decision)| match decision {
        Decision::Deliver(delivery) => Some(delivery.at),
        Decision::Drop(_) => None,
    };
    decisions.iter().filter_map(at).collect()
}

fn share(lost: &[bool]) -> f64 {
    lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64
}

/// The lengths of the runs of lost packets.
fn bursts(lost: &[bool]) -> Vec<usize> {
    lost.split(|lost| !lost)
        .map(<[bool]>::len)
        .filter(|length| *length > 0)
        .collect()
}

fn mean(lengths: &[usize]) -> f64 {
    lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
}

fn everything() -> Impairment {
    Impairment {
        loss: 0.05,
        burst: Some(Burst {
            enter: 0.01,
            leave: 0.2,
            loss: 0.9,
            step: None,
        }),
        delay: 20 * MS,
        jitter: Jitter::Pareto {
            scale: 5 * MS,
            alpha: 1.5,
            cap: 200 * MS,
        },
        reorder: Some(Reorder {
            share: 0.1,
            by: 30 * MS,
        }),
        duplicate: 0.1,
        corrupt: 0.1,
        rate: Some(Rate {
            bits_per_second: 900_000,
            queue: 2_000,
        }),
        cuts: Cuts::Every {
            first: 100 * MS,
            period: 500 * MS,
            length: 20 * MS,
        },
    }
}

#[test]
fn a_perfect_link_delivers_everything_once_and_at_once() {
    for (now, decision) in run(&Impairment::default(), 1, 1_000, MS) {
        let delivery = Delivery {
            at: now,
            copies: 1,
            corrupt: None,
        };
        assert_eq!(decision, Decision::Deliver(delivery));
    }
}

#[test]
fn a_seed_repeats_every_decision_and_another_seed_does_not() {
    let decisions = run(&everything(), 7, 10_000, MS);
    assert_eq!(decisions, run(&everything(), 7, 10_000, MS));
    assert_ne!(decisions, run(&everything(), 8, 10_000, MS));
}

#[test]
fn the_directions_of_a_pair_are_different_streams() {
    let start = Instant::now();
    let lossy = Impairment {
        loss: 0.5,
        ..Impairment::default()
    };
    let [mut there, mut back] = Link::pair(&lossy, 7, start);
    let both = |_| (there.handle(start, 1), back.handle(start, 1));
    let different = (0..1_000).map(both).filter(|(one, other)| one != other);
    assert!((400..600).contains(&different.count()));
}

#[test]
fn the_share_that_is_lost_is_the_share_that_was_asked_for() {
    for loss in [0.0, 0.001, 0.05, 0.5, 1.0] {
        let with = Impairment {
            loss,
            ..Impairment::default()
        };
        let lost = share(&dropped(&run(&with, 3, 100_000, MS)));
        // Four standard deviations of a binomial.
        let bound = 4.0 * (loss * (1.0 - loss) / 100_000.0).sqrt();
        assert!((lost - loss).abs() <= bound, "{lost} for {loss}");
    }
}

#[test]
fn more_loss_loses_what_less_loss_lost_and_jitter_moves_no_loss() {
    let lossy = |loss, jitter| {
        let with = Impairment {
            loss,
            jitter,
            ..Impairment::default()
        };
        dropped(&run(&with, 5, 10_000, MS))
    };
    let less = lossy(0.01, Jitter::None);
    let more = lossy(0.1, Jitter::None);
    assert!(less.iter().zip(&more).all(|(less, more)| !less || *more));
    assert_eq!(less, lossy(0.01, Jitter::Uniform(10 * MS)));
}

#[test]
fn bursts_are_as_long_and_as_frequent_as_their_chances_say() {
    let with = Impairment {
        burst: Some(Burst {
            enter: 0.01,
            leave: 0.2,
            loss: 1.0,
            step: None,
        }),
        ..Impairment::default()
    };
    let decisions = run(&with, 11, 100_000, MS);
    let lost = dropped(&decisions);
    let length = mean(&bursts(&lost));
    assert!((4.5..5.5).contains(&length), "{length}");
    let share = share(&lost);
    assert!((0.042..0.053).contains(&share), "{share}");
    let by_burst = |(_, it): &(Instant, Decision)| *it != Decision::Drop(Reason::Loss);
    assert!(decisions.iter().all(by_burst));
}

#[test]
fn bursts_in_steps_of_time_last_as_long_for_frequent_senders() {
    let with = Impairment {
        burst: Some(Burst {
            enter: 0.01,
            leave: 0.1,
            loss: 1.0,
            step: Some(MS),
        }),
        ..Impairment::default()
    };
    let lasting = |gap: Duration, count| {
        let lost = dropped(&run(&with, 2, count, gap));
        (mean(&bursts(&lost)) * gap.as_secs_f64(), share(&lost))
    };
    let (rare, rare_share) = lasting(MS, 100_000);
    let (frequent, frequent_share) = lasting(MS / 4, 400_000);
    assert!((0.009..0.011).contains(&rare), "{rare}");
    assert!((0.009..0.011).contains(&frequent), "{frequent}");
    assert!((rare_share - frequent_share).abs() < 0.01);
    // Far apart, each packet meets the channel as it is in the long run.
    let (_, seldom) = lasting(1_000 * MS, 100_000);
    assert!((0.085..0.097).contains(&seldom), "{seldom}");
}

#[test]
fn order_is_kept_unless_reordering_is_asked_for() {
    let mut with = everything();
    with.reorder = None;
    assert!(arrivals(&run(&with, 4, 10_000, MS)).is_sorted());
    with.reorder = everything().reorder;
    assert!(!arrivals(&run(&with, 4, 10_000, MS)).is_sorted());
}

#[test]
fn jitter_has_the_shape_that_was_asked_for() {
    // So rare that no packet waits for the one before it.
    let gap = 1_000 * MS;
    let with = |jitter| Impairment {
        delay: 10 * MS,
        jitter,
        ..Impairment::default()
    };
    let uniform = delays(&run(&with(Jitter::Uniform(8 * MS)), 1, 20_000, gap));
    assert!(uniform.iter().all(|it| (10 * MS..18 * MS).contains(it)));
    let sum: Duration = uniform.iter().sum();
    assert!((13_900..14_100).contains(&(sum / 20_000).as_micros()));

    let (scale, cap) = (2 * MS, 100 * MS);
    let alpha = 2.0;
    let heavy = delays(&run(
        &with(Jitter::Pareto { scale, alpha, cap }),
        1,
        20_000,
        gap,
    ));
    // (1 + 6/2)^-2 of all are later than 6 ms.
    let late = heavy.iter().filter(|it| **it > 16 * MS).count();
    assert!((1_130..1_370).contains(&late), "{late}");
    assert!(heavy.iter().all(|it| *it <= 110 * MS));
    assert!(heavy.contains(&(110 * MS)));
}

#[test]
fn a_rate_spaces_packets_and_its_queue_is_bounded() {
    let with = Impairment {
        rate: Some(Rate {
            bits_per_second: 800_000,
            queue: 500,
        }),
        ..Impairment::default()
    };
    // 100 octets take 1 ms; ten at once, of which five fit.
    let decisions = run(&with, 1, 10, Duration::ZERO);
    assert_eq!(delays(&decisions), [MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS]);
    let behind = &decisions[5..];
    assert!(
        behind
            .iter()
            .all(|(_, it)| *it == Decision::Drop(Reason::Queue))
    );
    // As slow as the rate itself, nothing waits and nothing is lost.
    assert_eq!(delays(&run(&with, 1, 50, MS)), [MS; 50]);
}

#[test]
fn a_cut_loses_what_enters_while_it_lasts() {
    let cut = |cuts| {
        let with = Impairment {
            cuts,
            ..Impairment::default()
        };
        let lost = dropped(&run(&with, 1, 100, MS));
        let at = lost.iter().enumerate().filter(|(_, lost)| **lost);
        at.map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(cut(Cuts::Never), []);
    let some = Cuts::At(vec![3 * MS..5 * MS, 99 * MS..200 * MS]);
    assert_eq!(cut(some), [3, 4, 99]);
    let regular = Cuts::Every {
        first: 10 * MS,
        period: 40 * MS,
        length: 2 * MS,
    };
    assert_eq!(cut(regular), [10, 11, 50, 51, 90, 91]);
}

#[test]
fn duplicates_and_damage_come_as_often_as_asked_for() {
    let with = Impairment {
        duplicate: 0.1,
        corrupt: 0.2,
        ..Impairment::default()
    };
    let decisions = run(&with, 9, 10_000, MS);
    let count = |which: fn(&Delivery) -> bool| {
        let delivered = decisions.iter().filter_map(|(_, it)| match it {
            Decision::Deliver(delivery) => Some(delivery),
            Decision::Drop(_) => None,
        });
        delivered.filter(|it| which(it)).count()
    };
    let twice = count(|it| it.copies == 2);
    assert!((880..1_120).contains(&twice), "{twice}");
    let damaged = count(|it| it.corrupt.is_some());
    assert!((1_840..2_160).contains(&damaged), "{damaged}");
    assert_eq!(count(|it| it.corrupt.is_some_and(|at| at >= 100)), 0);

    let mut packet = [0; 4];
    damage(&mut packet, 2);
    damage(&mut packet, 4);
    assert_eq!(packet, [0, 0, 0x55, 0]);
}

#[test]
fn senseless_values_neither_panic_nor_overflow() {
    let far = Duration::MAX;
    let jitters = [
        Jitter::Uniform(far),
        Jitter::Pareto {
            scale: far,
            alpha: 0.0,
            cap: far,
        },
        Jitter::Pareto {
            scale: MS,
            alpha: f64::NAN,
            cap: far,
        },
    ];
    for jitter in jitters {
        let with = Impairment {
            loss: f64::NAN,
            delay: far,
            jitter,
            reorder: Some(Reorder {
                share: 2.0,
                by: far,
            }),
            burst: Some(Burst {
                enter: 0.0,
                leave: 0.0,
                loss: 9.0,
                step: Some(Duration::ZERO),
            }),
            rate: Some(Rate {
                bits_per_second: 0,
                queue: 0,
            }),
            cuts: Cuts::Every {
                first: MS,
                period: Duration::ZERO,
                length: Duration::ZERO,
            },
            ..Impairment::default()
        };
        assert_eq!(run(&with, 1, 10, MS).len(), 10);
    }
}
