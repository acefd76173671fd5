//! Which of many are on a page.

use crate::{Filter, Page};

/// The names on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<'a> {
    pub names: Vec<&'a str>,
    /// `after` of the next page, where there is one.
    pub next: Option<&'a str>,
    /// How many match, on all pages.
    pub matching: usize,
}

/// Chooses from `names` in any order, each of which stands there once. `keep` judges what the name
/// alone does not tell.
pub fn choose<'a>(
    names: impl Iterator<Item = &'a str>,
    page: &Page,
    keep: impl Fn(&str) -> bool,
) -> Chosen<'a> {
    let matching = names.filter(|name| page.filter.has_name(name) && keep(name));
    let mut after: Vec<&str> = Vec::new();
    let mut count = 0;
    for name in matching {
        count += 1;
        if page.after.as_deref().is_none_or(|after| name > after) {
            after.push(name);
        }
    }
    after.sort_unstable();
    let limit = usize::from(page.limit);
    let more = after.len() > limit;
    after.truncate(limit);
    Chosen {
        next: after.last().copied().filter(|_| more),
        names: after,
        matching: count,
    }
}

impl Filter {
    fn has_name(&self, name: &str) -> bool {
        let part = self.name.as_deref();
        part.is_none_or(|part| name.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_pages_together_are_all_that_match(
            names in prop::collection::hash_set("[a-c]{1,4}", 0..60),
            part in prop::option::of("[a-c]{0,2}"),
            limit in 1_u16..10,
        ) {
            let keep = |name: &str| !name.ends_with('c');
            let mut page = Page {
                limit,
                filter: Filter { name: part.clone(), ..Filter::default() },
                ..Page::default()
            };
            let part = part.unwrap_or_default();
            let expected: BTreeSet<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|name| keep(name) && name.contains(&part))
                .collect();
            let mut seen = Vec::new();
            loop {
                let chosen = choose(names.iter().map(String::as_str), &page, keep);
                prop_assert_eq!(chosen.matching, expected.len());
                prop_assert!(chosen.names.len() <= usize::from(limit));
                seen.extend(chosen.names.iter().map(|name| (*name).to_owned()));
                match chosen.next {
                    Some(next) => page.after = Some(next.to_owned()),
                    None => break,
                }
            }
            prop_assert!(seen.iter().eq(expected.iter()));
        }
    }
}
