//! The leaf of every plan: scans of vnodes as an execution plan.
//!
//! Invariant: an ordering is declared only where every scan of a partition keeps it, for a false one
//! gives silently wrong answers.

mod ahead;
mod known;
mod reading;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use cluster::{ExactCounts, PinnedScan, Scan, ScanColumn, ScanRequest, SeriesFilter, ValueTest};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr, expressions,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};

use model::{ColumnId, NodeId, TableId, TimeRange, ValueType};
use serde::{Deserialize, Serialize};

use crate::catalog::TableRead;
use crate::plan_nodes::recomputed;
pub(crate) use known::KnownRows;
use reading::Reading;

/// Up to so many vnodes each is a partition of its own; above, they are read one after another in
/// [`PARTITIONS_FEW`] partitions.
const PARTITIONS_MAX: usize = 16;
const PARTITIONS_FEW: usize = 4;

/// A scan of fewer rows is not split.
const SPLIT_ROWS: usize = 65_536;
/// No more rows are worth another thread to work on, or to read them.
const SMALL_ROWS: usize = 8_192;
/// Where this part of the rows that are decoded comes, most batches are soon there.
const WANTED_SHARE: usize = 8;
/// So many rows make a series long.
const SERIES_ROWS_LONG: usize = 64;

/// How a table is to be read.
#[derive(Clone, Debug)]
pub(crate) struct ScanOptions<'a> {
    /// The table's tags, in order.
    pub(crate) tags: &'a [String],
    /// What is given: as what is requested, times in the session's zone.
    pub(crate) schema: SchemaRef,
    /// How many rows suffice.
    pub(crate) limit: Option<usize>,
    /// How many threads there are to read.
    pub(crate) partitions_wanted: usize,
    /// From how many rows on other nodes work on what they read, rather than send it.
    pub(crate) stage_rows_min: usize,
}

/// Reads a table.
#[derive(Clone, Debug)]
pub(crate) struct TskvScanExec {
    table: String,
    request: ScanRequest,
    schema: SchemaRef,
    partitions: Vec<Vec<Scan>>,
    limit: Option<usize>,
    /// Whether only the newest row of each series is read.
    last_rows: bool,
    /// Whether row groups that are known are not read.
    has_left_out: bool,
    /// Whether each batch has values of its own, for batches are held on to.
    is_held: bool,
    /// Whether who polls works on rows, all partitions at once.
    is_folded: bool,
    buckets: (usize, usize),
    /// The node that reads, where the scan is a part of one that several nodes read.
    node: Option<NodeId>,
    statistics: Arc<Statistics>,
    /// How to read again, where that may be asked for.
    reopening: Option<Arc<TableRead>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What of a scan a plan is made for: with another scan of this layout it is as good.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScanLayout {
    partitions: usize,
    orderings: Vec<LexOrdering>,
    pub(crate) is_small: bool,
}

/// A scan on its way to the node that reads it, but for its schema.
#[derive(Serialize, Deserialize)]
pub(crate) struct SentScan {
    table: String,
    id: TableId,
    columns: Vec<ScanColumn>,
    times: TimeRange,
    filter: SeriesFilter,
    values: Vec<ValueTest>,
    order: Vec<ColumnId>,
    limit: Option<usize>,
    last_rows: bool,
    buckets: (usize, usize),
    node: Option<NodeId>,
    partitions: Vec<Vec<PinnedScan>>,
    /// Columns the rows of each partition are in the order of.
    orderings: Vec<Vec<String>>,
}

impl TskvScanExec {
    /// Notes how to read again.
    pub(crate) fn reopened_by(self, read: TableRead) -> Self {
        Self { reopening: Some(Arc::new(read)), ..self }
    }

    /// Returns how to read again, where it was noted.
    pub(crate) fn reopening(&self) -> Option<&TableRead> {
        self.reopening.as_deref()
    }

    /// Returns what a plan depends on.
    pub(crate) fn layout(&self) -> ScanLayout {
        let (partitions, is_small) = (self.partitions.len(), self.is_small());
        ScanLayout { partitions, orderings: self.orderings(), is_small }
    }

