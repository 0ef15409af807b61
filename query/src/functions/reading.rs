//! Reads instants and numbers by PostgreSQL's patterns: `to_timestamp(text, pattern)`,
//! `to_date(text, pattern)`, `to_number(text, pattern)`, as PostgreSQL 15 documents them
//! (functions-formatting), without its FX, TM and RN.

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Weekday};

use super::patterns::{MONTHS, Token, tokens};
use crate::error::{Error, Result};

/// What a text told of an instant.
#[derive(Default)]
struct Parts {
    year: Option<i32>,
    iso_year: Option<i32>,
    iso_week: Option<u32>,
    iso_day: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    julian: Option<i32>,
    hour: u32,
    /// 1 to 12, and whether it is after noon.
    hour12: Option<u32>,
    afternoon: Option<bool>,
    minute: u32,
    second: u32,
    of_day: Option<u32>,
    nanosecond: u32,
}

fn invalid(text: &str, pattern: &str) -> Error {
    Error::new("22007", format!("invalid value \"{text}\" for \"{pattern}\""))
}

fn out_of_range(text: &str) -> Error {
    Error::new("22008", format!("date/time field value out of range: \"{text}\""))
}

/// Reads what clocks show, by a pattern.
///
/// # Errors
/// A text that does not follow the pattern; a date that is none.
pub(super) fn wall_time(text: &str, pattern: &str) -> Result<NaiveDateTime> {
    let tokens = tokens(pattern)?;
    let mut parts = Parts::default();
    let mut rest = text;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Part { name, suffix, .. } => {
                rest = rest.trim_start();
                // Digits end where the next number begins.
                let next_is_number =
                    matches!(tokens.get(at + 1), Some(Token::Part { name, .. }) if !is_word(name));
                rest = parts.take(name, rest, next_is_number)?;
                if suffix.is_some() {
                    rest = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
                }
            }
            Token::Text(words) => {
                rest = words.chars().fold(rest, |rest, _| skip_one(rest));
            }
            Token::Char(c) if c.is_alphanumeric() => rest = skip_one(rest),
            Token::Char(_) => {
                // A separator stands for any, or for none.
                let skipped = rest.strip_prefix(|c: char| !c.is_alphanumeric() && c != '+');
                rest = skipped.unwrap_or(rest);
            }
        }
    }
    parts.instant(text)
}

fn skip_one(rest: &str) -> &str {
    let mut chars = rest.chars();
    chars.next();
    chars.as_str()
}

fn is_word(name: &str) -> bool {
    let words = ["MONTH", "MON", "DAY", "DY", "AM", "PM", "A.M.", "P.M."];
    words.contains(&name.to_ascii_uppercase().as_str())
}

/// Takes a number of at most so many digits from the beginning of a text.
fn number<'a>(rest: &'a str, pattern: &str, width: usize) -> Result<(u32, usize, &'a str)> {
    let digits = rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
    let value = rest[..digits].parse().map_err(|_| {
        let shown: String = rest.chars().take(width.max(1)).collect();
        invalid(&shown, pattern)
    })?;
    Ok((value, digits, &rest[digits..]))
}

