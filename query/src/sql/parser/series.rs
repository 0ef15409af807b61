//! Reads SHOW SERIES, SHOW TAG VALUES, SHOW TAG KEYS and SHOW FIELD KEYS, what stands behind SHOW.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{Parsed, expect, name, object_name, take};
use crate::sql::{SeriesShown, Show, TagKeys};

/// Reads `[ON db] FROM t [WHERE …] [ORDER BY …] [LIMIT n] [OFFSET n]`.
pub(super) fn series(p: &mut Parser<'_>) -> Parsed<Show> {
    let database = on(p)?;
    expect(p, "FROM")?;
    let table = object_name(p)?;
    Ok(Show::Series(Box::new(conditions(p, (database, table))?)))
}

/// Reads `KEYS [ON db] [FROM t]`, and behind TAG `VALUES [ON db] FROM t WITH KEY … [WHERE …] …`.
pub(super) fn keys(p: &mut Parser<'_>, what: &str) -> Parsed<Show> {
    if what == "TAG" && take(p, "VALUES") {
        let database = on(p)?;
        expect(p, "FROM")?;
        let table = object_name(p)?;
        let keys = tag_keys(p)?;
        return Ok(Show::TagValues(Box::new(conditions(p, (database, table))?), keys));
    }
    expect(p, "KEYS")?;
    let database = on(p)?;
    let table = if take(p, "FROM") { Some(object_name(p)?) } else { None };
    Ok(match what {
        "TAG" => Show::TagKeys(database, table),
        _ => Show::FieldKeys(database, table),
    })
}

fn on(p: &mut Parser<'_>) -> Parsed<Option<String>> {
    if take(p, "ON") { name(p).map(Some) } else { Ok(None) }
}

/// Reads `WITH KEY = k | != k | <> k | IN (…) | NOT IN (…)`.
fn tag_keys(p: &mut Parser<'_>) -> Parsed<TagKeys> {
    expect(p, "WITH")?;
    expect(p, "KEY")?;
    let others = if p.consume_token(&Token::Eq) {
        false
    } else if p.consume_token(&Token::Neq) {
        true
    } else {
        let others = take(p, "NOT");
        expect(p, "IN")?;
        p.expect_token(&Token::LParen)?;
        let mut names = vec![key(p)?];
        while p.consume_token(&Token::Comma) {
            names.push(key(p)?);
        }
        p.expect_token(&Token::RParen)?;
        return Ok(TagKeys { names, others });
    };
    Ok(TagKeys { names: vec![key(p)?], others })
}

/// Reads a name of a tag, which may stand as a text.
fn key(p: &mut Parser<'_>) -> Parsed<String> {
    if let Token::SingleQuotedString(text) = &p.peek_token_ref().token {
        let text = text.clone();
        p.advance_token();
        return Ok(text);
    }
    name(p)
}

/// Reads what may follow: the condition, the order, the limit.
fn conditions(
    p: &mut Parser<'_>,
    (database, table): (Option<String>, Vec<String>),
) -> Parsed<SeriesShown> {
    let selection = if take(p, "WHERE") { Some(p.parse_expr()?) } else { None };
    let mut order_by = None;
    if take(p, "ORDER") {
        expect(p, "BY")?;
        let order = p.parse_comma_separated(Parser::parse_order_by_expr)?;
        let kind = ast::OrderByKind::Expressions(order);
        order_by = Some(ast::OrderBy { kind, interpolate: None });
    }
    let limit = if take(p, "LIMIT") { Some(p.parse_expr()?) } else { None };
    let offset = if take(p, "OFFSET") {
        Some(ast::Offset { value: p.parse_expr()?, rows: ast::OffsetRows::None })
    } else {
        None
    };
    let limit = (limit.is_some() || offset.is_some()).then_some(ast::LimitClause::LimitOffset {
        limit,
        offset,
        limit_by: Vec::new(),
    });
    Ok(SeriesShown { database, table, selection, order_by, limit })
}
