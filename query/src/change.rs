//! DELETE, UPDATE and TRUNCATE.
//!
//! A delete whose WHERE storage answers by itself becomes one tombstone. Everything else reads the
//! rows first, by an ordinary query, and names them one by one. Both hold the replica sets' change
//! locks from before the reading, so that nothing written in between is lost and the count is right.

use std::collections::HashSet;
use std::sync::Arc;

use cluster::{ChangeLock, ScanRequest};
use datafusion::arrow::array::ArrayRef;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use model::{ColumnKind, Points, TableSchema, TimeRange};

use crate::access::{Need, Object};
use crate::error::{Error, LOCK_LOST, Result};
use crate::gathered::gathered;
use crate::ingest::{Intake, Target};
use crate::insert::{SELECTED_BYTES_MAX, SELECTED_ROWS_MAX, convert, in_column};
use crate::planning::parts;
use crate::scan::TskvScanExec;
use crate::session::Session;
use crate::sql::{Statement, fold, select_from};
use crate::sugar::makes_rows;

/// A table, as a statement that changes rows names it, and which of its rows.
struct Changed<'a> {
    relation: &'a ast::TableWithJoins,
    selection: Option<&'a ast::Expr>,
    database: Arc<meta::Database>,
    table: Arc<TableSchema>,
}

/// What an UPDATE assigns.
struct Assignments<'a> {
    /// Column name and the expression assigned to it.
    all: Vec<(String, &'a ast::Expr)>,
    tags: bool,
}

/// How often a change begins anew where the lead of its rows goes to another node meanwhile.
const ATTEMPTS: usize = 10;

impl Session {
    /// Runs a DELETE, an UPDATE or a TRUNCATE. Returns the number of rows.
    pub(crate) async fn change(
        self: &Arc<Self>,
        statement: &Statement,
        params: &[ScalarValue],
    ) -> Result<u64> {
        let mut attempts = 1;
        loop {
            let changed = match statement {
                Statement::Delete(delete) => self.delete(delete, params).await,
                Statement::Update(update) => self.update(update, params).await,
                Statement::Truncate(truncate) => self.truncate(truncate).await.map(|()| 0),
                _ => Err(Error::internal("a statement that changes no rows")),
            };
            match changed {
                Err(error) if error.sqlstate == LOCK_LOST && attempts < ATTEMPTS => attempts += 1,
                changed => return changed,
            }
        }
    }

    /// Runs a DELETE. Returns the number of rows.
    async fn delete(self: &Arc<Self>, delete: &ast::Delete, params: &[ScalarValue]) -> Result<u64> {
        let changed = self.delete_target(delete)?;
        self.check(Need::Write(changed.object()))?;
        let plan = self.physical_plan(&changed.rows(&[]), params.to_vec()).await?;
        // A command names the values of tags, and tests none.
        let told = storage_answers(&plan).filter(|request| request.filter.tests.is_empty());
        let Some(request) = told.cloned() else {
            return self.delete_rows(&changed, params).await;
        };
        let lock = self.lock(&changed, request.times).await?;
        // Planned anew: the first plan saw what there was before the lock.
        let rows = self.count(&changed.rows(&[]), params).await?;
        if rows > 0 {
            let matching = (&request.filter, request.times);
            let cluster = self.database().cluster();
            cluster.delete_matching(&lock, changed.table.id, matching).await?;
            self.note_write();
        }
        Ok(rows)
    }

    async fn delete_rows(
        self: &Arc<Self>,
        changed: &Changed<'_>,
        params: &[ScalarValue],
    ) -> Result<u64> {
        let lock = self.lock(changed, TimeRange::ALL).await?;
        let target = changed.key_target()?;
        let (rows, batches) = self.read(&changed.rows(&changed.key()), &target, params).await?;
        for batch in batches {
            self.database().cluster().delete_rows(&lock, batch).await?;
            self.note_write();
        }
        Ok(rows)
    }

