//! Time zones, and instants as people write them.
//!
//! What has no offset is meant in the session's zone. Of a wall time that there was twice, when clocks
//! went back, the second is meant; one that never was, when they went forward, is taken with the offset
//! before: both as PostgreSQL does.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{
    DateTime, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc,
};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use model::schema::TIME_ZONE;

const DAY_NS: i64 = 86_400_000_000_000;
/// The furthest offset of PostgreSQL, in hours.
const OFFSET_HOURS_MAX: f64 = 15.98;

/// A time zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// As SHOW gives it.
    name: Arc<str>,
    /// `None`: UTC.
    zone: Option<Tz>,
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".into(), zone: None }
    }
}

impl Zone {
    /// Finds a zone of the IANA database by its name, or one by its offset: `+02:00`, or hours as in
    /// `SET TIME ZONE -3.5`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().trim_matches('\'');
        const UTC: [&str; 12] = [
            "UTC", "ETC/UTC", "GMT", "ETC/GMT", "ZULU", "Z", "UCT", "ETC/UCT", "DEFAULT", "LOCAL",
            "+00", "+00:00",
        ];
        if UTC.contains(&name.to_ascii_uppercase().as_str()) {
            return Some(Self::default());
        }
        if let Ok(hours) = name.parse::<f64>()
            && !name.contains(':')
        {
            if !(-OFFSET_HOURS_MAX..=OFFSET_HOURS_MAX).contains(&hours) {
                return None;
            }
            if hours == 0.0 {
                return Some(Self::default());
            }
            let minutes = (hours.abs() * 60.0).round() as i64;
            let sign = if hours < 0.0 { '-' } else { '+' };
            return Self::named(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        Self::in_database(name)
    }

    /// Finds a zone of the IANA database in any case, or an offset with a colon.
    fn in_database(name: &str) -> Option<Self> {
        let spellings = [name.to_owned(), in_title_case(name), name.to_ascii_uppercase()];
        let found = |name: String| {
            let zone = Tz::from_str(&name).ok()?;
            Some(Self { name: name.into(), zone: Some(zone) })
        };
        spellings.into_iter().find_map(found)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether it is UTC.
    pub(crate) fn is_utc(&self) -> bool {
        self.zone.is_none()
    }

    /// Returns the name Arrow's types have it by.
    pub(crate) fn arrow(&self) -> &str {
        if self.zone.is_none() { TIME_ZONE } else { &self.name }
    }

    /// Returns the seconds its clocks are ahead of UTC at an instant, nanoseconds since the epoch.
    pub fn offset_at(&self, ns: i64) -> i32 {
        let Some(zone) = self.zone else { return 0 };
        let utc = DateTime::from_timestamp_nanos(ns).naive_utc();
        zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()
    }

    /// Returns the instant at which its clocks show a wall time; `None` beyond what 64 bits hold.
    pub(crate) fn instant(&self, wall: &NaiveDateTime) -> Option<i64> {
        let Some(zone) = self.zone else { return wall.and_utc().timestamp_nanos_opt() };
        let offset = match zone.offset_from_local_datetime(wall) {
            LocalResult::Single(offset) => offset.fix(),
            LocalResult::Ambiguous(_, later) => later.fix(),
            LocalResult::None => {
                let before = wall.checked_sub_signed(chrono::TimeDelta::days(1))?;
                zone.offset_from_utc_datetime(&before).fix()
            }
        };
        at_offset(wall, offset)
    }
}

fn at_offset(wall: &NaiveDateTime, offset: FixedOffset) -> Option<i64> {
    let utc = wall.checked_sub_offset(offset)?;
    utc.and_utc().timestamp_nanos_opt()
}

/// Reads an instant, nanoseconds since the epoch. `now_ns` is what `now`, `today` and the like count from.
pub fn parse_instant(text: &str, zone: &Zone, now_ns: i64) -> Option<i64> {
    let text = text.trim();
    // What nearly all rows have.
    if zone.zone.is_none()
        && let Ok(ns) = string_to_timestamp_nanos(text)
    {
        return Some(ns);
    }
    if let Some(found) = special(text, zone, now_ns) {
        return Some(found);
    }
    let (wall, rest) = wall_time(text)?;
    let rest = rest.trim();
    if rest.is_empty() {
        return zone.instant(&wall);
    }
    match offset(rest) {
        Some(offset) => at_offset(&wall, offset),
        None => named_after(rest)?.instant(&wall),
    }
}

/// Finds the zone that is named behind a time: by a name, not by hours.
fn named_after(text: &str) -> Option<Zone> {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    match text.to_ascii_lowercase().as_str() {
        "local" | "default" => None,
        _ => Zone::named(text),
    }
}

/// Writes a zone's name as the database has it: `america/new_york` as `America/New_York`.
fn in_title_case(name: &str) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let made = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        upper = !c.is_ascii_alphanumeric();
        made
    };
    name.chars().map(letter).collect()
}

