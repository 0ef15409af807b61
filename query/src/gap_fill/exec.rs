//! The node that fills gaps: it asks for the rows of the aggregation in order of group and time, and walks
//! the windows one after the other. Memory is that of the aggregation's rows, and accounted.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, TimestampNanosecondArray, UInt32Array,
};
use datafusion::arrow::compute::{SortOptions, concat_batches, partition, take};
use datafusion::arrow::datatypes::{Float64Type, SchemaRef, TimestampNanosecondType};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexRequirement, OrderingRequirements, PhysicalExpr,
    PhysicalSortRequirement,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use model::schema::TIME_ZONE;

use super::{GapFill, Role, is_time};
use crate::error::Error;
use crate::functions::windows::Stride;
use crate::plan_nodes::{only, recomputed};

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// The most rows one gap filling makes.
const ROWS_MAX: i128 = 100_000_000;

/// What is filled, and how.
#[derive(Clone, Debug)]
struct Filling {
    roles: Vec<Role>,
    stride: Stride,
    origin: i64,
    /// First and last instant that WHERE allows.
    from: Option<i64>,
    to: Option<i64>,
}

/// Makes the physical node.
///
/// # Errors
/// A bound that has no value.
pub(crate) fn plan(
    node: &GapFill,
    input: Arc<dyn ExecutionPlan>,
    session: &dyn Session,
) -> Result<Arc<dyn ExecutionPlan>> {
    let (mut from, mut to): (Option<i64>, Option<i64>) = (None, None);
    for bound in &node.bounds {
        let Some(value) = evaluate(&bound.value, session)? else { continue };
        let (low, high) = match bound.op {
            Operator::Gt => (value.checked_add(1), None),
            Operator::GtEq => (Some(value), None),
            Operator::Lt => (None, value.checked_sub(1)),
            Operator::LtEq => (None, Some(value)),
            _ => (Some(value), Some(value)),
        };
        from = from.max(low);
        to = match (to, high) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    let schema = Arc::clone(node.schema.inner());
    let filling =
        Filling { roles: node.roles.clone(), stride: node.stride, origin: node.origin, from, to };
    Ok(Arc::new(GapFillExec::new(input, schema, filling)))
}

/// Returns the instant of an expression without columns.
fn evaluate(expr: &Expr, session: &dyn Session) -> Result<Option<i64>> {
    let value = match expr {
        Expr::Literal(value, _) => value.clone(),
        other => {
            let expr = session.create_physical_expr(other.clone(), &DFSchema::empty())?;
            let one_row = ScalarValue::Boolean(None).to_array()?;
            let batch = RecordBatch::try_from_iter([("row", one_row)])?;
            ScalarValue::try_from_array(&expr.evaluate(&batch)?.into_array(1)?, 0)?
        }
    };
    let time = ScalarValue::TimestampNanosecond(None, Some(TIME_ZONE.into())).data_type();
    Ok(match value.cast_to(&time)? {
        ScalarValue::TimestampNanosecond(ns, _) => ns,
        _ => None,
    })
}

#[derive(Debug)]
struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    filling: Filling,
    properties: Arc<PlanProperties>,
}

impl GapFillExec {
    fn new(input: Arc<dyn ExecutionPlan>, schema: SchemaRef, filling: Filling) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, schema, filling, properties: Arc::new(properties) }
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFillExec: stride={:?}", self.filling.stride)
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &'static str {
        "GapFillExec"
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
        let schema = self.input.schema();
        let roles = &self.filling.roles;
        let of = |wanted: Role| (0..roles.len()).filter(move |at| roles[*at] == wanted);
        let options = SortOptions { descending: false, nulls_first: false };
        let sorted = of(Role::Key).chain(of(Role::Time)).map(|at| {
            let column = Arc::new(Column::new(schema.field(at).name(), at));
            PhysicalSortRequirement::new(column, Some(options))
        });
        vec![LexRequirement::new(sorted).map(OrderingRequirements::new)]
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
        Ok(Arc::new(Self::new(only(children)?, Arc::clone(&self.schema), self.filling.clone())))
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
        let mut input = self.input.execute(partition, Arc::clone(&context))?;
        let memory = MemoryConsumer::new("GapFill").register(context.memory_pool());
        let (schema, filling) = (Arc::clone(&self.schema), self.filling.clone());
        let started = async move {
            let mut batches = Vec::new();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                // Once as it comes, once in one piece.
                memory.try_grow(2 * batch.get_array_memory_size())?;
                batches.push(batch);
            }
            let rows = concat_batches(&input.schema(), &batches)?;
            let mut walk = Walk::new(filling, schema, &rows)?;
            Ok::<_, DataFusionError>(stream::iter(std::iter::from_fn(move || {
                // Held as long as rows are.
                let _held = &memory;
                walk.next_batch().transpose()
            })))
        };
        let batches = stream::once(started).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }
}