impl Parts {
    fn take<'a>(&mut self, name: &str, rest: &'a str, next_is_number: bool) -> Result<&'a str> {
        if is_word(name) {
            return self.take_word(name, rest);
        }
        // Years may have more digits than their pattern, where no number follows.
        let year_width = |width: usize| if next_is_number { width } else { 9 };
        let width = match name {
            "YYYY" | "IYYY" => year_width(4),
            "YYY" | "MS" | "DDD" | "IDDD" => 3,
            "Y" | "Q" | "W" | "D" | "ID" => 1,
            "US" => 6,
            "SSSSS" | "SSSS" => 5,
            "J" => 7,
            _ => match name.strip_prefix("FF") {
                Some(digits) => digits.parse().unwrap_or(6),
                None => 2,
            },
        };
        let (value, digits, rest) = number(rest, name, width)?;
        let of_second = |width: usize| value * 10_u32.pow(9 - width as u32);
        match name {
            "YYYY" => self.year = Some(value as i32),
            "YYY" | "YY" | "Y" => self.year = Some(nearest_year(value, digits)),
            "IYYY" => self.iso_year = Some(value as i32),
            "IY" => self.iso_year = Some(nearest_year(value, digits)),
            "IW" => self.iso_week = Some(value),
            "ID" => self.iso_day = Some(value),
            "MM" => self.month = Some(value),
            "DD" => self.day = Some(value),
            "DDD" => self.day_of_year = Some(value),
            "J" => self.julian = Some(value as i32),
            "HH24" => self.hour = value,
            "HH12" | "HH" => self.hour12 = Some(value),
            "MI" => self.minute = value,
            "SS" => self.second = value,
            "SSSSS" | "SSSS" => self.of_day = Some(value),
            // Digits after a point: 5 is 500 ms, 012 is 12 ms.
            "MS" | "US" => self.nanosecond = of_second(digits),
            _ if name.starts_with("FF") => self.nanosecond = of_second(digits),
            "W" | "WW" | "CC" => {
                return Err(Error::unsupported(format!("reading by the pattern {name}")));
            }
            // Quarters and days of the week say nothing that a date needs.
            _ => {}
        }
        Ok(rest)
    }

    fn take_word<'a>(&mut self, name: &str, rest: &'a str) -> Result<&'a str> {
        let word: String = rest.chars().take_while(|c| c.is_alphabetic() || *c == '.').collect();
        let lower = word.to_lowercase();
        let after = |len: usize| rest.get(len..).unwrap_or_default();
        match name.to_ascii_uppercase().as_str() {
            "MONTH" => {
                let found = MONTHS.iter().position(|month| month.to_lowercase() == lower);
                self.month = Some(found.ok_or_else(|| invalid(&word, name))? as u32 + 1);
                Ok(after(word.len()))
            }
            "MON" => {
                let found =
                    MONTHS.iter().position(|month| lower.starts_with(&month[..3].to_lowercase()));
                self.month = Some(found.ok_or_else(|| invalid(&word, name))? as u32 + 1);
                Ok(after(3.min(word.len())))
            }
            "AM" | "PM" | "A.M." | "P.M." => {
                let letters = lower.replace('.', "");
                match letters.get(..2) {
                    Some("am") => self.afternoon = Some(false),
                    Some("pm") => self.afternoon = Some(true),
                    _ => return Err(invalid(&word, name)),
                }
                Ok(after(if lower.contains('.') { 4 } else { 2 }))
            }
            // The name of a day is read and told by its date.
            "DY" => Ok(skip_one(skip_one(skip_one(rest)))),
            _ => Ok(after(word.len())),
        }
    }

    fn instant(&self, text: &str) -> Result<NaiveDateTime> {
        let out = || out_of_range(text);
        let date = self.date().ok_or_else(out)?;
        let hour = match (self.hour12, self.afternoon) {
            (Some(hour), _) if !(1..=12).contains(&hour) => {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                return Err(Error::new("22007", message));
            }
            (Some(hour), afternoon) => hour % 12 + if afternoon == Some(true) { 12 } else { 0 },
            (None, _) => self.hour,
        };
        let time = match self.of_day {
            Some(seconds) => {
                NaiveTime::from_num_seconds_from_midnight_opt(seconds, self.nanosecond)
            }
            None => NaiveTime::from_hms_nano_opt(hour, self.minute, self.second, self.nanosecond),
        };
        Ok(date.and_time(time.ok_or_else(out)?))
    }

    fn date(&self) -> Option<NaiveDate> {
        if let Some(julian) = self.julian {
            return NaiveDate::from_num_days_from_ce_opt(julian - 1_721_425);
        }
        if let Some(week) = self.iso_week {
            let monday = NaiveDate::from_isoywd_opt(self.iso_year?, week, Weekday::Mon)?;
            let day = self.iso_day.unwrap_or(1);
            return (1..=7).contains(&day).then(|| monday + Days::new(u64::from(day - 1)));
        }
        let year = self.year.or(self.iso_year).unwrap_or(1);
        if let Some(day) = self.day_of_year {
            return NaiveDate::from_yo_opt(year, day);
        }
        NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))
    }
}

