//! What lets a query be stopped amid its work: joins that make many rows of few, or of many none.
//!
//! A task gives way where it reads a source. A join may take hours between two reads: so each batch it
//! gives counts as a read, and its filter asks before each batch of pairs whether anybody still waits.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use tokio_util::sync::CancellationToken;

use crate::as_of::AsOfJoinExec;
use crate::error::Error;
use crate::plan_nodes::only;

/// Makes a plan one that `interrupt` stops soon.
///
/// # Errors
/// None that a plan which was made has not shown before.
pub(crate) fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    interrupt: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let asking = |filter: Option<&JoinFilter>| filter.map(|filter| asking(filter, interrupt));
    let wrap = |plan: Arc<dyn ExecutionPlan>| {
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let join = NestedLoopJoinExecBuilder::from(join).with_filter(asking(join.filter()));
            return Ok(Transformed::yes(giving_way(Arc::new(join.build()?))));
        }
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let join = join.builder().with_filter(asking(join.filter())).build_exec()?;
            return Ok(Transformed::yes(giving_way(join)));
        }
        let expands = plan.is::<CrossJoinExec>()
            || plan.is::<SortMergeJoinExec>()
            || plan.is::<AsOfJoinExec>()
            || plan.is::<RecursiveQueryExec>()
            || plan.is::<UnnestExec>();
        Ok(if expands { Transformed::yes(giving_way(plan)) } else { Transformed::no(plan) })
    };
    plan.transform_up(wrap).data()
}

fn giving_way(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(CooperativeExec::new(plan))
}

fn asking(filter: &JoinFilter, interrupt: &CancellationToken) -> JoinFilter {
    let inner = Arc::clone(filter.expression());
    let asking = Arc::new(Asking { inner, interrupt: interrupt.clone() });
    JoinFilter::new(asking, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that fails once nobody waits for it.
#[derive(Debug)]
struct Asking {
    inner: Arc<dyn PhysicalExpr>,
    interrupt: CancellationToken,
}

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Asking {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.inner.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.inner.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.interrupt.is_cancelled() {
            return Err(Error::new("57014", "nobody waits for this query").into());
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self { inner: only(children)?, interrupt: self.interrupt.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