/// A walk through all windows of all groups.
struct Walk {
    filling: Filling,
    schema: SchemaRef,
    /// In order of group and time.
    columns: Vec<ArrayRef>,
    groups: std::vec::IntoIter<Range<usize>>,
    group: Option<Group>,
    /// The first and the last window.
    span: (i64, i64),
}

/// Where the walk is in a group.
struct Group {
    rows: Range<usize>,
    /// The window that comes next; `None` behind the last.
    window: Option<i64>,
    /// The row that comes next.
    row: usize,
    /// The last row of each column that was not NULL.
    last: Vec<Option<u32>>,
    /// Where the next row of each column is looked for that is not NULL.
    next: Vec<usize>,
}

impl Walk {
    fn new(filling: Filling, schema: SchemaRef, rows: &RecordBatch) -> Result<Self> {
        let time = filling.roles.iter().position(|role| *role == Role::Time);
        let time = time.filter(|at| is_time(rows.column(*at).data_type()));
        let time = time.ok_or_else(|| Error::internal("gap filling without a time"))?;
        let keys = (0..filling.roles.len()).filter(|at| filling.roles[*at] == Role::Key);
        let keys: Vec<usize> = keys.collect();
        let mut columns = rows.columns().to_vec();
        let groups = if keys.is_empty() {
            std::iter::once(0..rows.num_rows()).collect()
        } else {
            let keys: Vec<ArrayRef> = keys.iter().map(|at| Arc::clone(&columns[*at])).collect();
            partition(&keys)?.ranges()
        };
        let times = columns[time].as_primitive::<TimestampNanosecondType>().clone();
        let found = || times.iter().flatten();
        let window = |time: Option<i64>| time.and_then(|t| filling.stride.start(t, filling.origin));
        let first = window(filling.from).or_else(|| found().min()).unwrap_or(i64::MAX);
        let last = window(filling.to).or_else(|| found().max()).unwrap_or(i64::MIN);
        // Once more, behind the others: the walk reads it all the while, whatever its place.
        columns.push(Arc::new(times));
        filling.check_rows((first, last), groups.len())?;
        let groups = groups.into_iter().filter(|rows| !rows.is_empty()).collect::<Vec<_>>();
        let groups = groups.into_iter();
        Ok(Self { filling, schema, columns, groups, group: None, span: (first, last) })
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut rows = Rows::new(self.filling.roles.len());
        let times = Arc::clone(&self.columns[self.columns.len() - 1]);
        let times = times.as_primitive::<TimestampNanosecondType>();
        while rows.windows.len() < BATCH_ROWS {
            if self.group.is_none() {
                let Some(range) = self.groups.next() else { break };
                let window = (self.span.0 <= self.span.1).then_some(self.span.0);
                let columns = self.filling.roles.len();
                let (last, next) = (vec![None; columns], vec![range.start; columns]);
                self.group = Some(Group { row: range.start, rows: range, window, last, next });
            }
            let Some(group) = &mut self.group else { break };
            let time = (group.row < group.rows.end && times.is_valid(group.row))
                .then(|| times.value(group.row));
            let window = match (time, group.window) {
                // A row outside of the bounds; WHERE lets none through.
                (Some(time), Some(window)) if time < window => time,
                (_, Some(window)) if window <= self.span.1 => window,
                (Some(time), _) => time,
                _ => {
                    self.group = None;
                    continue;
                }
            };
            let row = (time == Some(window)).then_some(group.row as u32);
            self.filling.visit(&self.columns, group, row);
            rows.add((window, row), group, &self.filling, &self.columns);
            group.row += usize::from(row.is_some());
            if group.window == Some(window) {
                group.window = self.filling.stride.after(window, self.filling.origin);
            }
        }
        if rows.windows.is_empty() {
            return Ok(None);
        }
        rows.finish(&self.filling, &self.columns, &self.schema).map(Some)
    }
}