/// Returns the year nearest to 2020 that ends in these digits, as PostgreSQL takes them.
fn nearest_year(value: u32, digits: usize) -> i32 {
    let value = value as i32;
    match digits {
        0..=2 if value < 70 => 2_000 + value,
        0..=2 => 1_900 + value,
        3 if value >= 520 => 1_000 + value,
        3 => 2_000 + value,
        _ => value,
    }
}

/// Reads a date, by a pattern.
///
/// # Errors
/// As [`wall_time`].
pub(super) fn days_since_epoch(text: &str, pattern: &str) -> Result<i32> {
    const EPOCH_FROM_CE: i32 = 719_163;
    Ok(wall_time(text, pattern)?.date().num_days_from_ce() - EPOCH_FROM_CE)
}

/// Reads a number: digits, sign and point of the text; of the pattern only PR is looked at.
///
/// # Errors
/// A text without a number.
pub(super) fn to_number(text: &str, pattern: &str) -> Result<f64> {
    let trimmed = text.trim();
    let is_negative = trimmed.starts_with('-')
        || trimmed.ends_with('-')
        || (pattern.contains("PR") && text.contains('<'));
    let digits: String = text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    let wrong = |_| {
        let message = format!("invalid input syntax for type numeric: \"{text}\"");
        Error::new("22P02", message)
    };
    let number: f64 = digits.parse().map_err(wrong)?;
    Ok(if is_negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_by_pattern_as_postgresql_reads_them() {
        // to_timestamp(text, pattern) of PostgreSQL 15, in UTC.
        let cases = [
            ("2024-01-05 10:11:12", "YYYY-MM-DD HH24:MI:SS", "2024-01-05 10:11:12"),
            ("05 Dec 2000", "DD Mon YYYY", "2000-12-05 00:00:00"),
            ("2000    JUN", "YYYY MON", "2000-06-01 00:00:00"),
            ("20240105101112", "YYYYMMDDHH24MISS", "2024-01-05 10:11:12"),
            ("March 8th, 2024 02:05 pm", "Month DDth, YYYY HH12:MI am", "2024-03-08 14:05:00"),
            ("12:3", "SS:MS", "0001-01-01 00:00:12.300"),
            ("95", "YY", "1995-01-01 00:00:00"),
            ("2006-42-4", "IYYY-IW-ID", "2006-10-19 00:00:00"),
            ("2024-060", "YYYY-DDD", "2024-02-29 00:00:00"),
            ("2454687", "J", "2008-08-08 00:00:00"),
            ("03-feb-2024", "dd-mon-yyyy", "2024-02-03 00:00:00"),
            ("2024-01-05T10:11", "YYYY-MM-DD\"T\"HH24:MI", "2024-01-05 10:11:00"),
        ];
        for (text, pattern, expected) in cases {
            assert_eq!(wall_time(text, pattern).unwrap().to_string(), expected, "{text} {pattern}");
        }
        for (text, pattern) in [
            ("x", "YYYY"),
            ("2024-13-01", "YYYY-MM-DD"),
            ("13 am", "HH12 am"),
            ("10 +05", "HH24 TZH"),
            ("44 BC", "YYYY BC"),
        ] {
            assert!(wall_time(text, pattern).is_err(), "{text} {pattern}");
        }
        assert!(wall_time("a.m\u{e9}", "am").is_ok(), "no letter is cut in two");
    }

    #[test]
    fn numbers_are_read_without_what_groups_them() {
        assert_eq!(to_number("-12,454.8", "99G999D9S").unwrap(), -12_454.8);
        assert_eq!(to_number("12,454.8-", "99,999.9S").unwrap(), -12_454.8);
        assert_eq!(to_number("$1,234", "L9,999").unwrap(), 1_234.0);
        assert!(to_number("none", "999").is_err());
    }
}
