//! Settings of a session: SET, SHOW, RESET. An unknown name is an error, never stored in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Consistency, ReadFrom};

use crate::error::{Error, Result, nearest};
use crate::instants::Zone;
use crate::sql::Access;

/// A setting that can be changed, its default, and whether clients are told of changes.
struct Known {
    name: &'static str,
    default: &'static str,
    reported: Option<&'static str>,
    check: fn(&str) -> std::result::Result<String, String>,
}

/// Settings whose value is a fact of the server.
const FIXED: [(&str, &str); 11] = [
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("server_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("transaction_isolation", "read committed"),
    ("default_transaction_isolation", "read committed"),
    ("max_identifier_length", "255"),
    ("max_index_keys", "256"),
    ("in_hot_standby", "off"),
    ("scram_iterations", "15000"),
];

/// Whether the block of statements may change nothing.
pub(crate) const READ_ONLY: &str = "transaction_read_only";
/// The same of blocks to come.
pub(crate) const READ_ONLY_DEFAULT: &str = "default_transaction_read_only";
/// From how many rows on other nodes work on what they read, rather than send it.
pub(crate) const STAGE_ROWS: &str = "min_remote_stage_rows";
/// What a write waits for.
const CONSISTENCY: &str = "consistency";
/// Which replicas are read.
const READ_FROM: &str = "read_from";
/// How old what any replica tells may be.
const STALENESS: &str = "max_staleness";
/// The most letters of the name an application gives itself.
const APPLICATION_NAME_MAX: usize = 63;

/// The version of PostgreSQL whose protocol and dialect is spoken, then ours.
pub(crate) const SERVER_VERSION: &str = concat!("15.0 (CnosDB ", env!("CARGO_PKG_VERSION"), ")");

const KNOWN: [Known; 21] = [
    Known {
        name: "application_name",
        default: "",
        reported: Some("application_name"),
        check: application,
    },
    Known { name: "bytea_output", default: "hex", reported: None, check: |v| only(v, &["hex"]) },
    Known {
        name: "client_encoding",
        default: "UTF8",
        reported: Some("client_encoding"),
        check: utf8,
    },
    Known { name: "client_min_messages", default: "notice", reported: None, check: any },
    Known {
        name: "datestyle",
        default: "ISO, MDY",
        reported: Some("DateStyle"),
        check: date_style,
    },
    Known {
        name: CONSISTENCY,
        default: "quorum",
        reported: None,
        check: |v| only(v, &["any", "one", "quorum", "all"]),
    },
    Known { name: READ_ONLY_DEFAULT, default: "off", reported: None, check: switch },
    Known { name: "extra_float_digits", default: "1", reported: None, check: any },
    Known {
        name: "idle_in_transaction_session_timeout",
        default: "0",
        reported: None,
        check: millis,
    },
    Known {
        name: "intervalstyle",
        default: "postgres",
        reported: Some("IntervalStyle"),
        check: |v| only(v, &["postgres"]),
    },
    Known { name: "jit", default: "off", reported: None, check: any },
    Known { name: "lock_timeout", default: "0", reported: None, check: millis },
    Known { name: STALENESS, default: "0", reported: None, check: millis },
    Known { name: STAGE_ROWS, default: "10000", reported: None, check: rows },
    Known {
        name: READ_FROM,
        default: "leader",
        reported: None,
        check: |v| only(v, &["leader", "any"]),
    },
    Known { name: "row_security", default: "on", reported: None, check: any },
    Known { name: "search_path", default: "public", reported: None, check: any },
    Known { name: "statement_timeout", default: "3600000", reported: None, check: millis },
    Known {
        name: "synchronous_commit",
        default: "on",
        reported: None,
        check: |v| only(v, &["on"]),
    },
    Known { name: READ_ONLY, default: "off", reported: None, check: switch },
    Known { name: "timezone", default: "UTC", reported: Some("TimeZone"), check: zone },
];

fn any(value: &str) -> std::result::Result<String, String> {
    Ok(value.to_owned())
}

fn rows(value: &str) -> std::result::Result<String, String> {
    let rows: Option<u32> = value.parse().ok();
    rows.map(|rows| rows.to_string()).ok_or_else(|| "a number of rows is expected".to_owned())
}

fn only(value: &str, allowed: &[&str]) -> std::result::Result<String, String> {
    let found = allowed.iter().find(|allowed| allowed.eq_ignore_ascii_case(value));
    found
        .map(|found| (*found).to_owned())
        .ok_or_else(|| format!("only {} is supported", allowed.join(", ")))
}

fn switch(value: &str) -> std::result::Result<String, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok("on".to_owned()),
        "off" | "false" | "no" | "0" => Ok("off".to_owned()),
        _ => Err("on or off is expected".to_owned()),
    }
}

