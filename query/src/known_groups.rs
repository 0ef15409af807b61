//! A rule: aggregates take what the statistics of row groups tell, and read the rest.
//!
//! Where all rows of a row group fall into one group of an aggregation, its count, sum, lowest and highest
//! value are a partial result already. Such row groups are left out of the scan, and their partial results
//! stand beside those of the rows that are read: the final aggregation merges both.

mod exec;
mod told;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, TimestampNanosecondArray, new_null_array};
use datafusion::arrow::compute::and;
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;

use crate::plan_nodes::recomputed;
use crate::scan::{KnownRows, TskvScanExec};
use crate::stretches::{StretchAggregateExec, is_plain};
use crate::zones::is_utc;
use exec::RowGroupStatisticsExec;
use told::Told;

/// Has row groups left out of scans whose statistics tell enough.
#[derive(Debug)]
pub(crate) struct KnownGroups;

impl PhysicalOptimizerRule for KnownGroups {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        left_out(plan)
    }

    fn name(&self) -> &'static str {
        "known_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns a plan that leaves out row groups whose statistics tell enough.
pub(crate) fn left_out(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let stretches = node.downcast_ref::<StretchAggregateExec>();
        let aggregation = stretches.map_or(&node, StretchAggregateExec::aggregation);
        let found = match Asked::of(aggregation) {
            Some(asked) => asked.with_known_groups(&node)?,
            None => None,
        };
        Ok(found.map_or_else(|| Transformed::no(node), Transformed::yes))
    })
    .data()
}

/// A partial aggregation that statistics can answer a part of.
struct Asked<'a> {
    aggregate: &'a AggregateExec,
    scan: &'a TskvScanExec,
    /// What each of its functions asks for.
    functions: Vec<Told>,
}

impl<'a> Asked<'a> {
    fn of(node: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let aggregate = node.downcast_ref::<AggregateExec>()?;
        let scan = scan_below(aggregate.input())?;
        let groups = aggregate.group_expr();
        let is_asked = scan.may_know_groups()
            && is_plain(node, aggregate)
            && (groups.is_single() || groups.is_empty())
            && groups.expr().iter().all(|(key, _)| is_of_groups(key, scan));
        if !is_asked {
            return None;
        }
        let functions = aggregate.aggr_expr().iter();
        let functions =
            functions.map(|function| Told::of(function, scan)).collect::<Option<_>>()?;
        Some(Self { aggregate, scan, functions })
    }

    /// Returns the aggregation without the row groups whose rows it need not read, beside what their statistics
    /// tell; `None` where those are few.
    fn with_known_groups(
        &self,
        node: &Arc<dyn ExecutionPlan>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let schema = self.aggregate.schema();
        let mut left_out = Vec::new();
        let mut told = Vec::new();
        for known in self.scan.known_rows() {
            let known = known.only(|known| self.suffices(known))?;
            if !known.groups.is_empty() {
                told.push(self.states(&known, &schema)?);
                left_out.push(known);
            }
        }
        let rows: usize = left_out.iter().map(KnownRows::rows).sum();
        if left_out.is_empty() || rows * 2 < self.scan.rows_expected() {
            return Ok(None);
        }
        let rest = with_scan(self.aggregate.input(), self.scan.without(&left_out))?;
        let rest = Arc::clone(node).replace_children(vec![rest], recomputed())?;
        let orderings = rest.properties().equivalence_properties().oeq_class().clone();
        let told = RowGroupStatisticsExec::new(schema, (told, rows), orderings.clone());
        let both = UnionExec::try_new(vec![rest, Arc::new(told)])?;
        // What is above may rely on the order.
        let kept = both.properties().equivalence_properties();
        for ordering in orderings.iter() {
            if !kept.ordering_satisfy(ordering.clone())? {
                return Ok(None);
            }
        }
        Ok(Some(both))
    }

