//! The node that keeps the first row of each key: rows come in an order that begins with the keys.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::{SortOptions, filter_record_batch};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNodeIterator, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr,
    PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::FirstRows;
use crate::error::Error;
use crate::plan_nodes::{only, recomputed};

/// Makes the physical node.
///
/// # Errors
/// Expressions that cannot be computed.
pub(crate) fn plan(
    node: &FirstRows,
    input: Arc<dyn ExecutionPlan>,
    session: &dyn Session,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = node.input.schema();
    let order = node.order.iter().map(|sort| {
        let expr = session.create_physical_expr(sort.expr.clone(), schema)?;
        let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
        Ok(PhysicalSortExpr { expr, options })
    });
    let order: Vec<PhysicalSortExpr> = order.collect::<Result<_>>()?;
    let order = LexOrdering::new(order).ok_or_else(|| Error::internal("an order without keys"))?;
    Ok(Arc::new(FirstRowsExec::new(input, order, node.keys)))
}

#[derive(Debug)]
pub(crate) struct FirstRowsExec {
    input: Arc<dyn ExecutionPlan>,
    order: LexOrdering,
    /// So many of the order are the keys.
    keys: usize,
    properties: Arc<PlanProperties>,
}

impl FirstRowsExec {
    fn new(input: Arc<dyn ExecutionPlan>, order: LexOrdering, keys: usize) -> Self {
        let orders = [order.clone()];
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(input.schema(), orders),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, order, keys, properties: Arc::new(properties) }
    }
}

impl DisplayAs for FirstRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstRowsExec: keys={}, order=[{}]", self.keys, self.order)
    }
}

impl ExecutionPlan for FirstRowsExec {
    fn name(&self) -> &'static str {
        "FirstRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.order.clone()))]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        // It does; but whoever pushes a sort down would put another order in the stead of the required one.
        vec![false]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.order.iter().map(|sort| &sort.expr).apply_until_stop(visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(only(children)?, self.order.clone(), self.keys)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, recomputed())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        let keys: Vec<_> =
            self.order.iter().take(self.keys).map(|sort| Arc::clone(&sort.expr)).collect();
        let types = keys.iter().map(|key| key.data_type(&schema).map(SortField::new));
        let converter = RowConverter::new(types.collect::<Result<_>>()?)?;
        let mut kept = Kept { keys, converter, last: None };
        let firsts = input.map(move |batch| kept.firsts(&batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, firsts)))
    }
}

/// The keys seen so far: the last of them.
struct Kept {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    converter: RowConverter,
    last: Option<OwnedRow>,
}

impl Kept {
    /// Returns the rows of a batch that begin a key.
    fn firsts(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(batch.num_rows()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let rows = self.converter.convert_columns(&columns)?;
        let begins = |at: usize| match at.checked_sub(1) {
            Some(before) => rows.row(at) != rows.row(before),
            None => self.last.as_ref().is_none_or(|last| last.row() != rows.row(0)),
        };
        let picks: BooleanArray = (0..batch.num_rows()).map(|at| Some(begins(at))).collect();
        if let Some(last) = batch.num_rows().checked_sub(1) {
            self.last = Some(rows.row(last).owned());
        }
        Ok(filter_record_batch(batch, &picks)?)
    }
}
