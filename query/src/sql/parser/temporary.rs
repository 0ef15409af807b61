//! Reads CREATE TEMP TABLE.

use datafusion::sql::sqlparser::parser::Parser;

use super::definition::if_not_exists;
use super::{Parsed, object_name, take, take_all};
use crate::error::Error;
use crate::sql::{NewTemporary, Statement, TemporaryContents};

/// Reads what stands behind CREATE TEMP.
pub(super) fn create(p: &mut Parser<'_>) -> Parsed<Statement> {
    if !take(p, "TABLE") {
        let found = p.peek_token();
        return Err(Error::unsupported(format!("CREATE TEMP {found}")).into());
    }
    let if_not_exists = if_not_exists(p);
    let name = object_name(p)?;
    let contents = if take(p, "AS") {
        TemporaryContents::Query(p.parse_query()?)
    } else {
        let (columns, constraints) = p.parse_columns()?;
        if columns.is_empty() {
            return Err(Error::unsupported("a table without columns").into());
        }
        TemporaryContents::Columns(columns, constraints)
    };
    if take_all(p, &["ON", "COMMIT"]) && !take_all(p, &["PRESERVE", "ROWS"]) {
        let hint = "each statement commits by itself: rows stay until the session ends";
        return Err(Error::unsupported("ON COMMIT but PRESERVE ROWS").hint(hint).into());
    }
    Ok(Statement::CreateTemporary(Box::new(NewTemporary { name, if_not_exists, contents })))
}
