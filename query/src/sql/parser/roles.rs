//! Reads GRANT and REVOKE, in the original's words and in PostgreSQL's.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use meta::Level;

use super::{Parsed, expect, name, object_name, take, take_all, word};
use crate::sql::{Definition, GrantStatement, GrantedOn, Membership, Statement};

/// Reads `GRANT privileges ON objects TO roles`, `GRANT role TO users`, and REVOKE … FROM.
pub(super) fn grant(p: &mut Parser<'_>) -> Parsed<Statement> {
    let revoke = take(p, "REVOKE");
    if !revoke {
        expect(p, "GRANT")?;
    }
    let end = if revoke { "FROM" } else { "TO" };
    let definition = if level(&word(p, 0)).is_some() && word(p, 1) != end {
        let grants = grants(p)?;
        expect(p, end)?;
        take(p, "ROLE");
        let roles = names(p)?;
        Definition::Grant(GrantStatement { grants, roles, revoke })
    } else {
        take(p, "ROLE");
        let role = name(p)?;
        expect(p, end)?;
        take(p, "USER");
        Definition::Membership(Membership { role, users: names(p)?, revoke })
    };
    if !take(p, "CASCADE") {
        take(p, "RESTRICT");
    }
    Ok(Statement::Definition(Box::new(definition)))
}

/// Returns the level a privilege's name stands for.
fn level(word: &str) -> Option<Level> {
    Some(match word {
        "READ" | "SELECT" | "USAGE" | "CONNECT" => Level::Read,
        "WRITE" | "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE" => Level::Write,
        "ALL" | "CREATE" => Level::All,
        _ => return None,
    })
}

/// Reads `READ ON DATABASE a, b, WRITE ON TABLE t, …`.
fn grants(p: &mut Parser<'_>) -> Parsed<Vec<(Level, GrantedOn)>> {
    let mut grants = Vec::new();
    loop {
        let level = levels(p)?;
        expect(p, "ON")?;
        let databases = take(p, "DATABASE")
            || take(p, "SCHEMA")
            || take_all(p, &["ALL", "TABLES", "IN", "SCHEMA"]);
        if !databases {
            take(p, "TABLE");
        }
        loop {
            let object = if databases {
                GrantedOn::Database(name(p)?)
            } else {
                GrantedOn::Table(object_name(p)?)
            };
            grants.push((level, object));
            if !p.consume_token(&Token::Comma) {
                return Ok(grants);
            }
            // Another privilege may follow, or another object.
            let words = [word(p, 0), word(p, 1)];
            if self::level(&words[0]).is_some() && ["ON", "PRIVILEGES"].contains(&words[1].as_str())
            {
                break;
            }
        }
    }
}

fn levels(p: &mut Parser<'_>) -> Parsed<Level> {
    let mut most = Level::Read;
    loop {
        let Some(level) = level(&word(p, 0)) else {
            let found = p.peek_token();
            return Err(p.expected::<()>("READ, WRITE or ALL", found).into());
        };
        p.advance_token();
        if level == Level::All {
            take(p, "PRIVILEGES");
        }
        most = most.max(level);
        if !p.consume_token(&Token::Comma) {
            return Ok(most);
        }
    }
}

fn names(p: &mut Parser<'_>) -> Parsed<Vec<String>> {
    let mut names = vec![name(p)?];
    while p.consume_token(&Token::Comma) {
        names.push(name(p)?);
    }
    Ok(names)
}
