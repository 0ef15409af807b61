//! Our grammar in front of DataFusion's: text to statements.
//! Invariant: statements are measured before they are parsed, as a deep tree cannot even be dropped.

mod definitions;
mod dialect;
mod latest;
mod limits;
mod parser;
mod template;

pub(crate) use definitions::{
    AlterDatabaseOption, AlterTableAction, ColumnDefinition, Definition, GrantStatement, GrantedOn,
    Membership, NewColumnKind, NewExternal, TenantAction, TenantOptions, UserAction, UserOptions,
};
pub(crate) use dialect::DIALECT;
pub use parser::parse;
pub(crate) use parser::{DISCARD_TEMP, RECURSION_MAX, fold, parse_one};
pub(crate) use template::{cast_to, of_query, select_all, select_from, select_values, template};

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;

/// What is done with a savepoint, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Savepoint {
    /// SAVEPOINT.
    Set(String),
    /// RELEASE SAVEPOINT.
    Release(String),
    /// ROLLBACK TO SAVEPOINT.
    BackTo(String),
}

impl Savepoint {
    /// Returns the statement's words.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Self::Set(_) => "SAVEPOINT",
            Self::Release(_) => "RELEASE SAVEPOINT",
            Self::BackTo(_) => "ROLLBACK TO SAVEPOINT",
        }
    }
}

/// A statement, by who handles it.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Gives rows: SELECT, VALUES, EXPLAIN.
    Query(Box<DfStatement>),
    /// Adds rows.
    Insert(Box<ast::Insert>),
    /// Deletes rows.
    Delete(Box<ast::Delete>),
    /// Changes rows.
    Update(Box<ast::Update>),
    /// Deletes all rows of tables.
    Truncate(Box<ast::Truncate>),
    /// Compacts files.
    Compact(Compacted),
    /// Stops a statement.
    Kill(u64),
    /// Changes nodes, and which of them hold what.
    Nodes(NodeStatement),
    /// Moves rows in or out.
    Copy(Box<ast::Statement>),
    /// Moves rows between tables and files.
    CopyInto(Box<CopyInto>),
    /// Changes the catalog.
    Definition(Box<Definition>),
    /// Makes a table of the session.
    CreateTemporary(Box<NewTemporary>),
    /// Makes a table of a query's rows.
    CreateTableAs(Box<TableAs>),
    /// Shows the catalog.
    Show(Show),
    /// Changes a setting; `None` is its default.
    Set(String, Option<String>),
    /// Changes a setting until the end of the block of statements.
    SetLocal(String, Option<String>),
    /// All settings to their defaults.
    ResetAll,
    /// BEGIN: its words, and whether the block may change something where that is said.
    Begin(&'static str, Option<Access>),
    /// COMMIT or END.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO SAVEPOINT.
    Savepoint(Savepoint),
    /// Keeps a statement: its name, the types of its parameters, and what it is.
    Prepare(String, Vec<ast::DataType>, Box<Statement>),
    /// Runs a kept statement with arguments.
    Execute(String, Vec<ast::Expr>),
    /// Forgets a kept statement, or all.
    Deallocate(Option<String>),
    /// Opens a cursor, WITH HOLD where true.
    Declare(String, bool, Box<Statement>),
    /// Takes rows of a cursor.
    Fetch(String, FetchCount),
    /// Closes a cursor, or all.
    Close(Option<String>),
    /// DISCARD ALL.
    DiscardAll,
    /// UNLISTEN and the like, which change nothing here: its tag.
    Discard(&'static str),
}

/// What a block of statements may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// READ ONLY.
    Read,
    /// READ WRITE.
    Write,
}

impl Access {
    /// Returns the value of the settings that say so.
    pub(crate) fn read_only(self) -> &'static str {
        if self == Self::Read { "on" } else { "off" }
    }
}

/// A table to be made of a query's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAs {
    pub(crate) name: Vec<String>,
    pub(crate) if_not_exists: bool,
    /// Which of its columns become tags.
    pub(crate) tags: Vec<String>,
    pub(crate) query: Box<ast::Query>,
}

/// A table of the session, to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTemporary {
    pub(crate) name: Vec<String>,
    pub(crate) if_not_exists: bool,
    pub(crate) contents: TemporaryContents,
}

/// What a table of the session is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TemporaryContents {
    /// Columns, and what their rows must obey.
    Columns(Vec<ast::ColumnDef>, Vec<ast::TableConstraint>),
    /// The rows of a query.
    Query(Box<ast::Query>),
}

