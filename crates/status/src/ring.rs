//! The last of many, bounded in number and octets.

use std::collections::VecDeque;

/// The last items that were put in. What is full forgets its oldest.
#[derive(Debug)]
pub struct Ring<T> {
    /// Each with its octets.
    items: VecDeque<(T, usize)>,
    octets: usize,
    most: usize,
    most_octets: usize,
    /// How many were put in since the start.
    count: u64,
}

impl<T> Ring<T> {
    pub fn new(most: usize, most_octets: usize) -> Self {
        Self {
            items: VecDeque::new(),
            octets: 0,
            most,
            most_octets,
            count: 0,
        }
    }

    /// `octets`: what it holds in memory. One that is larger than all may be counts and is not kept.
    pub fn push(&mut self, item: T, octets: usize) {
        self.count += 1;
        if octets > self.most_octets || self.most == 0 {
            return;
        }
        while self.items.len() >= self.most || self.octets + octets > self.most_octets {
            let Some((_, freed)) = self.items.pop_front() else {
                break;
            };
            self.octets -= freed;
        }
        self.items.push_back((item, octets));
        self.octets += octets;
    }

    /// How many were put in since the start.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latest first.
    pub fn latest(&self) -> impl Iterator<Item = &T> {
        self.items.iter().rev().map(|(item, _)| item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_keeps_the_last_that_fit(
            sizes in prop::collection::vec(0_usize..50, 0..200),
            most in 1_usize..20,
            most_octets in 50_usize..300,
        ) {
            let mut ring = Ring::new(most, most_octets);
            for (number, size) in sizes.iter().enumerate() {
                ring.push(number, *size);
                let kept: Vec<_> = ring.latest().copied().collect();
                prop_assert!(kept.len() <= most);
                prop_assert_eq!(kept.first(), Some(&number));
                prop_assert!(kept.iter().is_sorted_by(|a, b| **a == **b + 1));
                let octets: usize = kept.iter().map(|number| sizes[*number]).sum();
                prop_assert!(octets <= most_octets);
                // One more would not have fitted.
                let full = kept.len() == most || kept.len() == number + 1
                    || octets + sizes[number - kept.len()] > most_octets;
                prop_assert!(full);
            }
            prop_assert_eq!(ring.count(), sizes.len() as u64);
        }
    }

    #[test]
    fn what_is_too_large_for_it_is_counted_and_not_kept() {
        let mut ring = Ring::new(4, 100);
        ring.push("small", 60);
        ring.push("huge", 101);
        assert_eq!((ring.latest().count(), ring.count()), (1, 2));
        ring.push("all of it", 100);
        assert_eq!((ring.latest().count(), ring.count()), (1, 3));
    }
}
