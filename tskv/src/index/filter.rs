//! Which series a scan or a delete wants, by their tags.

use std::ops::Bound;

use model::{ColumnId, series_key};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Which series a scan wants: those for which every term and every test holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesFilter {
    /// A tag and the values it may have; `None` is NULL.
    pub terms: Vec<(ColumnId, Vec<Option<String>>)>,
    /// A tag and what its value must pass.
    pub tests: Vec<(ColumnId, TagTest)>,
}

/// What the value of a tag must pass. NULL passes none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagTest {
    /// It lies within bounds, in order of bytes.
    Within(Bound<String>, Bound<String>),
    /// It is none of these; none at all: it is not NULL.
    NoneOf(Vec<String>),
    /// A regular expression (crate `regex`) matches it, or matches it not.
    Matches {
        /// The expression.
        pattern: String,
        /// Whether it must not match.
        negated: bool,
    },
}

/// A filter that is ready to look at keys.
pub(super) struct Sieve<'a> {
    filter: &'a SeriesFilter,
    /// The expressions of its tests, made once.
    patterns: Vec<Option<Regex>>,
}

impl SeriesFilter {
    /// Returns whether it keeps all series.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.tests.is_empty()
    }

    /// Returns whether the values of tags tell by themselves which series it keeps.
    pub(super) fn is_told_by_lists(&self) -> bool {
        self.tests.is_empty() && self.lists().count() == self.terms.len()
    }

    /// Makes it ready.
    pub(super) fn sieve(&self) -> Sieve<'_> {
        let pattern = |test: &TagTest| match test {
            TagTest::Matches { pattern, .. } => Regex::new(pattern).ok(),
            TagTest::Within(..) | TagTest::NoneOf(_) => None,
        };
        let patterns = self.tests.iter().map(|(_, test)| pattern(test)).collect();
        Sieve { filter: self, patterns }
    }

    /// Returns the terms that only series with a value of their tag pass: the tag and its values.
    pub(super) fn lists(&self) -> impl Iterator<Item = (ColumnId, Vec<&str>)> {
        self.terms.iter().filter_map(|(column, values)| {
            let values = values.iter().map(Option::as_deref).collect::<Option<Vec<&str>>>()?;
            Some((*column, values))
        })
    }

    /// Returns the tests that are walks over neighbouring values of a tag.
    pub(super) fn walks(&self) -> impl Iterator<Item = (ColumnId, (Bound<&str>, Bound<&str>))> {
        self.tests.iter().filter_map(|(column, test)| match test {
            TagTest::Within(low, high) => {
                let borrowed = |bound| Bound::map(bound, String::as_str);
                Some((*column, (borrowed(low.as_ref()), borrowed(high.as_ref()))))
            }
            TagTest::NoneOf(_) | TagTest::Matches { .. } => None,
        })
    }
}

impl Sieve<'_> {
    /// Returns whether a series has the tags that are wanted.
    pub(super) fn keeps(&self, key: &[u8]) -> bool {
        let SeriesFilter { terms, tests } = self.filter;
        let one_of = terms.iter().all(|(column, values)| {
            let value = series_key::tag(key, *column);
            values.iter().any(|wanted| wanted.as_deref() == value)
        });
        one_of
            && tests.iter().zip(&self.patterns).all(|((column, test), pattern)| {
                let value = series_key::tag(key, *column);
                value.is_some_and(|value| passes(test, pattern.as_ref(), value))
            })
    }
}

fn passes(test: &TagTest, pattern: Option<&Regex>, value: &str) -> bool {
    match test {
        TagTest::Within(low, high) => {
            let above = match low {
                Bound::Included(low) => value >= low.as_str(),
                Bound::Excluded(low) => value > low.as_str(),
                Bound::Unbounded => true,
            };
            let below = match high {
                Bound::Included(high) => value <= high.as_str(),
                Bound::Excluded(high) => value < high.as_str(),
                Bound::Unbounded => true,
            };
            above && below
        }
        TagTest::NoneOf(values) => !values.iter().any(|other| other == value),
        // One that is none matches nothing; whoever sends it has made sure that it is one.
        TagTest::Matches { negated, .. } => {
            pattern.is_some_and(|pattern| pattern.is_match(value) != *negated)
        }
    }
}
