//! Options of a tenant: what it may have, and how much it may ask for in a time.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use meta::{ObjectLimits, Rate, RateGroup, Rates};
use model::size::parse_bytes;
use model::time::{Span, parse_span};
use serde_json::Value;

use super::{Parsed, name, skip, word};
use crate::error::{Error, Result};
use crate::sql::definitions::TenantOptions;

/// The parts of a rate, in the order of [`part`].
const PARTS: [&str; 6] = [
    "remote_max",
    "remote_initial",
    "remote_refill",
    "remote_interval",
    "local_max",
    "local_initial",
];

/// The parts of a rate as they are read.
type Parts = [Option<u64>; 6];

/// Reads `comment = '…', drop_after = '7d', object_config …, coord_queries …`.
pub(super) fn options(p: &mut Parser<'_>) -> Parsed<TenantOptions> {
    let mut options = TenantOptions::default();
    loop {
        let option = name(p)?;
        skip(p, &Token::Eq);
        match option.as_str() {
            "comment" => options.comment = Some(p.parse_literal_string()?),
            "drop_after" => match span(&p.parse_literal_string()?)? {
                Span::Ns(ns) => options.drop_after = Some(ns),
                Span::Infinite => {
                    return Err(Error::new("22023", "drop_after must be finite").into());
                }
            },
            "object_config" => options.limits = Some(object_limits(p)?),
            "_limiter" => limiter(&p.parse_literal_string()?, &mut options)?,
            other => {
                let Some(group) = RateGroup::ALL.into_iter().find(|one| one.name() == other) else {
                    return Err(Error::unsupported(format!("tenant option {other}")).into());
                };
                let rate = rate(p, group)?;
                options.rates.get_or_insert_default().insert(group, rate);
            }
        }
        if !p.consume_token(&Token::Comma) {
            return Ok(options);
        }
    }
}

fn span(text: &str) -> Result<Span> {
    parse_span(text).map_err(|error| Error::new("22023", error))
}

/// Sets a limit by its name.
fn set_limit(limits: &mut ObjectLimits, name: &str, value: u64) -> Result<()> {
    let small = || u32::try_from(value).map_err(|_| Error::new("22003", "a limit out of range"));
    let limit = match name {
        "max_query_memory" => {
            limits.query_memory = Some(value);
            return Ok(());
        }
        "max_series" => {
            limits.series = Some(value);
            return Ok(());
        }
        "max_users_number" => &mut limits.users,
        "max_databases" => &mut limits.databases,
        "max_shard_number" => &mut limits.shards,
        "max_replicate_number" => &mut limits.replicas,
        "max_retention_time" => &mut limits.retention_days,
        "max_running_statements" => &mut limits.statements,
        other => {
            let hint = "limits are max_users_number, max_databases, max_shard_number, \
                        max_replicate_number, max_retention_time, max_running_statements, \
                        max_query_memory, max_series";
            return Err(Error::syntax(format!("unknown limit {other}")).hint(hint));
        }
    };
    *limit = Some(small()?);
    Ok(())
}

/// Reads `max_users_number = 1 max_databases = 3 …`, with blanks between.
fn object_limits(p: &mut Parser<'_>) -> Parsed<ObjectLimits> {
    let mut limits = ObjectLimits::default();
    while let option @ 1.. = word(p, 0).len() {
        let name = word(p, 0).to_lowercase();
        debug_assert_eq!(name.len(), option);
        p.advance_token();
        skip(p, &Token::Eq);
        let value = amount(p)?;
        set_limit(&mut limits, &name, value)?;
    }
    if limits == ObjectLimits::default() {
        return Err(Error::syntax("object_config without limits").into());
    }
    Ok(limits)
}

/// Reads a number, or bytes as `'64MiB'`.
fn amount(p: &mut Parser<'_>) -> Parsed<u64> {
    if let Token::SingleQuotedString(text) = &p.peek_token_ref().token {
        let bytes = parse_bytes(text).map_err(|error| Error::new("22023", error));
        p.advance_token();
        return Ok(bytes?);
    }
    Ok(p.parse_literal_uint()?)
}

/// Reads `remote_max = 100 remote_refill = 10 …`, with blanks between.
fn rate(p: &mut Parser<'_>, group: RateGroup) -> Parsed<Rate> {
    let mut parts = Parts::default();
    loop {
        let part = word(p, 0).to_lowercase();
        if part.is_empty() {
            return Ok(whole(group, parts)?);
        }
        let Some(at) = PARTS.iter().position(|one| *one == part) else {
            let hint = format!("a rate has {}", PARTS.join(", "));
            return Err(Error::syntax(format!("unknown part of a rate {part}")).hint(hint).into());
        };
        p.advance_token();
        skip(p, &Token::Eq);
        parts[at] = Some(amount(p)?);
    }
}

/// Makes a rate of what was said of it.
fn whole(group: RateGroup, parts: Parts) -> Result<Rate> {
    let [Some(remote_max), remote_initial, Some(remote_refill), Some(interval), local_max, local] =
        parts
    else {
        let message =
            format!("{} needs remote_max, remote_refill and remote_interval", group.name());
        return Err(Error::syntax(message));
    };
    if remote_max == 0 || interval == 0 {
        let message = format!("remote_max and remote_interval of {} must be above 0", group.name());
        return Err(Error::new("22023", message));
    }
    Ok(Rate {
        remote_max,
        remote_initial: remote_initial.unwrap_or(remote_max),
        remote_refill,
        remote_interval_ms: interval,
        local_max: local_max.unwrap_or(0),
        local_initial: local.unwrap_or(0),
    })
}

/// Reads limits and rates as the JSON of the original:
/// `{"object_config": {…}, "request_config": {"coord_queries": {"remote_bucket": {…}, "local_bucket": {…}}}}`.
fn limiter(text: &str, options: &mut TenantOptions) -> Result<()> {
    let invalid = |what: &str| Error::new("22023", format!("_limiter: {what}"));
    let json: Value = serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
    let fields = json.as_object().ok_or_else(|| invalid("an object is expected"))?;
    let (mut limits, mut rates) = (ObjectLimits::default(), Rates::new());
    for (field, value) in fields {
        let inner = match value {
            Value::Null => continue,
            Value::Object(inner) => inner,
            _ => return Err(invalid(&format!("{field} must be an object"))),
        };
        match field.as_str() {
            "object_config" => {
                for (name, value) in inner.iter().filter(|(_, value)| !value.is_null()) {
                    let value = value.as_u64().ok_or_else(|| invalid("a limit is a number"))?;
                    set_limit(&mut limits, name, value)?;
                }
            }
            "request_config" => {
                for (name, value) in inner.iter().filter(|(_, value)| !value.is_null()) {
                    let group = RateGroup::ALL.into_iter().find(|one| one.name() == name);
                    let group = group.ok_or_else(|| invalid(&format!("unknown group {name}")))?;
                    let part = |bucket: &str, part: &str| value.get(bucket)?.get(part)?.as_u64();
                    let parts = [
                        part("remote_bucket", "max"),
                        part("remote_bucket", "initial"),
                        part("remote_bucket", "refill"),
                        part("remote_bucket", "interval"),
                        part("local_bucket", "max"),
                        part("local_bucket", "initial"),
                    ];
                    rates.insert(group, whole(group, parts)?);
                }
            }
            other => return Err(invalid(&format!("unknown part {other}"))),
        }
    }
    options.limits = Some(limits);
    options.rates = Some(rates);
    Ok(())
}
