//! A rule and its node: partial aggregation of rows whose groups come in stretches.
//!
//! Rows come series by series, then by time; grouped by tags and a window of time, those of a group lie
//! together. So nothing need be looked up in a table of groups: a group ends where its key does. A group that
//! comes again, as of two series of one host, is another row of the partial result, which the final aggregation
//! merges.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, UInt32Array, make_comparator, new_empty_array,
};
use datafusion::arrow::compute::{SortOptions, cast, concat, partition, take};
use datafusion::arrow::datatypes::{
    DataType, FieldRef, SchemaRef, TimestampNanosecondType, UInt32Type,
};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
    InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Error;
use crate::plan_nodes::{each_once, recomputed};
use crate::scan::TskvScanExec;

/// Groups that are given on together.
const GROUPS_TOGETHER: usize = 4_096;

/// Aggregates stretch by stretch where groups lie together.
#[derive(Debug)]
pub(crate) struct Stretches;

impl PhysicalOptimizerRule for Stretches {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // What may be sent to other nodes is made of DataFusion's nodes alone.
        let elsewhere = plan.exists(|node| {
            let scan = node.downcast_ref::<TskvScanExec>();
            Ok(scan.is_some_and(|scan| scan.rows_elsewhere() > 0))
        })?;
        if elsewhere {
            return Ok(plan);
        }
        plan.transform_up(|node| match StretchAggregateExec::of(&node) {
            Some(stretches) => Ok(Transformed::yes(Arc::new(stretches) as _)),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "stretches"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A partial aggregation of groups that lie together.
#[derive(Debug)]
pub(crate) struct StretchAggregateExec {
    /// What it does the work of.
    aggregation: Arc<dyn ExecutionPlan>,
    /// The places of those of the keys that rows are in the order of, first to last.
    sorted: Vec<usize>,
    /// What rows it takes: those of the aggregation's input, with tags as dictionaries that are but keys.
    rows: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl StretchAggregateExec {
    fn new(
        aggregation: &Arc<dyn ExecutionPlan>,
        aggregate: &AggregateExec,
        sorted: Vec<usize>,
    ) -> Self {
        Self {
            aggregation: Arc::clone(aggregation),
            sorted,
            rows: rows_to_fold(aggregate),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Makes the node in the stead of a partial aggregation; `None` where its groups do not lie together.
    fn of(node: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let aggregate = node.downcast_ref::<AggregateExec>()?;
        let groups = aggregate.group_expr();
        let has_groups = groups.is_single() && !groups.is_empty();
        let mut functions = aggregate.aggr_expr().iter();
        if !has_groups
            || !is_plain(node, aggregate)
            || !functions.all(|function| {
                function.groups_accumulator_supported() && function.order_bys().is_empty()
            })
        {
            return None;
        }
        let keys: Vec<&Arc<dyn PhysicalExpr>> = groups.expr().iter().map(|(key, _)| key).collect();
        let sorted = sorted(aggregate.input(), &keys);
        let scan = scan_feeding(aggregate.input());
        let is_tag = |column: &Column| scan.is_some_and(|scan| scan.has_tag(column.name()));
        let others = keys.iter().enumerate().filter(|(at, _)| !sorted.contains(at));
        let mut columns = others.flat_map(|(_, key)| collect_columns(key));
        let lie_together = if sorted.is_empty() {
            // Windows of time may be as short as a row, and come again for each series.
            scan.is_some_and(TskvScanExec::has_long_series) && columns.all(|column| is_tag(&column))
        } else {
            columns.all(|column| column.name() == "time" || is_tag(&column))
        };
        lie_together.then(|| Self::new(node, aggregate, sorted))
    }

    /// Returns the aggregation that it does the work of.
    pub(crate) fn aggregation(&self) -> &Arc<dyn ExecutionPlan> {
        &self.aggregation
    }

    fn aggregate(&self) -> Result<&AggregateExec> {
        let aggregate = self.aggregation.downcast_ref::<AggregateExec>();
        Ok(aggregate.ok_or_else(|| Error::internal("it was made of an aggregation"))?)
    }
}

/// Returns whether an aggregation is the first half of one, of all rows as they are.
pub(crate) fn is_plain(node: &Arc<dyn ExecutionPlan>, aggregate: &AggregateExec) -> bool {
    *aggregate.mode() == AggregateMode::Partial
        && aggregate.limit_options().is_none()
        && aggregate.filter_expr().iter().all(Option::is_none)
        && node.dynamic_expressions_produced().is_empty()
        && aggregate.aggr_expr().iter().all(|function| !function.is_distinct())
}

/// Returns an aggregation's input; where that is a scan, one for who works on its rows at once, with tags as
/// dictionaries that are but keys: their texts are needed once for each group, not once for each row.
fn rows_to_fold(aggregate: &AggregateExec) -> Arc<dyn ExecutionPlan> {
    let input = aggregate.input();
    let Some(scan) = input.downcast_ref::<TskvScanExec>() else { return Arc::clone(input) };
    let keys = aggregate.group_expr().expr().iter().map(|(key, _)| Arc::clone(key));
    let arguments = aggregate.aggr_expr().iter().flat_map(|function| function.expressions());
    let worked_on = keys.filter(|key| !key.is::<Column>()).chain(arguments);
    let columns: HashSet<Column> = worked_on.flat_map(|expr| collect_columns(&expr)).collect();
    let with_dictionaries =
        scan.with_dictionaries(|at| columns.iter().all(|column| column.index() != at));
    Arc::new(with_dictionaries.unwrap_or_else(|| scan.clone()).folded())
}

/// Returns the one scan that rows come from. Where a projection on the way gives a name to another column,
/// groups may be taken to lie together that do not: that costs time, no more.
fn scan_feeding(node: &Arc<dyn ExecutionPlan>) -> Option<&TskvScanExec> {
    match (node.downcast_ref::<TskvScanExec>(), node.children().as_slice()) {
        (Some(scan), _) => Some(scan),
        (None, [child]) => scan_feeding(child),
        (None, _) => None,
    }
}

/// Returns the places of the keys that rows are in the order of: those that an order begins with.
fn sorted(input: &Arc<dyn ExecutionPlan>, keys: &[&Arc<dyn PhysicalExpr>]) -> Vec<usize> {
    let orderings =
        input.properties().equivalence_properties().oeq_class().iter().map(|ordering| {
            let places =
                ordering.iter().map(|sort| keys.iter().position(|key| key.eq(&&sort.expr)));
            places.map_while(|place| place).collect::<Vec<usize>>()
        });
    orderings.max_by_key(Vec::len).unwrap_or_default()
}

impl DisplayAs for StretchAggregateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(aggregate) = self.aggregate() else { return Ok(()) };
        let keys =
            aggregate.group_expr().expr().iter().map(|(key, name)| format!("{key} as {name}"));
        let functions = aggregate.aggr_expr().iter().map(|function| function.name().to_owned());
        let (keys, functions): (Vec<_>, Vec<_>) = (keys.collect(), functions.collect());
        write!(
            f,
            "StretchAggregateExec: gby=[{}], aggr=[{}]",
            keys.join(", "),
            functions.join(", ")
        )?;
        let rows = self.rows.schema();
        let are_dictionaries =
            |field: &&FieldRef| matches!(field.data_type(), DataType::Dictionary(..));
        let tags = rows.fields().iter().filter(are_dictionaries);
        let tags: Vec<&str> = tags.map(|field| field.name().as_str()).collect();
        if tags.is_empty() { Ok(()) } else { write!(f, ", dictionaries=[{}]", tags.join(", ")) }
    }
}

impl ExecutionPlan for StretchAggregateExec {
    fn name(&self) -> &'static str {
        "StretchAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregation.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.aggregation.children()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.aggregation.input_distribution_requirements()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.aggregation.required_input_ordering()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.aggregation.maintains_input_order()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.aggregation.apply_expressions(visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let aggregation = Arc::clone(&self.aggregation).replace_children(children, options)?;
        if options.children_properties == ChildrenPropertiesMode::Keep
            && let Some(aggregate) = aggregation.downcast_ref::<AggregateExec>()
        {
            return Ok(Arc::new(Self::new(&aggregation, aggregate, self.sorted.clone())));
        }
        // Over rows in another order groups need not lie together.
        Ok(match Self::of(&aggregation) {
            Some(stretches) => Arc::new(stretches),
            None => aggregation,
        })
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
        let aggregate = self.aggregate()?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let schema = aggregate.schema();
        let reserved = MemoryConsumer::new(format!("{}[{partition}]", self.name()))
            .register(context.memory_pool());
        let folding = Folding::new(aggregate, self.sorted.clone(), reserved)?;
        let input = self.rows.execute(partition, context)?;
        let rows = stream::try_unfold((input, Some(folding)), |(mut input, folding)| async {
            let Some(mut folding) = folding else { return Ok(None) };
            while let Some(batch) = input.try_next().await? {
                folding.add(&batch)?;
                let has_memory = folding.reserve();
                let ready = folding.groups.saturating_sub(1);
                if ready >= GROUPS_TOGETHER || (has_memory.is_err() && ready > 0) {
                    let batch = folding.give(EmitTo::First(ready))?;
                    folding.reserve()?;
                    return Ok(Some((batch, (input, Some(folding)))));
                }
                has_memory?;
            }
            let batch = folding.give(EmitTo::All)?;
            Ok(Some((batch, (input, None))))
        });
        let rows = rows.inspect(move |batch| {
            if let Ok(batch) = batch {
                batch.record_output(&metrics);
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// An aggregation under way: groups that came, the last of which may go on.
struct Folding {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    sorted: Vec<usize>,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    functions: Vec<Box<dyn GroupsAccumulator>>,
    schema: SchemaRef,
    /// Groups that were not given on.
    groups: usize,
    /// Their keys, a column in parts.
    known: Vec<Vec<ArrayRef>>,
    /// The key of the last, a row.
    last: Option<Vec<ArrayRef>>,
    reserved: MemoryReservation,
}

impl Folding {
    fn new(
        aggregate: &AggregateExec,
        sorted: Vec<usize>,
        reserved: MemoryReservation,
    ) -> Result<Self> {
        let functions = aggregate.aggr_expr();
        let keys: Vec<_> =
            aggregate.group_expr().expr().iter().map(|(key, _)| Arc::clone(key)).collect();
        Ok(Self {
            known: vec![Vec::new(); keys.len()],
            keys,
            sorted,
            arguments: functions.iter().map(|function| function.expressions()).collect(),
            functions: functions
                .iter()
                .map(|function| function.create_groups_accumulator())
                .collect::<Result<_>>()?,
            schema: aggregate.schema(),
            groups: 0,
            last: None,
            reserved,
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(rows);
        let keys = self.keys.iter().map(evaluate).collect::<Result<Vec<ArrayRef>>>()?;
        let ends = stretches(&keys, &self.sorted, rows)?;
        let goes_on = match &self.last {
            Some(last) => is_same_key(last, &keys)?,
            None => false,
        };
        let first = self.groups - usize::from(goes_on);
        let mut numbers: Vec<usize> = Vec::with_capacity(rows);
        for (at, end) in ends.iter().enumerate() {
            numbers.resize(*end, first + at);
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let fresh = starts.take(ends.len()).skip(usize::from(goes_on)).map(|start| start as u32);
        let fresh = UInt32Array::from_iter_values(fresh);
        if !fresh.is_empty() {
            for (at, (known, keys)) in self.known.iter_mut().zip(&keys).enumerate() {
                let keys = take(keys, &fresh, None)?;
                known.push(cast(&keys, self.schema.field(at).data_type())?);
            }
        }
        self.groups = first + ends.len();
        self.last = Some(keys.iter().map(|key| key.slice(rows - 1, 1)).collect());
        for (function, arguments) in self.functions.iter_mut().zip(&self.arguments) {
            let values = arguments.iter().map(evaluate).collect::<Result<Vec<ArrayRef>>>()?;
            function.update_batch(&values, &numbers, None, self.groups)?;
        }
        Ok(())
    }

    /// Accounts for the memory that the groups take.
    fn reserve(&self) -> Result<()> {
        let functions = self.functions.iter().map(|function| function.size());
        let keys = self.known.iter().flatten().map(|keys| keys.get_array_memory_size());
        self.reserved.try_resize(functions.sum::<usize>() + keys.sum::<usize>())
    }

    /// Gives the groups that came first.
    fn give(&mut self, which: EmitTo) -> Result<RecordBatch> {
        let count = match which {
            EmitTo::All => self.groups,
            EmitTo::First(count) => count,
        };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (at, known) in self.known.iter_mut().enumerate() {
            if known.is_empty() {
                columns.push(new_empty_array(self.schema.field(at).data_type()));
                continue;
            }
            let parts: Vec<_> = known.iter().map(AsRef::as_ref).collect();
            let all = concat(&parts)?;
            columns.push(all.slice(0, count));
            *known = vec![all.slice(count, all.len() - count)];
        }
        for function in &mut self.functions {
            columns.extend(function.state(which)?);
        }
        self.groups -= count;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn is_same_key(last: &[ArrayRef], keys: &[ArrayRef]) -> Result<bool> {
    for (last, key) in last.iter().zip(keys) {
        let compare = make_comparator(last, key, SortOptions::default())?;
        if compare(0, 0).is_ne() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns where each stretch of rows with one key ends. Rows are in the order of the `sorted` ones.
fn stretches(keys: &[ArrayRef], sorted: &[usize], rows: usize) -> Result<Vec<usize>> {
    let mut ends = vec![rows];
    for at in sorted {
        let compare = make_comparator(&keys[*at], &keys[*at], SortOptions::default())?;
        ends = split(&ends, |start, end| {
            // In order: what is the same at both ends of rows is so between them.
            let mut step = 1;
            while start + step < end && compare(start, start + step).is_eq() {
                step *= 2;
            }
            let (mut same, mut other) = (start + step / 2, end.min(start + step));
            while other - same > 1 {
                let middle = usize::midpoint(same, other);
                if compare(start, middle).is_eq() { same = middle } else { other = middle }
            }
            other
        });
    }
    for (_, key) in keys.iter().enumerate().filter(|(at, _)| !sorted.contains(at)) {
        let times = key.as_primitive_opt::<TimestampNanosecondType>();
        let tags = key.as_dictionary_opt::<UInt32Type>();
        ends = match (times.filter(|times| times.nulls().is_none()), tags) {
            (Some(times), _) => split_at_changes(&ends, times.values()),
            // Another number may be the same text: a group that comes in parts is merged later.
            (None, Some(tags)) => split_at_changes(&ends, tags.keys().values()),
            (None, None) => merged(&ends, partition(std::slice::from_ref(key))?.ranges()),
        };
    }
    Ok(ends)
}

/// Splits stretches where a value differs from the one before it.
fn split_at_changes<T: PartialEq>(ends: &[usize], values: &[T]) -> Vec<usize> {
    split(ends, |start, end| {
        let same = values[start..end].iter().take_while(|value| **value == values[start]);
        start + same.count()
    })
}

/// Returns the ends of two divisions of the same rows.
fn merged(ends: &[usize], others: Vec<Range<usize>>) -> Vec<usize> {
    each_once(others.into_iter().map(|range| range.end).chain(ends.iter().copied()).collect())
}

/// Splits stretches; `end_of` gives where the first part of rows from one place to another ends.
fn split(ends: &[usize], end_of: impl Fn(usize, usize) -> usize) -> Vec<usize> {
    let mut parts = Vec::with_capacity(ends.len());
    let mut start = 0;
    for end in ends {
        while start < *end {
            start = end_of(start, *end);
            parts.push(start);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, StringArray, TimestampNanosecondArray};

    #[test]
    fn stretches_end_where_a_key_does() {
        let hosts: ArrayRef = Arc::new(StringArray::from(vec!["a", "a", "a", "a", "a", "b", "c"]));
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1, 1, 2, 1, 1, 1, 1]));
        let numbers: ArrayRef =
            Arc::new(Int64Array::from(vec![None, None, None, Some(1), None, None, None]));
        let ends = |keys: &[&ArrayRef], sorted: &[usize]| {
            let keys: Vec<ArrayRef> = keys.iter().map(|key| Arc::clone(key)).collect();
            stretches(&keys, sorted, 7).unwrap()
        };
        assert_eq!(ends(&[&hosts], &[0]), [5, 6, 7]);
        assert_eq!(ends(&[&times, &hosts], &[1]), [2, 3, 5, 6, 7]);
        assert_eq!(ends(&[&hosts, &times], &[]), [2, 3, 5, 6, 7]);
        assert_eq!(ends(&[&numbers], &[]), [3, 4, 7]);
        for hosts_alike in 1..40 {
            let hosts: ArrayRef = Arc::new(StringArray::from_iter_values(
                (0..40).map(|at| if at < hosts_alike { "a" } else { "b" }),
            ));
            let expected = if hosts_alike == 40 { vec![40] } else { vec![hosts_alike, 40] };
            assert_eq!(stretches(&[hosts], &[0], 40).unwrap(), expected);
        }
    }
}