/// Reads a wall time: an offset that stands there is passed over, as PostgreSQL does.
pub fn parse_wall(text: &str, zone: &Zone, now_ns: i64) -> Option<i64> {
    let text = text.trim();
    if let Some(found) = special(text, zone, now_ns) {
        return found.checked_add(i64::from(zone.offset_at(found)) * 1_000_000_000);
    }
    let (wall, rest) = wall_time(text)?;
    let rest = rest.trim();
    let known = rest.is_empty() || offset(rest).is_some() || named_after(rest).is_some();
    if known { wall.and_utc().timestamp_nanos_opt() } else { None }
}

/// Reads `now`, `epoch`, `today`, `tomorrow`, `yesterday`.
fn special(text: &str, zone: &Zone, now_ns: i64) -> Option<i64> {
    let day = |days: i64| {
        let wall = now_ns.checked_add(i64::from(zone.offset_at(now_ns)) * 1_000_000_000)?;
        let midnight = wall.div_euclid(DAY_NS).checked_add(days)?.checked_mul(DAY_NS)?;
        zone.instant(&DateTime::<Utc>::from_timestamp_nanos(midnight).naive_utc())
    };
    match text.to_ascii_lowercase().as_str() {
        "now" => Some(now_ns),
        "epoch" => Some(0),
        "today" => day(0),
        "tomorrow" => day(1),
        "yesterday" => day(-1),
        _ => None,
    }
}