    /// Tells of each row group whether its statistics suffice: all rows fall into one group, and each function
    /// finds what it asks for.
    fn suffices(&self, known: &KnownRows) -> Result<BooleanArray> {
        let tells = known
            .groups
            .iter()
            .map(|group| Some(self.functions.iter().all(|function| function.is_told_by(group))));
        let mut suffices: BooleanArray = tells.collect();
        let [first, last] =
            [self.keys(known, |times| times.0)?, self.keys(known, |times| times.1)?];
        for (first, last) in first.iter().zip(&last) {
            suffices = and(&suffices, &not_distinct(first, last)?)?;
        }
        Ok(suffices)
    }

    /// Returns the keys of one row of each row group.
    fn keys(&self, known: &KnownRows, time: fn((i64, i64)) -> i64) -> Result<Vec<ArrayRef>> {
        let times = known.groups.iter().map(|group| time((group.times.min, group.times.max)));
        let batch = rows_of(known, times.collect(), self.scan)?;
        let keys = self.aggregate.group_expr().expr().iter();
        keys.map(|(key, _)| key.evaluate(&batch)?.into_array(batch.num_rows())).collect()
    }

    /// Returns the partial results of row groups, one row each.
    fn states(&self, known: &KnownRows, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut columns = self.keys(known, |times| times.0)?;
        for function in &self.functions {
            columns.extend(function.states(&known.groups, &schema.fields()[columns.len()..])?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(known.groups.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}

/// Returns whether a key is a tag, or the time or a window of it: what is the same for two rows of a series is
/// so for those between them.
fn is_of_groups(key: &Arc<dyn PhysicalExpr>, scan: &TskvScanExec) -> bool {
    let is_time = |expr: &Arc<dyn PhysicalExpr>| {
        let column = expr.downcast_ref::<Column>();
        column.is_some_and(|column| scan.is_time(column.index()))
    };
    if let Some(column) = key.downcast_ref::<Column>() {
        return scan.is_tag(column.index()) || is_time(key);
    }
    let Some(window) = key.downcast_ref::<ScalarFunctionExpr>() else { return false };
    let (times, others): (Vec<_>, Vec<_>) = window.args().iter().partition(|arg| is_time(arg));
    let is_window = match window.name() {
        "date_bin" => true,
        // Elsewhere clocks were put back across midnight.
        "date_trunc" => others.len() == 1 && is_in_utc(window.return_type()),
        _ => false,
    };
    is_window && times.len() == 1 && others.iter().all(|arg| arg.is::<Literal>())
}

fn is_in_utc(time: &DataType) -> bool {
    matches!(time, DataType::Timestamp(_, Some(zone)) if is_utc(zone))
}

/// Returns rows of the scan: their tags and times, all else NULL.
fn rows_of(known: &KnownRows, times: Vec<i64>, scan: &TskvScanExec) -> Result<RecordBatch> {
    let (mut tags, count) = (known.tags.iter(), times.len());
    let times = TimestampNanosecondArray::from(times);
    let schema = scan.schema();
    let columns = schema.fields().iter().enumerate().map(|(at, field)| match field.data_type() {
        DataType::Timestamp(_, zone) if scan.is_time(at) => {
            Arc::new(times.clone().with_timezone_opt(zone.clone())) as ArrayRef
        }
        _ if scan.is_tag(at) => {
            tags.next().map_or_else(|| new_null_array(field.data_type(), count), Arc::clone)
        }
        other => new_null_array(other, count),
    });
    let columns: Vec<ArrayRef> = columns.collect();
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let fields: Vec<Field> = fields.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// Returns the scan that an aggregation reads: itself, or spread over threads.
fn scan_below(input: &Arc<dyn ExecutionPlan>) -> Option<&TskvScanExec> {
    match input.downcast_ref::<RepartitionExec>() {
        Some(spread) => spread.input().downcast_ref(),
        None => input.downcast_ref(),
    }
}

/// Puts another scan in the place of the one below.
fn with_scan(input: &Arc<dyn ExecutionPlan>, scan: TskvScanExec) -> Result<Arc<dyn ExecutionPlan>> {
    let scan: Arc<dyn ExecutionPlan> = Arc::new(scan);
    if input.is::<RepartitionExec>() {
        return Arc::clone(input).replace_children(vec![scan], recomputed());
    }
    Ok(scan)
}
