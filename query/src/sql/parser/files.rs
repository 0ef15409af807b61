//! Reads COPY INTO.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{Parsed, expect, name, object_name, skip, word};
use crate::error::Error;
use crate::sql::{CopyInto, CopyIntoWhat, FileOptions, Statement, of_query, select_all};

/// Reads `COPY INTO table [(columns)] FROM 'url' …` and `COPY INTO 'url' FROM table | (query) …`.
pub(super) fn copy_into(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    p.advance_token();
    let (url, what) = if matches!(p.peek_token_ref().token, Token::SingleQuotedString(_)) {
        let url = p.parse_literal_string()?;
        expect(p, "FROM")?;
        (url, CopyIntoWhat::Location(Box::new(source(p)?)))
    } else {
        let table = object_name(p)?;
        let mut columns = Vec::new();
        if p.consume_token(&Token::LParen) {
            columns.push(name(p)?);
            while p.consume_token(&Token::Comma) {
                columns.push(name(p)?);
            }
            p.expect_token(&Token::RParen)?;
        }
        expect(p, "FROM")?;
        (p.parse_literal_string()?, CopyIntoWhat::Table { table, columns })
    };
    let mut copy =
        CopyInto { url, what, connection: Vec::new(), format: Vec::new(), options: Vec::new() };
    loop {
        let clause = word(p, 0);
        let options = match clause.as_str() {
            "CONNECTION" => &mut copy.connection,
            "FILE_FORMAT" => &mut copy.format,
            "COPY_OPTIONS" => &mut copy.options,
            _ => return Ok(Statement::CopyInto(Box::new(copy))),
        };
        if !options.is_empty() {
            return Err(Error::syntax(format!("{clause} is given twice")).into());
        }
        p.advance_token();
        skip(p, &Token::Eq);
        *options = file_options(p)?;
    }
}

fn source(p: &mut Parser<'_>) -> Parsed<Statement> {
    if p.consume_token(&Token::LParen) {
        let query = p.parse_query()?;
        p.expect_token(&Token::RParen)?;
        return Ok(of_query(query));
    }
    let table = object_name(p)?;
    select_all(&table).ok_or_else(|| Error::syntax("a table is expected").into())
}

/// Reads `(name = value, …)`.
fn file_options(p: &mut Parser<'_>) -> Parsed<FileOptions> {
    p.expect_token(&Token::LParen)?;
    let mut options: FileOptions = Vec::new();
    while !p.consume_token(&Token::RParen) {
        let option = name(p)?;
        skip(p, &Token::Eq);
        let found = p.next_token();
        let value = match &found.token {
            Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
            Token::Word(word) => word.value.to_ascii_lowercase(),
            _ => return Err(p.expected::<()>("a value", found).into()),
        };
        if options.iter().any(|(other, _)| *other == option) {
            return Err(Error::syntax(format!("{option} is given twice")).into());
        }
        options.push((option, value));
        skip(p, &Token::Comma);
    }
    Ok(options)
}