/// Reads `+02`, `-0330`, `+05:30`, `Z`.
fn offset(text: &str) -> Option<FixedOffset> {
    if matches!(text, "Z" | "z") {
        return FixedOffset::east_opt(0);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize| digits.get(from..from + 2).map_or(Some(0), |two| two.parse().ok());
    let seconds = match digits.len() {
        1 => digits.parse::<i32>().ok()? * 3_600,
        2 | 4 | 6 => part(0)? * 3_600 + part(2)? * 60 + part(4)?,
        _ => return None,
    };
    FixedOffset::east_opt(sign * seconds)
}

/// Reads `YYYY-MM-DD`, `YYYYMMDD` or `YYYY/MM/DD`, then, if it is there, a time of the day: `HH:MM`, seconds and
/// their fraction if they are there. Returns what follows.
fn wall_time(text: &str) -> Option<(NaiveDateTime, &str)> {
    let date_end = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let (mut date, mut rest) = text.split_at(date_end);
    // A date with a zone and nothing between: 2024-01-01+02, 2024-01-01Z.
    if let Some(end) = date.find(['+', 'Z', 'z']) {
        (date, rest) = text.split_at(end);
    }
    let plain = date.replace('/', "-");
    let date = match plain.len() {
        8 if plain.bytes().all(|byte| byte.is_ascii_digit()) => {
            NaiveDate::parse_from_str(&plain, "%Y%m%d").ok()?
        }
        _ => NaiveDate::parse_from_str(&plain, "%Y-%m-%d").ok()?,
    };
    let midnight = date.and_time(NaiveTime::MIN);
    let of_day = rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start();
    if !of_day.starts_with(|c: char| c.is_ascii_digit()) {
        return Some((midnight, rest));
    }
    let end = of_day.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.' | ','));
    let (time, rest) = of_day.split_at(end.unwrap_or(of_day.len()));
    let (whole, fraction) = match time.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, fraction),
        None => (time, ""),
    };
    let mut parts = whole.split(':');
    let mut number = |max: u32| match parts.next() {
        None => Some(0),
        Some(digits) if (1..=2).contains(&digits.len()) => {
            digits.parse::<u32>().ok().filter(|number| *number <= max)
        }
        Some(_) => None,
    };
    let (hour, minute, second) = (number(24)?, number(59)?, number(60)?);
    if parts.next().is_some() || !whole.contains(':') {
        return None;
    }
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ns = format!("{fraction:0<9}").parse::<i64>().ok()?;
    let seconds = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    if seconds > 86_400 || (seconds == 86_400 && ns > 0) {
        return None;
    }
    let since = chrono::TimeDelta::seconds(seconds) + chrono::TimeDelta::nanoseconds(ns);
    Some((midnight.checked_add_signed(since)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn read(text: &str, zone: &str) -> Option<i64> {
        parse_instant(text, &Zone::named(zone).unwrap(), DAY_NS + HOUR_NS)
    }

    #[test]
    fn an_instant_has_an_offset_or_is_meant_in_the_zone() {
        let hours = |text, zone| read(text, zone).map(|ns| ns / HOUR_NS);
        assert_eq!(hours("1970-01-02", "UTC"), Some(24));
        assert_eq!(hours("1970-01-02 03:00", "UTC"), Some(27));
        assert_eq!(hours("1970-01-02 03:00 UTC", "Europe/Berlin"), Some(27));
        assert_eq!(hours("1970-01-02T03:00:00+02", "UTC"), Some(25));
        assert_eq!(hours("1970-01-02 03:00:00 -0330", "UTC"), Some(30));
        assert_eq!(hours("1970-01-02 03:00:00", "Europe/Berlin"), Some(26));
        assert_eq!(hours("1970-01-02 03:00 Asia/Shanghai", "UTC"), Some(19));
        assert_eq!(hours("19700102", "+02:00"), Some(22));
        assert_eq!(hours("1970/01/02 24:00", "UTC"), Some(48));
        assert_eq!(read("1970-01-01 00:00:00.000000001", "UTC"), Some(1));
        assert_eq!(read("1970-01-01 01:00:00.5", "+01"), Some(500_000_000));
        for (text, hours_) in [("now", 25), ("epoch", 0), ("today", 24), ("Tomorrow", 48)] {
            assert_eq!(hours(text, "UTC"), Some(hours_), "{text}");
        }
        assert_eq!(hours("yesterday", "+02:00"), Some(-2));
        let wrong = [
            "",
            "1970-13-01",
            "1970-01-01 25:00",
            "1970-01-01 3",
            "1970-01-01 03:00 Moon",
            "1970-01-01 03:00 5",
            "x",
        ];
        for text in wrong {
            assert_eq!(read(text, "UTC"), None, "{text}");
            assert_eq!(read(text, "Europe/Berlin"), None, "{text}");
        }
    }

    #[test]
    fn wall_times_around_changes_of_the_clock_are_read_as_postgresql_does() {
        // 2024-03-31 02:30 was skipped, 2024-10-27 02:30 was twice.
        let utc = |text| read(text, "UTC");
        assert_eq!(read("2024-03-31 02:30", "Europe/Berlin"), utc("2024-03-31 01:30"));
        assert_eq!(read("2024-10-27 02:30", "Europe/Berlin"), utc("2024-10-27 01:30"));
        assert_eq!(read("2024-07-01 00:00", "Europe/Berlin"), utc("2024-06-30 22:00"));
    }

    #[test]
    fn zones_have_names_or_offsets() {
        assert_eq!(Zone::named("utc").unwrap().name(), "UTC");
        assert_eq!(Zone::named("-3.5").unwrap().name(), "-03:30");
        assert_eq!(Zone::named("+02:00").unwrap().offset_at(0), 7_200);
        assert_eq!(Zone::named("Asia/Kolkata").unwrap().offset_at(0), 19_800);
        assert_eq!(Zone::named("america/new_york").unwrap().name(), "America/New_York");
        assert!(Zone::named("Mars/Olympus").is_none());
        assert!(Zone::named("99").is_none());
    }
}
