//! Reads what a session keeps: prepared statements and cursors.

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{Parsed, expect, name, standard, take, take_all, word};
use crate::error::Error;
use crate::sql::{FetchCount, Statement};

pub(super) fn prepared(statement: ast::Statement) -> Parsed<Statement> {
    use ast::Statement as Sql;
    match statement {
        Sql::Query(_) | Sql::Insert(_) | Sql::Delete(_) | Sql::Update(_) => standard(statement),
        _ => {
            Err(Error::syntax("only SELECT, VALUES, INSERT, UPDATE and DELETE are prepared").into())
        }
    }
}

/// Reads `EXECUTE name [(argument, ...)]`.
pub(super) fn execute(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let name = name(p)?;
    let mut arguments = Vec::new();
    if p.consume_token(&Token::LParen) {
        arguments = p.parse_comma_separated(Parser::parse_expr)?;
        p.expect_token(&Token::RParen)?;
    }
    Ok(Statement::Execute(name, arguments))
}

/// Reads `ALL` or a name.
pub(super) fn name_or_all(p: &mut Parser<'_>) -> Parsed<Option<String>> {
    Ok(if take(p, "ALL") { None } else { Some(name(p)?) })
}

/// Reads `DECLARE name [options] CURSOR [WITH HOLD] FOR query`.
pub(super) fn declare(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let name = name(p)?;
    loop {
        match word(p, 0).as_str() {
            "BINARY" => return Err(Error::unsupported("BINARY cursor").into()),
            "SCROLL" => return Err(Error::unsupported("SCROLL cursor").into()),
            "INSENSITIVE" | "ASENSITIVE" => p.advance_token(),
            "NO" => {
                p.advance_token();
                expect(p, "SCROLL")?;
            }
            _ => break,
        }
    }
    expect(p, "CURSOR")?;
    let hold = take_all(p, &["WITH", "HOLD"]);
    if !hold && word(p, 0) == "WITHOUT" {
        p.advance_token();
        expect(p, "HOLD")?;
    }
    expect(p, "FOR")?;
    let query = ast::Statement::Query(p.parse_query()?);
    let query = Statement::Query(Box::new(DfStatement::Statement(Box::new(query))));
    Ok(Statement::Declare(name, hold, Box::new(query)))
}

/// Reads `FETCH [direction] [FROM | IN] name`.
pub(super) fn fetch(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let mut count = FetchCount::Rows(1);
    let first = word(p, 0);
    let follows = !matches!(p.peek_nth_token_ref(1).token, Token::EOF | Token::SemiColon);
    match first.as_str() {
        "NEXT" if follows => p.advance_token(),
        "ALL" if follows => {
            p.advance_token();
            count = FetchCount::All;
        }
        "FORWARD" if follows => {
            p.advance_token();
            if take(p, "ALL") {
                count = FetchCount::All;
            } else if let Some(rows) = row_count(p)? {
                count = rows;
            }
        }
        "PRIOR" | "FIRST" | "LAST" | "ABSOLUTE" | "RELATIVE" | "BACKWARD" if follows => {
            p.advance_token();
            if !take(p, "ALL") {
                row_count(p)?;
            }
            count = FetchCount::Backward;
        }
        _ => {
            if let Some(rows) = row_count(p)? {
                count = rows;
            }
        }
    }
    if !take(p, "FROM") {
        take(p, "IN");
    }
    Ok(Statement::Fetch(name(p)?, count))
}

fn row_count(p: &mut Parser<'_>) -> Parsed<Option<FetchCount>> {
    let backward = p.consume_token(&Token::Minus);
    let Token::Number(text, _) = p.peek_token_ref().token.clone() else { return Ok(None) };
    p.advance_token();
    let rows = text.parse::<usize>();
    let rows = rows.map_err(|_| Error::syntax(format!("number of rows {text}")))?;
    Ok(Some(if backward && rows > 0 { FetchCount::Backward } else { FetchCount::Rows(rows) }))
}