    /// Runs an UPDATE. Returns the number of rows.
    async fn update(self: &Arc<Self>, update: &ast::Update, params: &[ScalarValue]) -> Result<u64> {
        let changed = self.update_target(update)?;
        self.check(Need::Write(changed.object()))?;
        let assignments = changed.assignments(&update.assignments)?;
        if assignments.tags {
            return self.update_tags(&changed, &assignments, params).await;
        }
        let mut names = changed.key();
        names.extend(assignments.all.iter().map(|(name, _)| name.clone()));
        let target = changed.target(&names)?;
        let lock = self.lock(&changed, TimeRange::ALL).await?;
        let read = changed.rows_with(&names, &assignments);
        let (rows, batches) = self.read(&read, &target, params).await?;
        for batch in batches {
            self.database().cluster().write_locked(&lock, batch).await?;
            self.note_write();
        }
        Ok(rows)
    }

    /// Moves rows to other series: all their fields are read, written under the new tags and deleted
    /// under the old ones. Refused where a row would meet another.
    async fn update_tags(
        self: &Arc<Self>,
        changed: &Changed<'_>,
        assignments: &Assignments<'_>,
        params: &[ScalarValue],
    ) -> Result<u64> {
        let lock = self.lock(changed, TimeRange::ALL).await?;
        let names: Vec<String> =
            changed.table.columns.iter().map(|column| column.name.clone()).collect();
        let (target, key) = (changed.target(&names)?, changed.key_target()?);
        // One query for both, so that the rows correspond one to one.
        let mut columns = names.clone();
        columns.extend(changed.key());
        let read = changed.rows_as(&columns, assignments, names.len());
        let mut stream = gathered(self.query(&read, params).await?);
        let (mut rows, mut moves) = (0, Vec::new());
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            if rows > SELECTED_ROWS_MAX {
                return Err(too_many("UPDATE of tags"));
            }
            let (moved, old) = batch.columns().split_at(names.len());
            let moved = target.points(&converted(&target, moved)?, i64::MIN)?;
            moves.extend(key.points(old, i64::MIN)?.into_iter().zip(moved));
        }
        // One command deletes before it writes; several would delete what the one before has written.
        if (moves.len() > 1 || lock.replica_sets() > 1) && exchange(&moves) {
            let hint = "move the rows to tags that no row has, and from there to where they belong";
            return Err(Error::unsupported("UPDATE by which rows change places").hint(hint));
        }
        self.check_free(changed, &moves).await?;
        for (old, moved) in moves {
            self.database().cluster().move_rows(&lock, old, moved).await?;
            self.note_write();
        }
        Ok(rows as u64)
    }

    /// Refuses moves to where a row is that is not itself moved away, or where two rows would meet.
    async fn check_free(
        self: &Arc<Self>,
        changed: &Changed<'_>,
        moves: &[(Points, Points)],
    ) -> Result<()> {
        let mut left: HashSet<(&[u8], i64)> = HashSet::new();
        let mut wanted: HashSet<(&[u8], i64)> = HashSet::new();
        let conflict = || {
            let message =
                format!("a row of \"{}\" has these tags and this time", changed.table.name);
            Error::new("23505", message).hint("rows are identified by their tags and their time")
        };
        for (old, moved) in moves {
            left.extend(keys(old));
            for key in keys(moved) {
                if !wanted.insert(key) {
                    return Err(conflict());
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let all = Changed { selection: None, ..changed.copy() };
        let (_, present) = self.read(&all.rows(&all.key()), &all.key_target()?, &[]).await?;
        let mut present = present.iter().flat_map(keys);
        if present.any(|key| wanted.contains(&key) && !left.contains(&key)) {
            return Err(conflict());
        }
        Ok(())
    }

    /// Runs a TRUNCATE.
    async fn truncate(self: &Arc<Self>, truncate: &ast::Truncate) -> Result<()> {
        for target in &truncate.table_names {
            let (database, table) = match self.user_table(&parts(&target.name)?) {
                Err(error) if truncate.if_exists && error.sqlstate == "42P01" => continue,
                found => found?,
            };
            self.check(Need::Write(Object::table(database.id, table.id)))?;
            let cluster = self.database().cluster();
            let lock = cluster.lock_for_change(database.id, TimeRange::ALL).await?;
            let everything = cluster::SeriesFilter::default();
            cluster.delete_matching(&lock, table.id, (&everything, TimeRange::ALL)).await?;
            self.note_write();
        }
        Ok(())
    }

    /// Returns the query that stands for the rows a DELETE or UPDATE reads, so that its parameters can
    /// be typed.
    pub(crate) fn reading(&self, statement: &Statement) -> Result<Option<DfStatement>> {
        let read = match statement {
            Statement::Delete(delete) => self.delete_target(delete)?.rows(&[]),
            Statement::Update(update) => {
                let changed = self.update_target(update)?;
                let assignments = changed.assignments(&update.assignments)?;
                let names: Vec<String> =
                    assignments.all.iter().map(|(name, _)| name.clone()).collect();
                changed.rows_with(&names, &assignments)
            }
            _ => return Ok(None),
        };
        match read {
            Statement::Query(query) => Ok(Some(*query)),
            _ => Ok(None),
        }
    }

    async fn lock(&self, changed: &Changed<'_>, times: TimeRange) -> Result<ChangeLock> {
        Ok(self.database().cluster().lock_for_change(changed.database.id, times).await?)
    }

    async fn count(self: &Arc<Self>, query: &Statement, params: &[ScalarValue]) -> Result<u64> {
        let mut stream = self.query(query, params).await?;
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch?.num_rows() as u64;
        }
        Ok(rows)
    }

    /// Reads rows as points of a target, all before the first is changed.
    async fn read(
        self: &Arc<Self>,
        query: &Statement,
        target: &Target,
        params: &[ScalarValue],
    ) -> Result<(u64, Vec<Points>)> {
        let mut stream = gathered(self.query(query, params).await?);
        let (mut rows, mut bytes, mut batches) = (0, 0, Vec::new());
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if rows > SELECTED_ROWS_MAX || bytes > SELECTED_BYTES_MAX {
                return Err(too_many("a change"));
            }
            let arrays = converted(target, batch.columns())?;
            batches.extend(target.new_points(&arrays, i64::MIN)?);
        }
        Ok((rows as u64, batches))
    }

    fn delete_target<'a>(&self, delete: &'a ast::Delete) -> Result<Changed<'a>> {
        for (refused, what) in [
            (delete.using.is_some(), "DELETE ... USING"),
            (delete.returning.is_some(), "RETURNING"),
            (!delete.tables.is_empty(), "DELETE of several tables"),
            (!delete.order_by.is_empty() || delete.limit.is_some(), "DELETE ... LIMIT"),
        ] {
            if refused {
                return Err(Error::unsupported(what));
            }
        }
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) =
            &delete.from;
        let [relation] = from.as_slice() else {
            return Err(Error::unsupported("DELETE of several tables"));
        };
        self.changed(relation, delete.selection.as_ref())
    }

    fn update_target<'a>(&self, update: &'a ast::Update) -> Result<Changed<'a>> {
        for (refused, what) in [
            (update.from.is_some(), "UPDATE ... FROM"),
            (update.returning.is_some(), "RETURNING"),
            (!update.order_by.is_empty() || update.limit.is_some(), "UPDATE ... LIMIT"),
        ] {
            if refused {
                return Err(Error::unsupported(what));
            }
        }
        self.changed(&update.table, update.selection.as_ref())
    }

    fn changed<'a>(
        &self,
        relation: &'a ast::TableWithJoins,
        selection: Option<&'a ast::Expr>,
    ) -> Result<Changed<'a>> {
        let ast::TableFactor::Table { name, .. } = &relation.relation else {
            return Err(Error::unsupported("a change of anything but a table"));
        };
        if !relation.joins.is_empty() {
            return Err(Error::unsupported("a change of a join"));
        }
        let (database, table) = self.user_table(&parts(name)?)?;
        Ok(Changed { relation, selection, database, table })
    }
}

