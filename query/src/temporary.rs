//! Temporary tables: rows of any types, without time and tags, in the memory of one session, which alone
//! sees them. A bare name means one of them before a table of the database, as in PostgreSQL.
//!
//! | module   | holds                                    |
//! |----------|------------------------------------------|
//! | `table`  | the rows of one, and what they must obey |
//! | `define` | what a definition means                  |
//! | `change` | the statements that make and change them |

mod change;
mod define;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::scopes::each_table;
use crate::views::quoted;
pub(crate) use define::sql_type_of;
use table::{Numbered, TemporaryTable};

/// The schema that temporary tables are in.
pub(crate) const TEMPORARY_SCHEMA: &str = "pg_temp";
/// The most temporary tables of a session.
const TABLES_MAX: usize = 1_000;
/// The most bytes of memory of all of them.
const BYTES_MAX: usize = 256 << 20;
/// What a table's name ends with where its rows are wanted with their numbers.
const NUMBERED: &str = "\u{1}numbered";

/// The temporary tables of a session.
#[derive(Debug, Default)]
pub(crate) struct TemporaryTables(Mutex<BTreeMap<String, Arc<TemporaryTable>>>);

impl TemporaryTables {
    /// Returns the table that a dotted name means.
    pub(crate) fn named(&self, name: &[String]) -> Option<Arc<TemporaryTable>> {
        match name {
            [table] => self.get(table),
            [schema, table] if schema == TEMPORARY_SCHEMA => self.get(table),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<Arc<TemporaryTable>> {
        self.0.lock().get(name).cloned()
    }

    /// Refuses rows for which the session has no room.
    fn check_room(&self, bytes: usize) -> Result<()> {
        let held: usize = self.0.lock().values().map(|table| table.bytes()).sum();
        if held.saturating_add(bytes) <= BYTES_MAX {
            return Ok(());
        }
        let message = format!("temporary tables of a session take {BYTES_MAX} bytes at most");
        Err(Error::new("53200", message))
    }

    fn add(&self, name: &str, table: TemporaryTable) -> Result<()> {
        if name.starts_with("pg_") {
            let message = format!("name \"{name}\" is reserved: it begins with \"pg_\"");
            return Err(Error::new("42939", message));
        }
        let mut tables = self.0.lock();
        if tables.contains_key(name) {
            return Err(Error::new("42P07", format!("relation \"{name}\" already exists")));
        }
        if tables.len() >= TABLES_MAX {
            let message = format!("a session has {TABLES_MAX} temporary tables at most");
            return Err(Error::new("54000", message));
        }
        tables.insert(name.to_owned(), Arc::new(table));
        Ok(())
    }

    /// Drops the table that a dotted name means. Returns whether there was one.
    pub(crate) fn remove(&self, name: &[String]) -> bool {
        let found = self.named(name).is_some();
        if let (true, Some(table)) = (found, name.last()) {
            self.0.lock().remove(table);
        }
        found
    }

    /// Returns whether there is one of a name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    /// Drops all.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Names the schema of the temporary tables that a query names without one.
    pub(crate) fn qualify(&self, query: &mut DfStatement) -> Result<()> {
        if self.0.lock().is_empty() {
            return Ok(());
        }
        match query {
            DfStatement::Statement(statement) => each_table(statement, |found, factor| {
                if let [table] = found
                    && let ast::TableFactor::Table { name, alias, .. } = factor
                    && self.get(table).is_some()
                {
                    *name = qualified(table);
                    // Columns may be named by the table.
                    alias.get_or_insert_with(|| alias_of(table));
                }
                Ok(())
            }),
            DfStatement::Explain(explain) => self.qualify(&mut explain.statement),
            _ => Ok(()),
        }
    }
}

fn qualified(table: &str) -> ast::ObjectName {
    ast::ObjectName::from(vec![quoted(TEMPORARY_SCHEMA), quoted(table)])
}

fn alias_of(table: &str) -> ast::TableAlias {
    ast::TableAlias { explicit: true, name: quoted(table), columns: Vec::new(), at: None }
}

/// The temporary tables of a session, as a schema.
#[derive(Debug)]
pub(crate) struct TemporarySchema(pub(crate) Arc<TemporaryTables>);

#[async_trait]
impl SchemaProvider for TemporarySchema {
    fn table_names(&self) -> Vec<String> {
        self.0.0.lock().keys().cloned().collect()
    }

    async fn table(
        &self,
        name: &str,
    ) -> datafusion::common::Result<Option<Arc<dyn TableProvider>>> {
        if let Some(name) = name.strip_suffix(NUMBERED) {
            let table = self.0.get(name);
            return Ok(table.map(|table| Arc::new(Numbered(table)) as Arc<dyn TableProvider>));
        }
        Ok(self.0.get(name).map(|table| table as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.get(name.strip_suffix(NUMBERED).unwrap_or(name)).is_some()
    }
}