impl Filling {
    /// Refuses what would make rows without end, before the first is made.
    fn check_rows(&self, (first, last): (i64, i64), groups: usize) -> Result<()> {
        let shortest_month_ns = 28 * 86_400_000_000_000;
        let stride = match self.stride {
            Stride::Ns(ns) => ns,
            Stride::Months(months) => months.saturating_mul(shortest_month_ns),
        };
        let windows = (i128::from(last) - i128::from(first)).max(0) / i128::from(stride) + 1;
        if windows * groups as i128 <= ROWS_MAX {
            return Ok(());
        }
        let message = format!("gap filling would make more than {ROWS_MAX} rows");
        Err(Error::new("54000", message).hint("take longer windows, or fewer groups").into())
    }

    /// Notes which values a row has.
    fn visit(&self, columns: &[ArrayRef], group: &mut Group, row: Option<u32>) {
        let Some(row) = row else { return };
        for (at, role) in self.roles.iter().enumerate() {
            let carried = matches!(role, Role::Locf | Role::Interpolate);
            if carried && columns[at].is_valid(row as usize) {
                group.last[at] = Some(row);
            }
        }
    }
}

/// The rows of a batch, as places in the sorted columns.
struct Rows {
    windows: Vec<i64>,
    /// The first row of each one's group.
    keys: Vec<u32>,
    rows: Vec<Option<u32>>,
    /// Of each column what was carried forward, or interpolated.
    carried: Vec<Vec<Option<u32>>>,
    computed: Vec<Vec<Option<f64>>>,
}

impl Rows {
    fn new(columns: usize) -> Self {
        Self {
            windows: Vec::with_capacity(BATCH_ROWS),
            keys: Vec::with_capacity(BATCH_ROWS),
            rows: Vec::with_capacity(BATCH_ROWS),
            carried: vec![Vec::new(); columns],
            computed: vec![Vec::new(); columns],
        }
    }

    fn add(
        &mut self,
        (window, row): (i64, Option<u32>),
        group: &mut Group,
        filling: &Filling,
        columns: &[ArrayRef],
    ) {
        self.windows.push(window);
        self.keys.push(group.rows.start as u32);
        self.rows.push(row);
        for (at, role) in filling.roles.iter().enumerate() {
            match role {
                Role::Locf => self.carried[at].push(group.last[at]),
                Role::Interpolate => {
                    self.computed[at].push(interpolated(columns, at, group, window));
                }
                Role::Time | Role::Key | Role::Null => {}
            }
        }
    }

    fn finish(
        self,
        filling: &Filling,
        columns: &[ArrayRef],
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let keys = UInt32Array::from(self.keys);
        let rows = UInt32Array::from(self.rows);
        let mut made: Vec<ArrayRef> = Vec::with_capacity(filling.roles.len());
        let filled = self.carried.into_iter().zip(self.computed);
        for ((role, column), (carried, computed)) in filling.roles.iter().zip(columns).zip(filled) {
            made.push(match role {
                Role::Time => {
                    let times = TimestampNanosecondArray::from(self.windows.clone());
                    Arc::new(times.with_timezone(TIME_ZONE))
                }
                Role::Key => take(column, &keys, None)?,
                Role::Null => take(column, &rows, None)?,
                Role::Locf => take(column, &UInt32Array::from(carried), None)?,
                Role::Interpolate => Arc::new(Float64Array::from(computed)),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), made)?)
    }
}

/// Returns a column's value in a window: its own, or that on the line between its neighbours.
fn interpolated(columns: &[ArrayRef], at: usize, group: &mut Group, window: i64) -> Option<f64> {
    let values = columns[at].as_primitive::<Float64Type>();
    let times = columns[columns.len() - 1].as_primitive::<TimestampNanosecondType>();
    let before = group.last[at]? as usize;
    let (start, low) = (times.value(before), values.value(before));
    if start == window {
        return Some(low);
    }
    let after = (group.next[at]..group.rows.end)
        .find(|row| values.is_valid(*row) && times.is_valid(*row) && times.value(*row) > window);
    group.next[at] = after.unwrap_or(group.rows.end);
    let after = after?;
    let share = (window - start) as f64 / (times.value(after) - start) as f64;
    Some(low + share * (values.value(after) - low))
}