    /// Returns whether its rows are about a batch at most.
    pub(crate) fn is_small(&self) -> bool {
        self.statistics.num_rows.get_value().is_some_and(|rows| *rows <= SMALL_ROWS)
    }

    /// Returns whether its rows are about a batch at most, and soon read.
    pub(crate) fn reads_little(&self) -> bool {
        self.partitions.iter().all(|scans| self.are_soon_read(scans))
    }

    fn are_soon_read(&self, scans: &[Scan]) -> bool {
        self.is_small() && scans.iter().all(Scan::reads_little)
    }

    /// Returns whether there is work for so many threads, each with about as many rows of this node, and most of what
    /// is decoded is wanted, so that no batch is long in coming: then threads of its own would but have rows change
    /// processors.
    fn keeps_busy(&self, threads: usize) -> bool {
        let of_partition = |scans: &Vec<Scan>| scans.iter().map(Scan::rows_expected).sum();
        let expected = self.partitions.iter().map(of_partition).collect::<Option<Vec<usize>>>();
        let Some(expected) = expected.filter(|_| self.is_folded && !self.last_rows) else {
            return false;
        };
        let (all, most) = (expected.iter().sum::<usize>(), expected.iter().max());
        let decoded: usize = self.partitions.iter().flatten().map(Scan::rows_about).sum();
        expected.len() >= threads
            && most.is_some_and(|most| 2 * most * threads <= 3 * all)
            && all * WANTED_SHARE >= decoded
    }

    /// Returns whether the series have many rows each, as far as is known.
    pub(crate) fn has_long_series(&self) -> bool {
        !self.last_rows && self.rows_expected() / self.series().max(1) >= SERIES_ROWS_LONG
    }

    /// Returns how many series are read.
    fn series(&self) -> usize {
        self.partitions.iter().flatten().map(|scan| scan.counts().series).sum()
    }

    /// Returns whether a tag is read that is called so.
    pub(crate) fn has_tag(&self, name: &str) -> bool {
        self.schema.column_with_name(name).is_some_and(|(at, _)| self.is_tag(at))
    }

    /// Returns whether all is known of the rows without reading them.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.statistics.num_rows, Precision::Exact(_))
    }

    /// Returns whether row groups that are known are not read.
    pub(crate) fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    /// Returns the scan without the rows it has pinned.
    pub(crate) fn emptied(&self) -> Self {
        Self { partitions: vec![Vec::new(); self.partitions.len()], ..self.clone() }
    }

    /// Returns another scan, of the newest rows alone if this one is, and for who holds on to its batches.
    pub(crate) fn like(&self, other: Self) -> Option<Self> {
        let other = if self.is_held { other.held() } else { other };
        if self.last_rows { other.only_last_rows() } else { Some(other) }
    }

    /// Returns the scan for who holds on to its batches.
    pub(crate) fn held(self) -> Self {
        Self { is_held: true, ..self }
    }

    /// Returns the scan for who works on its rows, all partitions at once.
    pub(crate) fn folded(self) -> Self {
        Self { is_folded: true, ..self }
    }

    /// Returns the scan with those tags as dictionaries that `is_wanted` picks by their places: numbers of series,
    /// and each series' text once. `None` where it picks none, or rows come from other nodes. The metrics are
    /// shared.
    pub(crate) fn with_dictionaries(&self, is_wanted: impl Fn(usize) -> bool) -> Option<Self> {
        let are_wanted: Vec<bool> =
            (0..self.schema.fields().len()).map(|at| self.is_tag(at) && is_wanted(at)).collect();
        let is_elsewhere = |scan: &Scan| scan.elsewhere().is_some();
        if !are_wanted.contains(&true) || self.partitions.iter().flatten().any(is_elsewhere) {
            return None;
        }
        let mut scan = self.clone();
        scan.schema = dictionaries(&self.schema, &are_wanted);
        scan.request.schema = dictionaries(&self.request.schema, &are_wanted);
        scan.properties = properties(&scan.schema, self.partitions.len(), self.orderings());
        let schema = &scan.request.schema;
        scan.partitions.iter_mut().flatten().for_each(|scan| scan.in_schema(schema));
        Some(scan)
    }

