//! The patterns of `to_char` and of what reads by them, as PostgreSQL 15 documents them
//! (functions-formatting), and instants written by them.

use std::fmt::Write;

use chrono::{Datelike, NaiveDateTime, Timelike};
use datafusion::common::Result;

use super::postgres::TEXT_BYTES_MAX;
use crate::error::Error;

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Patterns, the longest first where one begins another.
const PATTERNS: [&str; 48] = [
    "HH24", "HH12", "MONTH", "Month", "month", "YYYY", "IYYY", "SSSSS", "SSSS", "A.M.", "P.M.",
    "a.m.", "p.m.", "IDDD", "DDD", "DAY", "Day", "day", "MON", "Mon", "mon", "FF1", "FF2", "FF3",
    "FF4", "FF5", "FF6", "YYY", "HH", "MI", "MM", "MS", "US", "SS", "AM", "PM", "am", "pm", "YY",
    "IY", "IW", "ID", "DD", "DY", "Dy", "dy", "WW", "CC",
];

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A part of an instant; `fills` where blanks and zeros fill it up; TH or th behind it.
    Part { name: &'static str, fills: bool, suffix: Option<&'static str> },
    /// What stands in quotes.
    Text(&'a str),
    /// What stands for itself.
    Char(char),
}

/// What PostgreSQL knows besides, and this does not.
const UNKNOWN: [&str; 12] =
    ["TZH", "TZM", "TZ", "OF", "B.C.", "A.D.", "BC", "AD", "RM", "FX", "TM", "Y,YYY"];

/// Returns the pattern that a text begins with: in its letters, else in any.
fn known(rest: &str) -> Option<&'static str> {
    let begins =
        |one: &&str| rest.get(..one.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(one));
    let exact = PATTERNS.iter().find(|one| rest.starts_with(**one));
    let any = PATTERNS.iter().find(|one| begins(one));
    // What is longer is meant, whatever its letters.
    match (exact, any) {
        (Some(exact), Some(any)) if any.len() > exact.len() => Some(*any),
        (exact, any) => exact.or(any).copied(),
    }
    .or_else(|| ["Q", "W", "D", "J", "Y"].into_iter().find(begins))
}

/// Takes a pattern apart.
///
/// # Errors
/// A pattern of PostgreSQL's that is not known here.
pub(super) fn tokens(pattern: &str) -> crate::error::Result<Vec<Token<'_>>> {
    let (mut tokens, mut rest, mut fills) = (Vec::new(), pattern, true);
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            tokens.push(Token::Text(&quoted[..end]));
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some(after) = rest.strip_prefix("FM") {
            (rest, fills) = (after, false);
            continue;
        }
        let is_unknown = |one: &&&str| {
            rest.get(..one.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(one))
        };
        if let Some(unknown) = UNKNOWN.iter().find(is_unknown) {
            return Err(Error::unsupported(format!("the pattern {unknown}")));
        }
        let Some(name) = known(rest) else {
            tokens.push(Token::Char(first));
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &rest[name.len()..];
        let suffix = ["TH", "th"].into_iter().find(|one| rest.starts_with(one));
        rest = &rest[suffix.map_or(0, str::len)..];
        tokens.push(Token::Part { name, fills, suffix });
        fills = true;
    }
    Ok(tokens)
}

/// Writes an instant by a pattern of `to_char`; what is no pattern stays as it is.
pub(super) fn by_pattern(time: &NaiveDateTime, pattern: &str) -> Result<String> {
    if pattern.len() > TEXT_BYTES_MAX / 16 {
        return Err(Error::new("54000", "requested length too large").into());
    }
    let mut text = String::new();
    for token in tokens(pattern)? {
        match token {
            Token::Char(c) => text.push(c),
            Token::Text(words) => text.push_str(words),
            Token::Part { name, fills, suffix } => {
                let start = text.len();
                part(time, name, &mut text);
                if !fills {
                    trim(&mut text, start);
                }
                let ordinal = ordinal(&text[start..]);
                match suffix {
                    Some("TH") => text.push_str(&ordinal.to_uppercase()),
                    Some(_) => text.push_str(ordinal),
                    None => {}
                }
            }
        }
    }
    Ok(text)
}

/// Takes blanks and zeros away that only fill.
fn trim(text: &mut String, start: usize) {
    let made = text.split_off(start);
    let made = made.trim_end();
    let number = made.trim_start_matches('0');
    let is_number = made.bytes().all(|byte| byte.is_ascii_digit());
    text.push_str(match (is_number, number.is_empty()) {
        (true, true) => "0",
        (true, false) => number,
        (false, _) => made,
    });
}

fn ordinal(number: &str) -> &'static str {
    let digits: Vec<u8> = number.bytes().rev().take(2).collect();
    match (digits.first(), digits.get(1)) {
        (Some(b'1'..=b'3'), Some(b'1')) => "th",
        (Some(b'1'), _) => "st",
        (Some(b'2'), _) => "nd",
        (Some(b'3'), _) => "rd",
        _ => "th",
    }
}

