//! Sessions, the SQL dialect, planning, definitions, writes, privileges and limits.
//!
//! Front ends share one API and only translate: [`Database::connect`] gives a [`Session`], which
//! prepares and executes; what comes back is an [`Output`].
//!
//! | module     | holds                                                                       |
//! |------------|-----------------------------------------------------------------------------|
//! | `database` | what all sessions share; who may connect                                    |
//! | `session`  | one client's state; prepare, execute, cancel                                |
//! | `sql`      | our grammar in front of DataFusion's, and the limits on statements           |
//! | `access`   | who may do what: the only place that decides                                |
//! | `arrays`   | `= ANY (array)`                                                             |
//! | `ddl`      | definitions: tenants, users, databases, tables                              |
//! | `roles`    | roles of a tenant, their members and grants                                  |
//! | `files`    | rows to files and from files; external tables                                |
//! | `audit`    | who logged in, and who changed what                                          |
//! | `dump`     | the catalog as the statements that make it                                   |
//! | `key_pairs` | users who prove by an RSA key who they are                                  |
//! | `logins`   | who fails to log in waits                                                    |
//! | `measures` | what can be measured at any moment                                          |
//! | `scopes`   | the tables that a statement names, and what WITH hides of them               |
//! | `views`    | views, and tables made of a query's rows                                     |
//! | `rows`     | batches in the form a reader asks for                                        |
//! | `running`  | the statements that run now; KILL                                            |
//! | `series`   | SHOW SERIES, TAG VALUES, TAG KEYS, FIELD KEYS                               |
//! | `show`     | SHOW and DESCRIBE                                                           |
//! | `ingest`   | columns of rows to points, and points to the cluster                        |
//! | `row_series` | the series of rows whose tags come one by one                              |
//! | `write`    | rows front ends decoded themselves; schemas grow as these need               |
//! | `insert`   | INSERT                                                                      |
//! | `instants` | time zones, and instants as people write them                               |
//! | `empty_subqueries` | a rule: a scalar subquery without a row is NULL                      |
//! | `zones`    | a rule: texts become instants in the session's zone                         |
//! | `change`   | DELETE, UPDATE, TRUNCATE                                                    |
//! | `blocks`   | BEGIN to COMMIT, savepoints                                                 |
//! | `correlated` | a rule: what a subquery compares with outer rows is a column               |
//! | `cursors`  | PREPARE and EXECUTE, DECLARE, FETCH and CLOSE                               |
//! | `copy`     | COPY, both ways                                                             |
//! | `catalog`  | databases and tables as DataFusion sees them; system schemas                |
//! | `exact_numbers` | a rule: integers overflow with an error, casts to them round             |
//! | `distinct_on` | DISTINCT ON of the newest rows                                           |
//! | `last_rows` | a rule: read newest rows only, where no other matters                      |
//! | `scan`     | the leaf of every plan                                                      |
//! | `functions` | DataFusion's functions, the dangerous ones bounded; those of time series     |
//! | `geometry` | shapes as texts, read and checked                                           |
//! | `gap_fill` | rows for windows in which there was none                                     |
//! | `as_of`    | joins by the nearest time                                                    |
//! | `plan_nodes` | what our nodes of plans share                                             |
//! | `extensions` | physical nodes of our own logical ones                                     |
//! | `stretches` | a rule: groups that lie together are aggregated without a table of them |
//! | `sugar`    | spellings that stand for other SQL                                           |
//! | `temporary` | tables of a session, in memory                                              |
//! | `plan_cache` | plans kept for queries that differ in their constants alone            |
//! | `planning` | text to plan, with parameters                                               |
//! | `threads`  | on which thread work is done                                                |
//! | `usage`    | what each tenant uses of this node                                          |
//! | `settings` | SET, SHOW, RESET                                                            |
//!
//! Change a statement: also touch `access`, docs/guide/sql.md and sqllogictest/cases.

mod access;
mod arrays;
mod as_of;
mod audit;
mod blocks;
mod catalog;
mod change;
mod column_names;
mod copy;
mod correlated;
mod cursors;
mod database;
mod ddl;
mod distinct_on;
mod dump;
mod empty_subqueries;
mod error;
mod exact_numbers;
mod extensions;
mod files;
mod functions;
mod gap_fill;
mod gathered;
mod geometry;
mod held_rows;
mod ingest;
mod insert;
mod instants;
mod interrupt;
mod jobs;
mod key_pairs;
mod known_groups;
mod last_rows;
mod logins;
mod lossy_casts;
mod measures;
mod nesting;
mod nodes;
mod output;
mod plan_cache;
mod plan_expressions;
mod plan_nodes;
mod planning;
mod policies;
mod quotas;
mod roles;
mod row_series;
mod rows;
mod running;
mod scan;
mod scopes;
mod scram;
mod series;
mod session;
mod settings;
mod show;
mod sql;
mod stages;
mod stretches;
mod sugar;
mod temporary;
mod text_casts;
mod threads;
mod types;
mod usage;
mod value_text;
mod views;
mod write;
mod zones;

pub use arrays::{ELEMENTS_MAX, parse_array};
pub use copy::{CopyFormat, CopyIn, CopyOut, CopyRow};
pub use database::{Database, DatabaseConfig};
pub use datafusion::common::ScalarValue;
pub use error::{Error, Result};
pub use files::FilesConfig;
pub use instants::{Zone, parse_instant, parse_wall};
pub use key_pairs::{PublicKey, user_of};
pub use measures::{Measure, MeasureKind};
pub use output::{Notice, Output};
pub use planning::Prepared;
pub use quotas::Admission;
pub use rows::{RowFormat, RowWriter, TextForm, TextStyle};
pub use scram::{Remembered, Verifier, make_verifier};
pub use session::{CancelHandle, Session};
pub use sql::{Savepoint, Statement, parse};
pub use stages::{ChannelTo, STAGE_SERVICE, StageNetwork, StageService};
pub use sugar::{spell_interval, uuid};
pub use usage::{RouteUsage, UsageKeeper};
pub use value_text::{TypedColumn, typed_column, typed_columns};
pub use write::{RowBatch, Written};