    /// Returns what is read.
    pub(crate) fn request(&self) -> &ScanRequest {
        &self.request
    }

    /// Returns the node that reads, where the scan is a part of one that several nodes read.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Returns about how many rows other nodes read.
    pub(crate) fn rows_elsewhere(&self) -> usize {
        let scans = self.partitions.iter().flatten();
        scans.filter(|scan| scan.elsewhere().is_some()).map(Scan::rows_about).sum()
    }

    /// Divides the scan among the nodes that read, this one first, with as many partitions each.
    pub(crate) fn by_node(&self, own: NodeId) -> Vec<Self> {
        let mut nodes: Vec<(NodeId, Vec<Scan>)> = vec![(own, Vec::new())];
        for scan in self.partitions.iter().flatten() {
            let at = scan.elsewhere().map_or(own, |(node, _)| node);
            match nodes.iter_mut().find(|(node, _)| *node == at) {
                Some((_, scans)) => scans.push(scan.clone()),
                None => nodes.push((at, vec![scan.clone()])),
            }
        }
        // Where an order is told every partition is one scan, and so it is here.
        let mut nodes: Vec<(NodeId, Vec<Vec<Scan>>)> =
            nodes.into_iter().map(|(node, scans)| (node, partition(scans))).collect();
        let most = nodes.iter().map(|(_, partitions)| partitions.len()).max().unwrap_or(1).max(1);
        nodes.iter_mut().for_each(|(_, partitions)| partitions.resize_with(most, Vec::new));
        let part = |(node, partitions)| Self {
            node: Some(node),
            partitions,
            statistics: Arc::new(Statistics::new_unknown(&self.schema)),
            properties: properties(&self.schema, most, self.orderings()),
            metrics: ExecutionPlanMetricsSet::new(),
            ..self.clone()
        };
        nodes.into_iter().map(part).collect()
    }

    fn orderings(&self) -> Vec<LexOrdering> {
        self.properties.equivalence_properties().oeq_class().iter().cloned().collect()
    }

    /// Returns the scan as it is sent to the node that reads all of it; `None` where that is this one.
    pub(crate) fn sent(&self) -> Option<SentScan> {
        let pinned = |scan: &Scan| scan.elsewhere().map(|(_, pinned)| pinned);
        let partitions = self.partitions.iter().map(|scans| scans.iter().map(pinned).collect());
        let name = |sort: &PhysicalSortExpr| {
            sort.expr.downcast_ref::<expressions::Column>().map(|column| column.name().to_owned())
        };
        let names = |ordering: &LexOrdering| ordering.iter().map(name).collect();
        Some(SentScan {
            table: self.table.clone(),
            id: self.request.table,
            columns: self.request.columns.clone(),
            times: self.request.times,
            filter: self.request.filter.clone(),
            values: self.request.values.clone(),
            order: self.request.order.clone(),
            limit: self.limit,
            last_rows: self.last_rows,
            buckets: self.buckets,
            node: self.node,
            partitions: partitions.collect::<Option<_>>()?,
            orderings: self.orderings().iter().map(names).collect::<Option<_>>()?,
        })
    }