impl<'a> Changed<'a> {
    fn object(&self) -> Object {
        Object::table(self.database.id, self.table.id)
    }

    fn copy(&self) -> Self {
        Self {
            relation: self.relation,
            selection: self.selection,
            database: Arc::clone(&self.database),
            table: Arc::clone(&self.table),
        }
    }

    /// Returns the columns that identify a row.
    fn key(&self) -> Vec<String> {
        let tags = self.table.tags().map(|tag| tag.name.clone());
        std::iter::once("time".to_owned()).chain(tags).collect()
    }

    fn target(&self, names: &[String]) -> Result<Target> {
        Target::new(Arc::clone(&self.database), Arc::clone(&self.table), names, Intake::default())
    }

    fn key_target(&self) -> Result<Target> {
        self.target(&self.key())
    }

    /// Returns the query of some columns of the rows; of their times where none are named.
    fn rows(&self, names: &[String]) -> Statement {
        let time = ["time".to_owned()];
        let names = if names.is_empty() { &time } else { names };
        self.rows_with(names, &Assignments { all: Vec::new(), tags: false })
    }

    /// Returns the query of some columns of the rows, those assigned as they will be.
    fn rows_with(&self, names: &[String], assignments: &Assignments<'_>) -> Statement {
        self.rows_as(names, assignments, names.len())
    }

