//! Conditions on tags as storage tests them: once a series, not once a row.

use std::ops::Bound;

use cluster::TagTest;
use datafusion::logical_expr::{Like, Operator};
use regex::Regex;

/// Returns the test that a tag passes where `tag op value` holds.
pub(super) fn compared(op: Operator, value: String) -> Option<TagTest> {
    let free = || Bound::Unbounded;
    Some(match op {
        Operator::NotEq => TagTest::NoneOf(vec![value]),
        Operator::Lt => TagTest::Within(free(), Bound::Excluded(value)),
        Operator::LtEq => TagTest::Within(free(), Bound::Included(value)),
        Operator::Gt => TagTest::Within(Bound::Excluded(value), free()),
        Operator::GtEq => TagTest::Within(Bound::Included(value), free()),
        Operator::RegexMatch => matches(value, false)?,
        Operator::RegexNotMatch => matches(value, true)?,
        _ => return None,
    })
}

/// Returns the tests that a tag passes where LIKE holds: of a pattern that begins with letters, that it
/// lies among the values that do as well.
pub(super) fn like(like: &Like, pattern: &str) -> Option<Vec<TagTest>> {
    if like.case_insensitive {
        return None;
    }
    let escape = like.escape_char.unwrap_or('\\');
    let (mut regex, mut prefix, mut in_prefix) = (String::from("(?s)^"), String::new(), true);
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let literal = match letter {
            '%' | '_' if letter != escape => {
                regex.push_str(if letter == '%' { ".*" } else { "." });
                in_prefix = false;
                continue;
            }
            // At the end it stands for itself.
            letter if letter == escape => letters.next().unwrap_or(letter),
            letter => letter,
        };
        regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
        if in_prefix {
            prefix.push(literal);
        }
    }
    regex.push('$');
    let mut tests = vec![matches(regex, like.negated)?];
    if !like.negated && !prefix.is_empty() {
        let end = above(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        tests.push(TagTest::Within(Bound::Included(prefix), end));
    }
    Some(tests)
}

fn matches(pattern: String, negated: bool) -> Option<TagTest> {
    // What is no expression, or too large a one, is left to the planner to refuse.
    Regex::new(&pattern).is_ok().then_some(TagTest::Matches { pattern, negated })
}

/// Returns the first text above all that begin so.
fn above(prefix: &str) -> Option<String> {
    let mut letters: Vec<char> = prefix.chars().collect();
    while let Some(last) = letters.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_begin_so_lie_below_the_first_that_does_not() {
        assert_eq!(above("host_1"), Some("host_2".to_owned()));
        assert_eq!(above("a\u{d7ff}"), Some("a\u{e000}".to_owned()));
        assert_eq!(above("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(above("\u{10ffff}"), None);
    }
}
