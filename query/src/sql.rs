//! Our grammar in front of DataFusion's: text to statements.
//! Invariant: statements are measured before they are parsed, as a deep tree cannot even be dropped.

mod definitions;
mod limits;
mod parser;

pub(crate) use definitions::{
    AlterDatabaseOption, AlterTableAction, ColumnDefinition, Definition, NewColumnKind,
    TenantAction, UserAction, UserOptions,
};
pub use parser::parse;
pub(crate) use parser::{fold, parse_one};

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;

/// A statement, by who handles it.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Gives rows: SELECT, VALUES, EXPLAIN.
    Query(Box<DfStatement>),
    /// Adds rows.
    Insert(Box<ast::Insert>),
    /// Moves rows in or out.
    Copy(Box<ast::Statement>),
    /// Changes the catalog.
    Definition(Box<Definition>),
    /// Shows the catalog.
    Show(Show),
    /// Changes a setting; `None` is its default.
    Set(String, Option<String>),
    /// All settings to their defaults.
    ResetAll,
    /// BEGIN.
    Begin(&'static str),
    /// COMMIT or END.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// DISCARD, DEALLOCATE, CLOSE ALL, UNLISTEN and the like: its tag.
    Discard(&'static str),
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// Databases of the tenant.
    Databases,
    /// Tables of a database, else of the session's.
    Tables(Option<String>),
    /// Tenants.
    Tenants,
    /// Users.
    Users,
    /// A database's options.
    Database(String),
    /// A table's columns.
    Table(Vec<String>),
    /// A setting.
    Setting(String),
    /// All settings.
    Settings,
}