    /// Makes the scan that another node sent; `find` gives what is pinned here.
    pub(crate) fn received(
        sent: SentScan,
        schema: SchemaRef,
        find: impl Fn(&PinnedScan) -> Result<Scan>,
    ) -> Result<Self> {
        let found = |scans: &Vec<PinnedScan>| scans.iter().map(&find).collect();
        let partitions: Vec<Vec<Scan>> =
            sent.partitions.iter().map(found).collect::<Result<_>>()?;
        let mut orderings = Vec::new();
        for ordering in &sent.orderings {
            let columns: Vec<&str> = ordering.iter().map(String::as_str).collect();
            orderings.extend(ascending(&schema, &columns)?);
        }
        let request = ScanRequest {
            table: sent.id,
            columns: sent.columns,
            schema: Arc::clone(&schema),
            times: sent.times,
            filter: sent.filter,
            values: sent.values,
            order: sent.order,
        };
        Ok(Self {
            table: sent.table,
            request,
            limit: sent.limit,
            last_rows: sent.last_rows,
            has_left_out: false,
            is_held: false,
            is_folded: false,
            buckets: sent.buckets,
            node: sent.node,
            statistics: Arc::new(Statistics::new_unknown(&schema)),
            reopening: None,
            properties: properties(&schema, partitions.len(), orderings),
            partitions,
            schema,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Makes the node.
    pub(crate) fn new(
        table: &str,
        request: ScanRequest,
        scans: cluster::Scans,
        options: ScanOptions<'_>,
    ) -> Result<Self> {
        let ScanOptions { tags, schema, limit, partitions_wanted, stage_rows_min } = options;
        let buckets = (scans.buckets, scans.buckets_all);
        let parts = scans.parts.into_iter().map(|part| part.scan);
        let mut parts: Vec<Scan> = parts.filter(|scan| scan.counts().series > 0).collect();
        if let Some(limit) = limit {
            parts.iter_mut().for_each(|scan| scan.limit(limit));
        }
        let statistics = statistics(&request, &schema, &parts, limit);
        let partitions = partition(split(parts, partitions_wanted, limit));
        let orderings = ordering(&schema, &partitions, tags)?;
        let mut scan = Self {
            table: table.to_owned(),
            request,
            limit,
            last_rows: false,
            has_left_out: false,
            is_held: false,
            is_folded: false,
            buckets,
            node: None,
            statistics,
            reopening: None,
            properties: properties(&schema, partitions.len(), Vec::new()),
            partitions,
            schema,
            metrics: ExecutionPlanMetricsSet::new(),
        };
        // Of a scan with one partition the planner makes one step; the first of two can be done elsewhere.
        if scan.partitions.len() == 1
            && partitions_wanted > 1
            && scan.rows_elsewhere() >= stage_rows_min.max(1)
        {
            scan.partitions.push(Vec::new());
        }
        scan.properties = properties(&scan.schema, scan.partitions.len(), orderings);
        Ok(scan)
    }
}

/// Returns a schema whose wanted fields are dictionaries of texts.
fn dictionaries(schema: &SchemaRef, are_wanted: &[bool]) -> SchemaRef {
    let numbered = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let fields = schema.fields().iter().zip(are_wanted).map(|(field, is_wanted)| match is_wanted {
        true => Arc::new(field.as_ref().clone().with_data_type(numbered.clone())),
        false => Arc::clone(field),
    });
    let fields: Fields = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn properties(
    schema: &SchemaRef,
    partitions: usize,
    orderings: Vec<LexOrdering>,
) -> Arc<PlanProperties> {
    let equivalences = EquivalenceProperties::new_with_orderings(Arc::clone(schema), orderings);
    let partitioning = Partitioning::UnknownPartitioning(partitions);
    let (emission, bounds) = (EmissionType::Incremental, Boundedness::Bounded);
    let properties = PlanProperties::new(equivalences, partitioning, emission, bounds);
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

/// Splits scans by series, so that there are as many as threads to read them.
fn split(scans: Vec<Scan>, wanted: usize, limit: Option<usize>) -> Vec<Scan> {
    let parts = wanted.div_ceil(scans.len().max(1));
    if parts < 2 || limit.is_some_and(|limit| limit < SPLIT_ROWS) {
        return scans;
    }
    let scans = scans.into_iter().flat_map(|scan| {
        let rows = scan.rows_expected().unwrap_or_else(|| scan.rows_about());
        let parts = parts.min(rows / SPLIT_ROWS).max(1);
        scan.split(parts)
    });
    scans.collect()
}

/// Tells what is exactly known of all rows, so that counts and extremes need no reading; else about how
/// many rows there are, so that few are not given to many threads.
fn statistics(
    request: &ScanRequest,
    schema: &SchemaRef,
    scans: &[Scan],
    limit: Option<usize>,
) -> Arc<Statistics> {
    let mut statistics = Statistics::new_unknown(schema);
    let exact: Option<Vec<ExactCounts>> = scans.iter().map(Scan::exact).collect();
    let Some(exact) = exact else {
        let expected: Option<usize> = scans.iter().map(Scan::rows_expected).sum();
        if let Some(expected) = expected {
            let most = limit.unwrap_or(usize::MAX);
            statistics.num_rows = Precision::Inexact(expected.min(most));
        }
        return Arc::new(statistics);
    };
    let rows = exact.iter().map(|one| one.rows).sum();
    statistics.num_rows = Precision::Exact(rows);
    let mut field = 0;
    let columns = request.columns.iter().zip(schema.fields());
    for ((column, shown), found) in columns.zip(&mut statistics.column_statistics) {
        match column {
            ScanColumn::Time => {
                let times = exact.iter().filter_map(|one| one.times);
                let DataType::Timestamp(_, zone) = shown.data_type() else { continue };
                let time =
                    |ns| Precision::Exact(ScalarValue::TimestampNanosecond(Some(ns), zone.clone()));
                found.null_count = Precision::Exact(0);
                if let Some(low) = times.clone().map(|times| times.min).min() {
                    found.min_value = time(low);
                }
                if let Some(high) = times.map(|times| times.max).max() {
                    found.max_value = time(high);
                }
            }
            ScanColumn::Tag(_) => {}
            ScanColumn::Field(_, value_type) => {
                let nulls = exact.iter().map(|one| one.columns[field].0).sum();
                found.null_count = Precision::Exact(nulls);
                let ranges = exact.iter().filter_map(|one| one.columns[field].1);
                let values = ranges.flat_map(|(low, high)| [low, high]);
                let values: Vec<ScalarValue> =
                    values.filter_map(|bits| scalar(bits, *value_type)).collect();
                let least = values.iter().min_by(|a, b| order(a, b));
                let greatest = values.iter().max_by(|a, b| order(a, b));
                if let (Some(least), Some(greatest)) = (least, greatest) {
                    found.min_value = Precision::Exact(least.clone());
                    found.max_value = Precision::Exact(greatest.clone());
                }
                field += 1;
            }
        }
    }
    Arc::new(statistics)
}

fn order(a: &ScalarValue, b: &ScalarValue) -> std::cmp::Ordering {
    a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)
}

fn scalar(bits: u64, value_type: ValueType) -> Option<ScalarValue> {
    match value_type {
        ValueType::I64 => Some(ScalarValue::Int64(Some(bits.cast_signed()))),
        ValueType::U64 => Some(ScalarValue::UInt64(Some(bits))),
        ValueType::F64 => Some(ScalarValue::Float64(Some(f64::from_bits(bits)))),
        ValueType::Bool | ValueType::Str => None,
    }
}

fn partition(scans: Vec<Scan>) -> Vec<Vec<Scan>> {
    if scans.len() <= PARTITIONS_MAX {
        let mut partitions: Vec<_> = scans.into_iter().map(|scan| vec![scan]).collect();
        if partitions.is_empty() {
            partitions.push(Vec::new());
        }
        return partitions;
    }
    let per_partition = scans.len().div_ceil(PARTITIONS_FEW);
    let mut scans = scans.into_iter();
    let chunks = std::iter::from_fn(|| {
        let chunk: Vec<_> = scans.by_ref().take(per_partition).collect();
        (!chunk.is_empty()).then_some(chunk)
    });
    chunks.collect()
}

/// Returns the order of each partition's rows: by tags, then time, as far as those are read; by time too
/// where there is one series in all.
fn ordering(
    schema: &SchemaRef,
    partitions: &[Vec<Scan>],
    tags: &[String],
) -> Result<Vec<LexOrdering>> {
    if partitions.iter().any(|scans| scans.len() > 1) {
        return Ok(Vec::new());
    }
    let single = |scan: &Scan| scan.counts().series <= 1;
    let mut orderings = Vec::new();
    if partitions.iter().flatten().all(Scan::is_ordered) {
        let mut columns: Vec<&str> = tags.iter().map(String::as_str).collect();
        columns.push("time");
        columns.truncate(columns.iter().take_while(|name| schema.index_of(name).is_ok()).count());
        orderings.extend(ascending(schema, &columns)?);
    }
    // Of several partitions only one order may be told: merged by one of two, they keep but that one, and
    // the planner would believe in both.
    if partitions.len() == 1
        && partitions.iter().flatten().all(single)
        && schema.index_of("time").is_ok()
    {
        orderings.extend(ascending(schema, &["time"])?);
    }
    Ok(orderings)
}

fn ascending(schema: &SchemaRef, columns: &[&str]) -> Result<Option<LexOrdering>> {
    let options = SortOptions { descending: false, nulls_first: false };
    let sort = |name: &&str| Ok(PhysicalSortExpr::new(expressions::col(name, schema)?, options));
    Ok(LexOrdering::new(columns.iter().map(sort).collect::<Result<Vec<_>>>()?))
}

impl TskvScanExec {
    /// Returns the names of the tags that are read.
    pub(crate) fn tags(&self) -> Vec<String> {
        let columns = self.request.columns.iter().zip(self.request.schema.fields());
        let tags = columns.filter(|(column, _)| matches!(column, ScanColumn::Tag(_)));
        tags.map(|(_, field)| field.name().clone()).collect()
    }

    /// Returns the scan of each series' newest row alone; `None` where it is that already, or where
    /// rows are not all wanted.
    pub(crate) fn only_last_rows(&self) -> Option<Self> {
        if self.last_rows || self.limit.is_some() {
            return None;
        }
        let newest = |scan: &Scan| scan.clone().only_last_rows();
        let partitions: Vec<Vec<Scan>> =
            self.partitions.iter().map(|p| p.iter().map(newest).collect()).collect();
        let expected: Option<usize> = partitions.iter().flatten().map(Scan::rows_expected).sum();
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = expected.map_or(Precision::Absent, Precision::Inexact);
        Some(Self {
            partitions,
            last_rows: true,
            statistics: Arc::new(statistics),
            metrics: ExecutionPlanMetricsSet::new(),
            ..self.clone()
        })
    }
}

impl DisplayAs for TskvScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vnodes: usize = self.partitions.iter().map(Vec::len).sum();
        write!(
            f,
            "TskvScanExec: table={}, buckets={} of {}, vnodes={vnodes}, series={}",
            self.table,
            self.buckets.0,
            self.buckets.1,
            self.series()
        )?;
        if let Some(node) = self.node {
            write!(f, ", node={node}")?;
        } else {
            let scans = self.partitions.iter().flatten();
            let nodes: BTreeSet<NodeId> =
                scans.filter_map(Scan::elsewhere).map(|(node, _)| node).collect();
            if !nodes.is_empty() {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                write!(f, ", rows_of_nodes=[{}]", nodes.join(", "))?;
            }
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        if self.last_rows {
            write!(f, ", last_rows")?;
        }
        if self.has_left_out {
            write!(f, ", without_known_row_groups")?;
        }
        let columns: Vec<&str> =
            self.request.schema.fields().iter().map(|field| field.name().as_str()).collect();
        if !self.request.values.is_empty() {
            let told = self.request.values.iter().filter_map(|test| {
                let is_tested = |column: &ScanColumn| {
                    matches!(column, ScanColumn::Field(id, _) if *id == test.column)
                };
                let name = columns.get(self.request.columns.iter().position(is_tested)?)?;
                Some(format!("{name} {} {}", test.comparison.sign(), test.number))
            });
            write!(f, ", values=[{}]", told.collect::<Vec<_>>().join(", "))?;
        }
        write!(f, ", columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for TskvScanExec {
    fn name(&self) -> &'static str {
        "TskvScanExec"
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
        if children.is_empty() { Ok(self) } else { internal_err!("a scan has no children") }
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
        let scans = self.partitions.get(partition).cloned().unwrap_or_default();
        let threads = context.session_config().target_partitions();
        let is_in_place = self.are_soon_read(&scans) || self.keeps_busy(threads);
        let found = (&self.schema, scans);
        let how = (self.limit, self.is_held);
        let reading = Reading::new(found, how, (&self.metrics, partition));
        Ok(if is_in_place { reading.in_place() } else { reading.ahead() })
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        match partition {
            None => Ok(Arc::clone(&self.statistics)),
            Some(_) => Ok(Arc::new(Statistics::new_unknown(&self.schema))),
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