/// Writes a word in the letter case of its pattern.
fn cased(word: &str, pattern: &str) -> String {
    if pattern.bytes().all(|byte| byte.is_ascii_uppercase()) {
        word.to_uppercase()
    } else if pattern.bytes().all(|byte| byte.is_ascii_lowercase()) {
        word.to_lowercase()
    } else {
        word.to_owned()
    }
}

fn part(time: &NaiveDateTime, pattern: &str, text: &mut String) {
    let hour12 = time.hour12().1;
    let ns = time.nanosecond() % 1_000_000_000;
    let week = time.iso_week();
    let month = MONTHS[time.month0() as usize];
    let day = DAYS[time.weekday().num_days_from_sunday() as usize];
    let year = i64::from(time.year());
    let number = match pattern {
        "HH24" => (u64::from(time.hour()), 2),
        "HH12" | "HH" => (u64::from(hour12), 2),
        "MI" => (u64::from(time.minute()), 2),
        "SS" => (u64::from(time.second()), 2),
        "MS" => (u64::from(ns / 1_000_000), 3),
        "US" => (u64::from(ns / 1_000), 6),
        "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
            let digits = u32::from(pattern.as_bytes()[2] - b'0');
            (u64::from(ns) / 10_u64.pow(9 - digits), digits as usize)
        }
        "SSSSS" | "SSSS" => (u64::from(time.num_seconds_from_midnight()), 1),
        "YYYY" => (year.unsigned_abs(), 4),
        "YYY" => (year.unsigned_abs() % 1_000, 3),
        "YY" => (year.unsigned_abs() % 100, 2),
        "Y" => (year.unsigned_abs() % 10, 1),
        "IYYY" => (u64::from(week.year().unsigned_abs()), 4),
        "IY" => (u64::from(week.year().unsigned_abs() % 100), 2),
        "IW" => (u64::from(week.week()), 2),
        "MM" => (u64::from(time.month()), 2),
        "DD" => (u64::from(time.day()), 2),
        "DDD" => (u64::from(time.ordinal()), 3),
        "IDDD" => (u64::from(week.week0() * 7 + time.weekday().number_from_monday()), 3),
        "D" => (u64::from(time.weekday().number_from_sunday()), 1),
        "ID" => (u64::from(time.weekday().number_from_monday()), 1),
        "WW" => (u64::from(time.ordinal0() / 7 + 1), 2),
        "W" => (u64::from(time.day0() / 7 + 1), 1),
        "Q" => (u64::from(time.month0() / 3 + 1), 1),
        "CC" => ((year.unsigned_abs() - 1) / 100 + 1, 2),
        "J" => ((i64::from(time.num_days_from_ce()) + 1_721_425).unsigned_abs(), 1),
        "AM" | "PM" | "am" | "pm" => {
            let word = if time.hour() < 12 { "AM" } else { "PM" };
            return text.push_str(&cased(word, pattern));
        }
        "A.M." | "P.M." => return text.push_str(if time.hour() < 12 { "A.M." } else { "P.M." }),
        "a.m." | "p.m." => return text.push_str(if time.hour() < 12 { "a.m." } else { "p.m." }),
        "MON" | "Mon" | "mon" => return text.push_str(&cased(&month[..3], pattern)),
        "DY" | "Dy" | "dy" => return text.push_str(&cased(&day[..3], pattern)),
        // Whole words are filled up with blanks to nine letters.
        "DAY" | "Day" | "day" => return text.push_str(&format!("{:<9}", cased(day, pattern))),
        _ => return text.push_str(&format!("{:<9}", cased(month, pattern))),
    };
    let (number, width) = number;
    write!(text, "{number:0width$}").expect("a text takes all that is written");
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn instants_are_written_by_pattern_as_postgresql_writes_them() {
        // Friday, 2024-03-08 14:05:09.012345.
        let time = DateTime::from_timestamp_nanos(1_709_906_709_012_345_000).naive_utc();
        let cases = [
            ("YYYY-MM-DD HH24:MI:SS", "2024-03-08 14:05:09"),
            ("Dy, DD Mon YYYY HH12:MI:SS am", "Fri, 08 Mar 2024 02:05:09 pm"),
            ("MS US FF3 SSSS", "012 012345 012 50709"),
            ("FMDay, FMDDth FMMonth", "Friday, 8th March"),
            ("Month|DAY", "March    |FRIDAY   "),
            ("DDD WW W IW ID D Q CC J", "068 10 2 10 5 6 1 21 2460378"),
            ("YY \"year\" IYYY", "24 year 2024"),
            ("[HH]", "[02]"),
            ("yyyy-mm-dd hh24:mi:ss", "2024-03-08 14:05:09"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(by_pattern(&time, pattern).unwrap(), expected, "{pattern}");
        }
    }
}
