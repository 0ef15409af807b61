//! An optimizer rule: where only the newest row of each series can matter, only those are read.
//!
//! That is so where a scan feeds an aggregation by tags whose functions all ask for a row with the
//! highest time: `DISTINCT ON (tags) … ORDER BY tags, time DESC`, `last_value(x ORDER BY time)`,
//! `first_value(x ORDER BY time DESC)`, `max(time)`. A group by some of the tags has several series;
//! its newest row is the newest of one of them.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};

use crate::distinct_on::FirstRowsExec;
use crate::plan_nodes::recomputed;
use crate::scan::TskvScanExec;

/// Nodes that let all rows pass.
const PASSING: [&str; 5] = [
    "CooperativeExec",
    "RepartitionExec",
    "CoalescePartitionsExec",
    "SortExec",
    "SortPreservingMergeExec",
];

/// Reads only the newest rows where the plan shows that no other can matter.
#[derive(Debug)]
pub(crate) struct LastRows;

impl PhysicalOptimizerRule for LastRows {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| {
            let input = match plan.downcast_ref::<AggregateExec>() {
                Some(aggregate) if wants_last_rows(aggregate) => aggregate.input(),
                // It is made for nothing else.
                None if plan.is::<FirstRowsExec>() => plan.children()[0],
                _ => return Ok(Transformed::no(plan)),
            };
            match with_last_rows(input) {
                Some(input) => Ok(Transformed::yes(
                    Arc::clone(&plan).replace_children(vec![input], recomputed())?,
                )),
                None => Ok(Transformed::no(plan)),
            }
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "last_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns the plan with its scan reading the newest rows only, where nothing between the two chooses
/// among rows.
fn with_last_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if let Some(scan) = plan.downcast_ref::<TskvScanExec>() {
        return scan.only_last_rows().map(|scan| Arc::new(scan) as _);
    }
    match plan.children().as_slice() {
        [child] if PASSING.contains(&plan.name()) && plan.fetch().is_none() => {
            let child = with_last_rows(child)?;
            Arc::clone(plan).replace_children(vec![child], recomputed()).ok()
        }
        _ => None,
    }
}

fn wants_last_rows(aggregate: &AggregateExec) -> bool {
    let groups = aggregate.group_expr();
    let reads_rows = aggregate.mode().input_mode() == AggregateInputMode::Raw;
    let unfiltered = aggregate.filter_expr().iter().all(Option::is_none);
    let functions = aggregate.aggr_expr();
    if !reads_rows || !unfiltered || groups.has_grouping_set() || functions.is_empty() {
        return false;
    }
    let Some(tags) = scanned_tags(aggregate.input()) else { return false };
    let grouped: Option<Vec<&str>> = groups.expr().iter().map(|(expr, _)| column(expr)).collect();
    let Some(grouped) = grouped else { return false };
    grouped.iter().all(|name| tags.iter().any(|tag| tag == name))
        && functions.iter().all(|function| asks_for_newest(function, &grouped))
}

fn scanned_tags(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<String>> {
    if let Some(scan) = plan.downcast_ref::<TskvScanExec>() {
        return Some(scan.tags());
    }
    match plan.children().as_slice() {
        [child] => scanned_tags(child),
        _ => None,
    }
}

fn column(expr: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    expr.downcast_ref::<Column>().map(Column::name)
}

/// Returns whether a function's result depends on a row with the highest time of its group alone.
fn asks_for_newest(function: &AggregateFunctionExpr, grouped: &[&str]) -> bool {
    let name = function.fun().name();
    if name == "max" {
        let arguments = function.expressions();
        return arguments.len() == 1 && column(&arguments[0]) == Some("time");
    }
    if function.ignore_nulls() || function.is_distinct() {
        return false;
    }
    // Columns that are the same all over the group order nothing.
    let mut order = function.order_bys().iter();
    let first = order.find(|sort| column(&sort.expr).is_none_or(|name| !grouped.contains(&name)));
    let Some(first) = first else { return false };
    let is_time = column(&first.expr) == Some("time");
    match name {
        "first_value" => is_time && first.options.descending,
        "last_value" => is_time && !first.options.descending,
        _ => false,
    }
}
