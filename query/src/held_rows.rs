//! A rule: scans whose rows a sort, a join or a window holds on to give each batch values of its own.
//!
//! Batches of one run share its columns. Who counts what the batches it holds take counts the run once for
//! each of them, so that a sort would spill, or be refused, at a part of the memory it has.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

use crate::scan::TskvScanExec;

/// An aggregate function that holds on to values as they came.
const GATHERS: &str = "array_agg";

/// Tells scans whether their rows are held on to.
#[derive(Debug)]
pub(crate) struct HeldRows;

impl PhysicalOptimizerRule for HeldRows {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        told(plan, false)
    }

    fn name(&self) -> &'static str {
        "held_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn told(plan: Arc<dyn ExecutionPlan>, is_held: bool) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(scan) = plan.downcast_ref::<TskvScanExec>() {
        return Ok(if is_held { Arc::new(scan.clone().held()) } else { plan });
    }
    let is_held = match plan.downcast_ref::<AggregateExec>() {
        Some(aggregate) => {
            aggregate.aggr_expr().iter().any(|function| function.fun().name() == GATHERS)
        }
        None => is_held || holds(&plan),
    };
    let children = plan.children().into_iter().map(|child| told(Arc::clone(child), is_held));
    let children = children.collect::<Result<_>>()?;
    replace_children_if_necessary(plan, children)
}

/// Returns whether a node holds on to rows of its inputs.
fn holds(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.fetch().is_none())
        || plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
}