/// Cuts a name to what PostgreSQL keeps of it.
fn application(value: &str) -> std::result::Result<String, String> {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    Ok(value.chars().take(APPLICATION_NAME_MAX).map(shown).collect())
}

fn utf8(value: &str) -> std::result::Result<String, String> {
    match value.to_ascii_uppercase().replace(['-', '_'], "").as_str() {
        "UTF8" | "UNICODE" => Ok("UTF8".to_owned()),
        // What libpq sends where the client's locale says nothing.
        "SQLASCII" => Ok("UTF8".to_owned()),
        _ => Err("only UTF8 is supported".to_owned()),
    }
}

fn date_style(value: &str) -> std::result::Result<String, String> {
    let first = value.split(',').next().unwrap_or_default().trim();
    if first.eq_ignore_ascii_case("iso") {
        Ok("ISO, MDY".to_owned())
    } else {
        Err("only ISO is supported".to_owned())
    }
}

fn zone(value: &str) -> std::result::Result<String, String> {
    let found = Zone::named(value).map(|zone| zone.name().to_owned());
    found.ok_or_else(|| "name a zone as in Europe/Berlin, or hours ahead of UTC".to_owned())
}

/// Reads a duration: milliseconds, or a number with ms, s, min, h.
fn millis(value: &str) -> std::result::Result<String, String> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let scale = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(
                "a number of milliseconds is expected, or one with ms, s, min, h".to_owned()
            );
        }
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    number.map(|number| number.to_string()).ok_or_else(|| "a number is expected".to_owned())
}

/// The settings of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    changed: BTreeMap<&'static str, String>,
    reports: Vec<(&'static str, String)>,
    /// What was set when the block of statements began, and what holds after it.
    block: Option<Block>,
}

/// Settings around a block of statements.
#[derive(Clone, Debug)]
struct Block {
    before: BTreeMap<&'static str, String>,
    /// What was set for the block alone: the values before.
    local: BTreeMap<&'static str, Option<String>>,
}

fn known(name: &str) -> Result<&'static Known> {
    let lower = name.to_ascii_lowercase();
    if let Some(known) = KNOWN.iter().find(|known| known.name == lower) {
        return Ok(known);
    }
    if FIXED.iter().any(|(fixed, _)| *fixed == lower) {
        return Err(Error::new("55P02", format!("parameter \"{lower}\" cannot be changed")));
    }
    Err(unrecognized(name))
}

fn unrecognized(name: &str) -> Error {
    let error = Error::new("42704", format!("unrecognized configuration parameter \"{name}\""));
    let names = KNOWN.iter().map(|known| known.name).chain(FIXED.iter().map(|(name, _)| *name));
    match nearest(&name.to_ascii_lowercase(), names) {
        Some(near) => error.hint(format!("perhaps you meant \"{near}\"")),
        None => error,
    }
}

