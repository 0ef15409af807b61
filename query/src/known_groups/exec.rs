//! The leaf that gives partial results which statistics tell.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::stream;

use crate::plan_nodes::recomputed;

/// Partial results of whole row groups, a batch for each partition.
#[derive(Debug)]
pub(super) struct RowGroupStatisticsExec {
    results: Vec<RecordBatch>,
    /// How many rows they stand for.
    rows: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RowGroupStatisticsExec {
    /// Makes the node; each batch is in all of the orders.
    pub(super) fn new(
        schema: SchemaRef,
        (results, rows): (Vec<RecordBatch>, usize),
        orderings: impl IntoIterator<Item = LexOrdering>,
    ) -> Self {
        let equivalences = EquivalenceProperties::new_with_orderings(schema, orderings);
        let partitioning = Partitioning::UnknownPartitioning(results.len());
        let (emission, bounds) = (EmissionType::Incremental, Boundedness::Bounded);
        let properties = PlanProperties::new(equivalences, partitioning, emission, bounds);
        let (properties, metrics) = (Arc::new(properties), ExecutionPlanMetricsSet::new());
        Self { results, rows, properties, metrics }
    }
}

impl DisplayAs for RowGroupStatisticsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: usize = self.results.iter().map(RecordBatch::num_rows).sum();
        write!(f, "RowGroupStatisticsExec: row_groups={groups}, rows={}", self.rows)
    }
}

impl ExecutionPlan for RowGroupStatisticsExec {
    fn name(&self) -> &'static str {
        "RowGroupStatisticsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a leaf has no children") }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, recomputed())
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let result = self.results.get(partition).cloned();
        let results = result.map(|batch| Ok(batch.record_output(&metrics)));
        let schema = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(results))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
