//! Time ranges, and durations as people write them.

use serde::{Deserialize, Serialize};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Units of a duration, longest first: names accepted, nanoseconds.
const UNITS: &[(&[&str], i64)] = &[
    (&["y", "year", "years"], 365 * DAY),
    (&["M", "month", "months", "mon"], 30 * DAY),
    (&["w", "week", "weeks"], 7 * DAY),
    (&["d", "day", "days"], DAY),
    (&["h", "hr", "hour", "hours"], 3_600 * SECOND),
    (&["m", "min", "minute", "minutes"], 60 * SECOND),
    (&["s", "sec", "second", "seconds"], SECOND),
    (&["ms", "msec", "millis"], 1_000_000),
    (&["us", "usec", "micros"], 1_000),
    (&["ns", "nsec", "nanos"], 1),
];

/// An inclusive range of instants, in nanoseconds since the Unix epoch. Empty where `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// First instant inside.
    pub min: i64,
    /// Last instant inside.
    pub max: i64,
}

impl TimeRange {
    /// Every instant.
    pub const ALL: Self = Self { min: i64::MIN, max: i64::MAX };

    /// Returns whether the instant lies inside.
    pub fn contains(&self, time: i64) -> bool {
        self.min <= time && time <= self.max
    }

    /// Returns whether the two share an instant.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    /// Returns what the two share.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }

    /// Returns whether no instant lies inside.
    pub fn is_empty(&self) -> bool {
        self.min > self.max
    }
}

/// A length of time, or none at all (`inf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Span {
    /// Without end.
    Infinite,
    /// Nanoseconds, above zero.
    Ns(i64),
}

/// Reads a duration such as `'1d'`, `'2y1M'`, `'1h 30m'`, `'inf'`; a bare number means days.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_span(text: &str) -> Result<Span, String> {
    let trimmed = text.trim();
    if trimmed.eq_ignore_ascii_case("inf") {
        return Ok(Span::Infinite);
    }
    let mut rest = trimmed;
    let mut total: i64 = 0;
    if rest.is_empty() {
        return Err("empty duration".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: i64 =
            number.parse().map_err(|_| format!("invalid duration \"{text}\": number expected"))?;
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let bare = rest == trimmed && unit.is_empty() && tail.is_empty();
        let scale = if bare { Some(DAY) } else { unit_ns(unit) };
        let scale =
            scale.ok_or_else(|| format!("invalid duration \"{text}\": unknown unit \"{unit}\""))?;
        total = number
            .checked_mul(scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("duration \"{text}\" is too long"))?;
        rest = tail.trim_start();
    }
    if total <= 0 {
        return Err(format!("duration \"{text}\" must be above zero"));
    }
    Ok(Span::Ns(total))
}

fn unit_ns(unit: &str) -> Option<i64> {
    let find =
        |unit: &str| UNITS.iter().find(|(names, _)| names.contains(&unit)).map(|(_, scale)| *scale);
    find(unit).or_else(|| find(&unit.to_ascii_lowercase()))
}

/// Writes a duration in words, such as `3months 8days 16h 19m 12s`; a month is 30.44 days and a
/// year 365.25 days here, as its users know it from `DESCRIBE DATABASE`.
pub fn span_in_words(span: Span) -> String {
    let Span::Ns(total) = span else { return "INF".to_owned() };
    let mut seconds = total / SECOND;
    let mut words = Vec::new();
    let whole = [("year", 31_557_600), ("month", 2_630_016), ("day", 86_400)];
    for (name, length) in whole {
        let count = seconds / length;
        seconds %= length;
        if count > 0 {
            words.push(format!("{count}{name}{}", if count > 1 { "s" } else { "" }));
        }
    }
    for (name, length) in [("h", 3_600), ("m", 60), ("s", 1)] {
        let count = seconds / length;
        seconds %= length;
        if count > 0 {
            words.push(format!("{count}{name}"));
        }
    }
    let mut rest = total % SECOND;
    for (name, length) in [("ms", 1_000_000), ("us", 1_000), ("ns", 1)] {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            words.push(format!("{count}{name}"));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("1d", DAY),
            ("10", 10 * DAY),
            ("2y1M", 760 * DAY),
            ("1h 30m", 5_400 * SECOND),
            ("250ms", 250_000_000),
            ("3 weeks", 21 * DAY),
        ];
        for (text, ns) in cases {
            assert_eq!(parse_span(text), Ok(Span::Ns(ns)), "{text}");
        }
        assert_eq!(parse_span("INF"), Ok(Span::Infinite));
        for bad in ["", "d", "1x", "-1d", "0d", "1d2", "99999999999y"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_in_words() {
        let days = |n: i64| Span::Ns(n * DAY);
        assert_eq!(span_in_words(days(100)), "3months 8days 16h 19m 12s");
        assert_eq!(span_in_words(days(1)), "1day");
        assert_eq!(span_in_words(Span::Infinite), "INF");
        assert_eq!(span_in_words(Span::Ns(1_500_000)), "1ms 500us");
    }
}