/// Options by name, in lower case, in the order they are given.
pub(crate) type FileOptions = Vec<(String, String)>;

/// Rows to be moved between a table and files.
#[derive(Clone)]
pub struct CopyInto {
    pub(crate) url: String,
    pub(crate) what: CopyIntoWhat,
    /// How the store is reached; it may hold keys.
    pub(crate) connection: FileOptions,
    pub(crate) format: FileOptions,
    pub(crate) options: FileOptions,
}

impl std::fmt::Debug for CopyInto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection's keys must reach no log.
        f.debug_struct("CopyInto")
            .field("url", &self.url)
            .field("what", &self.what)
            .field("format", &self.format)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Which way rows go.
#[derive(Clone, Debug)]
pub(crate) enum CopyIntoWhat {
    /// Into a table, in the columns named.
    Table { table: Vec<String>, columns: Vec<String> },
    /// Into files, the rows of a query.
    Location(Box<Statement>),
}

/// What is to be compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// The vnodes of a database.
    Database(String),
    /// Some vnodes of the tenant.
    Vnodes(Vec<u64>),
}

/// What is to be done with nodes and the vnodes on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStatement {
    /// ALTER NODE: whether it gets and keeps vnodes.
    State(u64, meta::NodeState),
    /// ALTER NODE … ADDRESS: where others reach it.
    Address(u64, String),
    /// REMOVE NODE.
    Remove(u64),
    /// MOVE VNODE … TO NODE.
    Move(u64, u64),
    /// COPY VNODE … TO NODE: one replica more.
    Copy(u64, u64),
    /// DROP VNODE: one replica less.
    Drop(u64),
    /// REPLICA ADD: one replica more of a replica set, on a node.
    Add(u32, u64),
    /// REPLICA REMOVE: the replica of a replica set on a node goes.
    RemoveReplica(u32, u64),
    /// REPLICA PROMOTE: the replica on a node leads.
    Promote(u32, u64),
    /// CHECKSUM GROUP.
    Checksum(u32),
    /// REPLICA DESTROY: the rows of a replica set are given up; an empty one takes its place.
    Destroy(u32),
    /// REPLICA REPAIR: replicas are compared, and one that differs is made anew.
    Repair(u32),
    /// TRUNCATE SHARDS: the buckets of now and later end, those of a database or all.
    TruncateShards(Option<String>),
    /// KILL JOB.
    KillJob(String),
    /// CREATE PLACEMENT POLICY.
    CreatePolicy { name: String, if_not_exists: bool, terms: meta::PlacementTerms },
    /// ALTER PLACEMENT POLICY.
    AlterPolicy { name: String, if_exists: bool, terms: meta::PlacementTerms },
    /// DROP PLACEMENT POLICY.
    DropPolicy { name: String, if_exists: bool },
}

/// How many rows are to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCount {
    /// So many of the next.
    Rows(usize),
    /// All that are left.
    All,
    /// Rows before the present one, which no cursor here can give.
    Backward,
}

/// Which series are to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesShown {
    pub(crate) database: Option<String>,
    pub(crate) table: Vec<String>,
    pub(crate) selection: Option<ast::Expr>,
    pub(crate) order_by: Option<ast::OrderBy>,
    pub(crate) limit: Option<ast::LimitClause>,
}

/// Which tags are meant: those named, or all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagKeys {
    pub(crate) names: Vec<String>,
    pub(crate) others: bool,
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// The statements that make some tenants, or all, and what is in them.
    Ddl(Vec<String>),
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
    /// Statements that run.
    Queries,
    /// The series of a table.
    Series(Box<SeriesShown>),
    /// The values of some tags of a table.
    TagValues(Box<SeriesShown>, TagKeys),
    /// The tags of the tables of a database, or of one.
    TagKeys(Option<String>, Option<Vec<String>>),
    /// The fields of the tables of a database, or of one.
    FieldKeys(Option<String>, Option<Vec<String>>),
    /// Files and compactions of the tenant's vnodes.
    Compactions,
    /// Nodes of the cluster.
    Nodes,
    /// Replica sets of the tenant.
    Replicas,
    /// Vnodes of the tenant that are open, as they see their groups.
    Vnodes,
    /// What is being done in the background.
    Jobs,
    /// Placement policies.
    Policies,
    /// A setting.
    Setting(String),
    /// All settings.
    Settings,
}