impl Settings {
    /// Changes a setting; `None` gives it its default.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let known = known(name)?;
        // Only the first name counts: one database is searched, then pg_catalog.
        let first = value.map(|path| path.split(',').next().unwrap_or_default());
        let first = first.map(|name| name.trim().trim_matches(['"', '\'']));
        let value = match known.name {
            "search_path" => first.filter(|name| !name.is_empty() && *name != "$user"),
            _ => value,
        };
        match value {
            None => drop(self.changed.remove(known.name)),
            Some(value) => {
                let checked = (known.check)(value).map_err(|reason| {
                    let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
                    Error::new("22023", message).hint(reason)
                })?;
                self.changed.insert(known.name, checked);
            }
        }
        let report = known.reported.map(|reported| (reported, self.value(known).to_owned()));
        self.reports.extend(report);
        Ok(())
    }

    /// Notes what is set, as a block of statements begins that may do as it says, or as is usual.
    pub(crate) fn begin_block(&mut self, access: Option<Access>) {
        let before = self.changed.clone();
        let usual = self.changed.get(READ_ONLY_DEFAULT).cloned();
        let access = access.map(|access| access.read_only().to_owned()).or(usual);
        self.block = Some(Block { before, local: BTreeMap::from([(READ_ONLY, None)]) });
        match access {
            Some(access) => drop(self.changed.insert(READ_ONLY, access)),
            None => drop(self.changed.remove(READ_ONLY)),
        }
    }

    /// Changes a setting until the block ends.
    pub(crate) fn set_local(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let known = known(name)?;
        let before = self.changed.get(known.name).cloned();
        if known.name == READ_ONLY && self.is_read_only() && self.block.is_some() {
            let again = value.is_some_and(|value| switch(value).is_ok_and(|value| value == "on"));
            if !again {
                let message =
                    "cannot set transaction read-write mode inside a read-only transaction";
                return Err(Error::new("25001", message));
            }
        }
        self.set(name, value)?;
        if let Some(block) = &mut self.block {
            block.local.entry(known.name).or_insert(before);
        }
        Ok(())
    }

    /// Ends a block: what was set for it alone is as before, all of it where it is not kept.
    pub(crate) fn end_block(&mut self, keep: bool) {
        let Some(Block { before, local }) = self.block.take() else { return };
        let old = std::mem::take(&mut self.changed);
        self.changed = if keep { old.clone() } else { before };
        for (name, value) in local.into_iter().filter(|_| keep) {
            match value {
                Some(value) => drop(self.changed.insert(name, value)),
                None => drop(self.changed.remove(name)),
            }
        }
        for known in &KNOWN {
            if let Some(reported) = known.reported
                && old.get(known.name) != self.changed.get(known.name)
            {
                let value = self.value(known).to_owned();
                self.reports.push((reported, value));
            }
        }
    }

    /// Returns the settings that changed since the last call and that clients follow.
    pub(crate) fn take_reports(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.reports)
    }

    /// Returns the zone that instants are read and written in.
    pub(crate) fn zone(&self) -> Zone {
        self.changed.get("timezone").and_then(|name| Zone::named(name)).unwrap_or_default()
    }

    fn value<'a>(&'a self, known: &'a Known) -> &'a str {
        let set = |name: &str| self.changed.get(name).map(String::as_str);
        let in_block = self.block.is_some();
        let inherited =
            if known.name == READ_ONLY && !in_block { set(READ_ONLY_DEFAULT) } else { None };
        set(known.name).or(inherited).unwrap_or(known.default)
    }

    /// Returns whether nothing may be changed now.
    pub(crate) fn is_read_only(&self) -> bool {
        self.get(READ_ONLY).is_ok_and(|value| value == "on")
    }

    /// Returns the value of a setting.
    pub(crate) fn get(&self, name: &str) -> Result<String> {
        let lower = name.to_ascii_lowercase();
        if let Some((_, value)) = FIXED.iter().find(|(fixed, _)| *fixed == lower) {
            return Ok((*value).to_owned());
        }
        let known =
            KNOWN.iter().find(|known| known.name == lower).ok_or_else(|| unrecognized(name))?;
        Ok(self.value(known).to_owned())
    }

    /// Returns all settings by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let fixed = FIXED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let known = KNOWN.iter().map(|known| (known.name.to_owned(), self.value(known).to_owned()));
        let mut all: Vec<_> = fixed.chain(known).collect();
        all.sort();
        all
    }

    /// Returns what every client is told when it connects.
    pub(crate) fn reported(&self) -> Vec<(String, String)> {
        let fixed = [
            "server_version",
            "server_encoding",
            "integer_datetimes",
            "standard_conforming_strings",
            "in_hot_standby",
        ];
        let mut reported: Vec<_> = FIXED
            .iter()
            .filter(|(name, _)| fixed.contains(name))
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        reported.extend(KNOWN.iter().filter_map(|known| {
            known.reported.map(|name| (name.to_owned(), self.value(known).to_owned()))
        }));
        reported
    }

    /// All settings but the search path to their defaults.
    pub(crate) fn reset(&mut self) {
        self.changed.retain(|name, _| *name == "search_path");
    }

    /// Returns what writes wait for.
    pub(crate) fn consistency(&self) -> Consistency {
        match self.get(CONSISTENCY).as_deref() {
            Ok("any") => Consistency::Any,
            Ok("one") => Consistency::One,
            Ok("all") => Consistency::All,
            _ => Consistency::Quorum,
        }
    }

    /// Returns which replicas are read.
    pub(crate) fn read_from(&self) -> ReadFrom {
        if self.get(READ_FROM).as_deref() != Ok("any") {
            return ReadFrom::Leader;
        }
        let millis = self.get(STALENESS).ok().and_then(|millis| millis.parse().ok());
        ReadFrom::Any { stale: Duration::from_millis(millis.unwrap_or(0)) }
    }

    /// Returns how long a statement may take; `None` is for ever.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        let millis = self.get("statement_timeout").ok()?.parse().ok()?;
        (millis > 0).then(|| Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_bad_values_are_refused() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("serch_path", Some("x")).unwrap_err().sqlstate, "42704");
        assert_eq!(settings.set("server_version", Some("9")).unwrap_err().sqlstate, "55P02");
        assert_eq!(settings.set("client_encoding", Some("LATIN1")).unwrap_err().sqlstate, "22023");
        assert_eq!(settings.set("statement_timeout", Some("soon")).unwrap_err().sqlstate, "22023");
        settings.set("statement_timeout", Some("2s")).unwrap();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        settings.set("statement_timeout", Some("0")).unwrap();
        assert_eq!(settings.statement_timeout(), None);
        settings.set("TimeZone", Some("Etc/UTC")).unwrap();
        assert_eq!(settings.take_reports(), [("TimeZone", "UTC".to_owned())]);
        settings.set("search_path", Some("\"weather\", public")).unwrap();
        assert_eq!(settings.get("search_path").unwrap(), "weather");
    }
}
