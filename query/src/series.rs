//! What series, tags and fields there are: SHOW SERIES, TAG VALUES, TAG KEYS, FIELD KEYS.
//!
//! The first two become queries that read the newest row of each series and no other.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};
use model::{ColumnKind, TableSchema};

use crate::access::Need;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::session::Session;
use crate::sql::{SeriesShown, Show, Statement, TagKeys, parse_one};

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the expression that writes a column as line protocol has it in a series' key.
fn escaped(column: &str) -> String {
    let column = quoted(column);
    format!("replace(replace(replace({column}, ',', '\\,'), '=', '\\='), ' ', '\\ ')")
}

/// Puts a condition where the table is read.
struct Where<'a> {
    selection: &'a ast::Expr,
}

impl VisitorMut for Where<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        if let ast::SetExpr::Select(select) = query.body.as_mut() {
            put_where(select, self.selection);
        }
        ControlFlow::Continue(())
    }
}

fn put_where(select: &mut ast::Select, selection: &ast::Expr) {
    if let [from] = select.from.as_slice()
        && matches!(from.relation, ast::TableFactor::Table { .. })
    {
        select.selection = Some(selection.clone());
    }
}

impl Session {
    fn shown_table(
        &self,
        database: Option<&String>,
        table: &[String],
    ) -> Result<(Arc<meta::Database>, Arc<TableSchema>)> {
        match (database, table) {
            (Some(database), [table]) => self.user_table(&[database.clone(), table.clone()]),
            (Some(_), _) => Err(Error::syntax("write ON database, or database.table")),
            (None, table) => self.user_table(table),
        }
    }

    /// Runs a query with the conditions put into it as they were parsed: printed they could mean
    /// something else.
    async fn rows_of(self: &Arc<Self>, sql: &str, shown: &SeriesShown) -> Result<Output> {
        let made = || Error::internal("a query was made");
        let Some(Statement::Query(mut query)) = parse_one(sql)? else { return Err(made()) };
        if let DfStatement::Statement(statement) = query.as_mut() {
            if let Some(selection) = &shown.selection {
                let walked = VisitMut::visit(statement.as_mut(), &mut Where { selection });
                debug_assert!(walked.is_continue());
            }
            let ast::Statement::Query(outer) = statement.as_mut() else { return Err(made()) };
            outer.order_by.clone_from(&shown.order_by);
            outer.limit_clause.clone_from(&shown.limit);
        }
        Ok(Output::Rows(self.query(&Statement::Query(query), &[]).await?))
    }

    pub(crate) async fn show_series(self: &Arc<Self>, shown: &SeriesShown) -> Result<Output> {
        self.check(Need::See)?;
        let (database, table) = self.shown_table(shown.database.as_ref(), &shown.table)?;
        let tags: Vec<&str> = table.tags().map(|tag| tag.name.as_str()).collect();
        let part = |tag: &&str| {
            let (column, prefix, value) = (quoted(tag), literal(&format!(",{tag}=")), escaped(tag));
            format!(", CASE WHEN {column} IS NULL THEN '' ELSE concat({prefix}, {value}) END")
        };
        let parts: String = tags.iter().map(part).collect();
        let from = format!("{}.{}", quoted(&database.name), quoted(&table.name));
        let columns: Vec<String> = tags.iter().map(|tag| quoted(tag)).collect();
        let group = if columns.is_empty() {
            " HAVING count(*) > 0".to_owned()
        } else {
            format!(" GROUP BY {}", columns.join(", "))
        };
        let sql = format!(
            "SELECT key FROM (SELECT concat({}{parts}) AS key, max(time) FROM {from}{group}) \
             AS series",
            literal(&table.name)
        );
        self.rows_of(&sql, shown).await
    }

    pub(crate) async fn show_tag_values(
        self: &Arc<Self>,
        shown: &SeriesShown,
        keys: &TagKeys,
    ) -> Result<Output> {
        self.check(Need::See)?;
        let (database, table) = self.shown_table(shown.database.as_ref(), &shown.table)?;
        let from = format!("{}.{}", quoted(&database.name), quoted(&table.name));
        let wanted = table.tags().filter(|tag| keys.names.contains(&tag.name) != keys.others);
        let parts: Vec<String> = wanted
            .map(|tag| {
                let (name, column) = (literal(&tag.name), quoted(&tag.name));
                format!(
                    "SELECT {name} AS key, {column} AS value FROM (SELECT {column}, max(time) \
                     FROM {from} GROUP BY {column}) AS t WHERE {column} IS NOT NULL"
                )
            })
            .collect();
        let all = if parts.is_empty() {
            "SELECT ''::text AS key, ''::text AS value WHERE false".to_owned()
        } else {
            parts.join(" UNION ALL ")
        };
        self.rows_of(&format!("SELECT key, value FROM ({all}) AS tags"), shown).await
    }

    /// Lists tags or fields of tables.
    pub(crate) fn key_lines(&self, shown: &Show) -> Result<Vec<Vec<String>>> {
        self.check(Need::See)?;
        let (Show::TagKeys(database, table) | Show::FieldKeys(database, table)) = shown else {
            return Ok(Vec::new());
        };
        let tables = match table {
            Some(table) => vec![self.shown_table(database.as_ref(), table)?.1],
            None => {
                let name = database.clone().unwrap_or_else(|| self.database_name());
                let database = self.user_database(&name)?.id;
                self.database().catalog().tables(database).cloned().collect()
            }
        };
        let mut lines = Vec::new();
        for table in tables {
            for column in &table.columns {
                let mut line = vec![table.name.clone(), column.name.clone()];
                match (shown, column.kind) {
                    (Show::TagKeys(..), ColumnKind::Tag) => {}
                    (Show::FieldKeys(..), ColumnKind::Field(value_type)) => {
                        line.push(value_type.sql().to_owned());
                    }
                    _ => continue,
                }
                lines.push(line);
            }
        }
        Ok(lines)
    }
}
