//! The node that joins by the nearest time: the right side is read once, into a table of its keys with
//! their times in order; the rows of the left side pass by and search it. Memory is that of the right
//! side, and accounted.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use datafusion::arrow::compute::{cast, concat_batches, take};
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{TreeNodeIterator, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::AsOfJoin;
use crate::error::Error;
use crate::functions::time_type;
use crate::plan_nodes::recomputed;

/// What a key of the table takes beside its own bytes, about.
const KEY_BYTES: usize = 96;

type PhysicalExprs = Vec<Arc<dyn PhysicalExpr>>;

/// What is compared: the keys, then the time, of each side.
#[derive(Clone, Debug)]
struct Compared {
    left: PhysicalExprs,
    right: PhysicalExprs,
    op: Operator,
}

/// Makes the physical node.
///
/// # Errors
/// Expressions that cannot be computed.
pub(crate) fn plan(
    node: &AsOfJoin,
    inputs: &[Arc<dyn ExecutionPlan>],
    session: &dyn Session,
) -> Result<Arc<dyn ExecutionPlan>> {
    let [left, right] = inputs else { return Err(Error::internal("two inputs").into()) };
    let physical = |exprs: Vec<&Expr>, schema: &DFSchema| -> Result<PhysicalExprs> {
        let exprs = exprs.into_iter();
        exprs.map(|expr| session.create_physical_expr(expr.clone(), schema)).collect()
    };
    let pairs = || node.keys.iter().chain([&node.times]);
    let compared = Compared {
        left: physical(pairs().map(|pair| &pair.0).collect(), node.left.schema())?,
        right: physical(pairs().map(|pair| &pair.1).collect(), node.right.schema())?,
        op: node.op,
    };
    let schema = Arc::clone(node.schema.inner());
    Ok(Arc::new(AsOfJoinExec::new((Arc::clone(left), Arc::clone(right)), schema, compared)))
}

#[derive(Debug)]
pub(crate) struct AsOfJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    compared: Compared,
    properties: Arc<PlanProperties>,
    table: Arc<OnceCell<Arc<Table>>>,
}

impl AsOfJoinExec {
    fn new(
        (left, right): (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>),
        schema: SchemaRef,
        compared: Compared,
    ) -> Self {
        let partitions = left.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (properties, table) = (Arc::new(properties), Arc::default());
        Self { left, right, schema, compared, properties, table }
    }
}

impl DisplayAs for AsOfJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared { left, right, op } = &self.compared;
        let (time, keys) = (left.len() - 1, left.iter().zip(right).take(left.len() - 1));
        write!(f, "AsOfJoinExec: {} {op} {}", left[time], right[time])?;
        keys.into_iter().try_for_each(|(left, right)| write!(f, ", {left} = {right}"))
    }
}

impl ExecutionPlan for AsOfJoinExec {
    fn name(&self) -> &'static str {
        "AsOfJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![
            Distribution::UnspecifiedDistribution,
            Distribution::SinglePartition,
        ])
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.compared.left.iter().chain(&self.compared.right).apply_until_stop(visit)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(right), Some(left)) = (children.pop(), children.pop()) else {
            return Err(Error::internal("two children").into());
        };
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(Self::new((left, right), schema, self.compared.clone())))
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
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let (right, cell) = (Arc::clone(&self.right), Arc::clone(&self.table));
        let (compared, schema) = (self.compared.clone(), Arc::clone(&self.schema));
        let joined = stream::try_unfold((left, None::<Arc<Table>>), move |(mut left, table)| {
            let (right, cell, context) =
                (Arc::clone(&right), Arc::clone(&cell), Arc::clone(&context));
            let (compared, schema) = (compared.clone(), Arc::clone(&schema));
            async move {
                let table = match table {
                    Some(table) => table,
                    None => {
                        let read = || Table::read(&right, context, &compared);
                        Arc::clone(cell.get_or_try_init(read).await?)
                    }
                };
                let Some(batch) = left.next().await.transpose()? else { return Ok(None) };
                let joined = table.join(&batch, &compared, &schema)?;
                Ok(Some((joined, (left, Some(table)))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), joined)))
    }
}

/// The right side, by its keys.
#[derive(Debug)]
struct Table {
    rows: RecordBatch,
    /// Of each key its times in order, and the row of each.
    times: HashMap<Box<[u8]>, Vec<(i64, u32)>>,
    _memory: MemoryReservation,
}

