//! Reads CREATE EXTERNAL TABLE, as DataFusion writes it.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::definition::{if_not_exists, names};
use super::{Parsed, expect, name, object_name, skip, take_all, word};
use crate::error::Error;
use crate::sql::definitions::Definition;
use crate::sql::{FileOptions, NewExternal, Statement};

/// Reads what stands behind CREATE EXTERNAL.
pub(super) fn create(p: &mut Parser<'_>) -> Parsed<Statement> {
    expect(p, "TABLE")?;
    let if_not_exists = if_not_exists(p);
    let name = object_name(p)?;
    let (columns, constraints) = p.parse_columns()?;
    if !constraints.is_empty() {
        return Err(Error::unsupported("a constraint of an external table").into());
    }
    let (mut format, mut url, mut partitions) = (Vec::new(), None, Vec::new());
    let (mut header, mut reached) = ("false".to_owned(), Vec::new());
    loop {
        let put = |name: &str, value: String| (name.to_owned(), value);
        if take_all(p, &["STORED", "AS"]) {
            format.push(put("type", self::name(p)?));
        } else if take_all(p, &["LOCATION"]) {
            url = Some(p.parse_literal_string()?);
        } else if take_all(p, &["WITH", "HEADER", "ROW"]) {
            "true".clone_into(&mut header);
        } else if take_all(p, &["DELIMITER"]) {
            format.push(put("delimiter", p.parse_literal_string()?));
        } else if take_all(p, &["COMPRESSION", "TYPE"]) {
            format.push(put("file_compression_type", self::name(p)?));
        } else if take_all(p, &["PARTITIONED", "BY"]) {
            partitions = names(p)?;
        } else if take_all(p, &["OPTIONS"]) {
            options(p, (&mut format, &mut reached), &mut header)?;
        } else if word(p, 0) == "WITH" {
            return Err(Error::unsupported("WITH ORDER").into());
        } else {
            break;
        }
    }
    if !format.iter().any(|(name, _)| name == "type") {
        return Err(Error::syntax("CREATE EXTERNAL TABLE needs STORED AS").into());
    }
    let url = url.ok_or_else(|| Error::syntax("CREATE EXTERNAL TABLE needs LOCATION"))?;
    format.push(("with_header".to_owned(), header));
    let options = reached;
    let new = NewExternal { name, if_not_exists, columns, url, format, partitions, options };
    Ok(Statement::Definition(Box::new(Definition::CreateExternal(new))))
}

/// Reads `('name' 'value', …)`.
fn options(
    p: &mut Parser<'_>,
    (format, reached): (&mut FileOptions, &mut FileOptions),
    header: &mut String,
) -> Parsed<()> {
    p.expect_token(&Token::LParen)?;
    while !p.consume_token(&Token::RParen) {
        let option = p.parse_literal_string()?;
        skip(p, &Token::Eq);
        let value = p.parse_literal_string()?;
        match option.strip_prefix("format.").unwrap_or(&option) {
            "has_header" => *header = value.to_ascii_lowercase(),
            "delimiter" => format.push(("delimiter".to_owned(), value)),
            "compression" => format.push(("file_compression_type".to_owned(), value)),
            "region" | "endpoint_url" | "gcs_base_url" | "account" => {
                reached.push((option.clone(), value));
            }
            _ => {
                let message = format!("option '{option}' of an external table");
                let hint = "options are format.has_header, format.delimiter, format.compression, \
                            region, endpoint_url, gcs_base_url, account; keys are not kept";
                return Err(Error::unsupported(message).hint(hint).into());
            }
        }
        skip(p, &Token::Comma);
    }
    Ok(())
}