    /// Returns the query of some columns; the first `assigned` as they will be, the others as they are.
    fn rows_as(
        &self,
        names: &[String],
        assignments: &Assignments<'_>,
        assigned: usize,
    ) -> Statement {
        let item = |(at, name): (usize, &String)| {
            let found = assignments.all.iter().find(|(other, _)| at < assigned && other == name);
            let expr = match found {
                Some((_, expr)) => (*expr).clone(),
                None => ast::Expr::Identifier(ast::Ident::with_quote('"', name)),
            };
            ast::SelectItem::ExprWithAlias { expr, alias: ast::Ident::new(format!("c{at}")) }
        };
        let projection = names.iter().enumerate().map(item).collect();
        select_from(self.relation.clone(), self.selection.cloned(), projection)
    }

    fn assignments(&self, assignments: &'a [ast::Assignment]) -> Result<Assignments<'a>> {
        let mut all: Vec<(String, &ast::Expr)> = Vec::new();
        let mut tags = false;
        for assignment in assignments {
            let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
                return Err(Error::unsupported("assignment to a list of columns"));
            };
            let name = parts(name)?.pop().unwrap_or_default();
            if matches!(&assignment.value, ast::Expr::Identifier(i) if fold(i) == "default") {
                return Err(Error::unsupported("DEFAULT"));
            }
            if matches!(&assignment.value, ast::Expr::Function(call) if makes_rows(call)) {
                return Err(Error::unsupported("a function that chooses rows, in UPDATE"));
            }
            if all.iter().any(|(other, _)| *other == name) {
                let message = format!("multiple assignments to same column \"{name}\"");
                return Err(Error::new("42601", message));
            }
            match self.table.column(&name).map(|column| column.kind) {
                None => {
                    let table = &self.table.name;
                    let message =
                        format!("column \"{name}\" of relation \"{table}\" does not exist");
                    return Err(Error::new("42703", message));
                }
                Some(ColumnKind::Time) => {
                    let hint = "insert the row at its new time and delete the old one";
                    return Err(Error::unsupported("UPDATE of \"time\"").hint(hint));
                }
                Some(ColumnKind::Tag) => tags = true,
                Some(ColumnKind::Field(_)) => {}
            }
            all.push((name, &assignment.value));
        }
        Ok(Assignments { all, tags })
    }
}

fn converted(target: &Target, arrays: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let one =
        |(array, column)| convert(array, column, target).map_err(|error| in_column(error, column));
    arrays.iter().zip(&target.columns).map(one).collect()
}

fn keys(points: &Points) -> impl Iterator<Item = (&[u8], i64)> {
    let series = points.row_series.iter().map(|number| points.series[*number as usize].as_ref());
    series.zip(points.times.iter().copied())
}

/// Returns whether a row moves to where another of them was.
fn exchange(moves: &[(Points, Points)]) -> bool {
    let left: HashSet<(&[u8], i64)> = moves.iter().flat_map(|(old, _)| keys(old)).collect();
    moves.iter().any(|(old, moved)| {
        keys(old).zip(keys(moved)).any(|(old, moved)| old != moved && left.contains(&moved))
    })
}

fn too_many(what: &str) -> Error {
    let message = format!("{what} of more than {SELECTED_ROWS_MAX} rows or 1 GiB");
    Error::new("54000", message).hint("split it by time")
}

/// Returns the request of a plan that storage answers by itself: a scan, and nothing that chooses
/// among its rows.
fn storage_answers(plan: &Arc<dyn ExecutionPlan>) -> Option<&ScanRequest> {
    if let Some(scan) = plan.downcast_ref::<TskvScanExec>() {
        return Some(scan.request());
    }
    let passes = ["ProjectionExec", "CooperativeExec", "CoalescePartitionsExec", "RepartitionExec"];
    match plan.children().as_slice() {
        [child] if passes.contains(&plan.name()) => storage_answers(child),
        _ => None,
    }
}