impl Table {
    async fn read(
        right: &Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        compared: &Compared,
    ) -> Result<Arc<Self>> {
        let memory = MemoryConsumer::new("AsOfJoin").register(context.memory_pool());
        let mut stream = right.execute(0, context)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            // The rows, their copy in one piece, and 16 bytes of time and place each.
            memory.try_grow(2 * batch.get_array_memory_size() + 16 * batch.num_rows())?;
            batches.push(batch);
        }
        let rows = concat_batches(&stream.schema(), &batches)?;
        let (keys, row_times) = keys_and_times(&rows, &compared.right)?;
        let mut times: HashMap<Box<[u8]>, Vec<(i64, u32)>> = HashMap::new();
        for (row, time) in row_times.iter().enumerate() {
            let (Some(time), Some(key)) = (time, keys.get(row)) else { continue };
            match times.get_mut(key) {
                Some(times) => times.push((time, row as u32)),
                None => {
                    memory.try_grow(key.len() + KEY_BYTES)?;
                    drop(times.insert(key.into(), vec![(time, row as u32)]));
                }
            }
        }
        times.values_mut().for_each(|times| times.sort_unstable());
        Ok(Arc::new(Self { rows, times, _memory: memory }))
    }

    fn join(
        &self,
        left: &RecordBatch,
        compared: &Compared,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let (keys, times) = keys_and_times(left, &compared.left)?;
        let mut before: Option<(usize, &Vec<(i64, u32)>)> = None;
        let nearest = |row: usize| {
            if times.is_null(row) {
                return None;
            }
            let key = keys.get(row)?;
            // Neighbours often have one key.
            let found = match before {
                Some((other, found)) if keys.get(other) == Some(key) => found,
                _ => self.times.get(key)?,
            };
            before = Some((row, found));
            nearest(found, times.value(row), compared.op)
        };
        let rows: UInt32Array = (0..left.num_rows()).map(nearest).collect();
        let mut columns = left.columns().to_vec();
        for column in self.rows.columns() {
            columns.push(take(column, &rows, None)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// Returns the row whose time is nearest to `time` on the side that `op` names.
fn nearest(times: &[(i64, u32)], time: i64, op: Operator) -> Option<u32> {
    let at = match op {
        Operator::GtEq => times.partition_point(|one| one.0 <= time).checked_sub(1)?,
        Operator::Gt => times.partition_point(|one| one.0 < time).checked_sub(1)?,
        Operator::LtEq => times.partition_point(|one| one.0 < time),
        _ => times.partition_point(|one| one.0 <= time),
    };
    times.get(at).map(|one| one.1)
}

/// Keys of rows as bytes that are equal where they are.
struct Keys {
    rows: Option<datafusion::arrow::row::Rows>,
    /// Rows in which a key is NULL equal none.
    nulls: Vec<ArrayRef>,
}

impl Keys {
    fn get(&self, row: usize) -> Option<&[u8]> {
        if self.nulls.iter().any(|column| column.is_null(row)) {
            return None;
        }
        Some(self.rows.as_ref().map_or(&[], |rows| rows.row(row).data()))
    }
}

fn keys_and_times(batch: &RecordBatch, exprs: &PhysicalExprs) -> Result<(Keys, Int64Array)> {
    let columns = exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows()));
    let mut columns = columns.collect::<Result<Vec<_>>>()?;
    let times = columns.pop().ok_or_else(|| Error::internal("a time is compared"))?;
    let times = match times.data_type() {
        DataType::Timestamp(..) | DataType::Date32 => {
            cast(&cast(&times, &time_type())?, &DataType::Int64)?
        }
        whole if whole.is_integer() => cast(&times, &DataType::Int64)?,
        other => {
            let message = format!("ASOF JOIN by {}", crate::types::pg_name(other));
            return Err(Error::unsupported(message).into());
        }
    };
    let fields: Vec<SortField> =
        columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = if columns.is_empty() {
        None
    } else {
        Some(RowConverter::new(fields)?.convert_columns(&columns)?)
    };
    let nulls = columns.into_iter().filter(|column| column.null_count() > 0).collect();
    Ok((Keys { rows, nulls }, times.as_primitive::<Int64Type>().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_time_lies_on_the_side_asked_for() {
        let times = [(10, 0), (20, 1), (20, 2), (30, 3)];
        assert_eq!(nearest(&times, 20, Operator::GtEq), Some(2));
        assert_eq!(nearest(&times, 20, Operator::Gt), Some(0));
        assert_eq!(nearest(&times, 20, Operator::LtEq), Some(1));
        assert_eq!(nearest(&times, 20, Operator::Lt), Some(3));
        assert_eq!(nearest(&times, 9, Operator::GtEq), None);
        assert_eq!(nearest(&times, 31, Operator::LtEq), None);
    }
}
