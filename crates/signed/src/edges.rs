//! For whom a text is.

use std::fmt;

/// Which edges a text is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edges {
    Any,
    /// Names, ascending, none twice, at least one.
    Only(Vec<String>),
}

impl Edges {
    /// In the one order in which names are written.
    pub fn only(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self::Only(names)
    }

    pub fn includes(&self, edge: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names
                .binary_search_by(|name| name.as_str().cmp(edge))
                .is_ok(),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == ANY {
            return Some(Self::Any);
        }
        let names: Vec<String> = text.split(", ").map(str::to_owned).collect();
        let well_formed = |name: &String| {
            (1..=MAX_NAME).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && name != ANY
        };
        let ascending = names.is_sorted_by(|one, other| one < other);
        (names.iter().all(well_formed) && ascending).then_some(Self::Only(names))
    }
}

impl fmt::Display for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Only(names) => f.write_str(&names.join(", ")),
        }
    }
}

const ANY: &str = "any";
/// Octets of the name of an edge; certificates have no longer ones.
const MAX_NAME: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_for_the_edges_that_it_names() {
        let edges = Edges::only(vec!["press-08".into(), "press-07".into()]);
        assert!(edges.includes("press-07") && !edges.includes("press-0"));
        assert!(Edges::Any.includes("press-0"));
        assert_eq!(Edges::parse(&edges.to_string()), Some(edges));
    }
}
