//! `DISTINCT ON (tags) … ORDER BY tags, time DESC`: the newest rows, by a node that keeps the first row of each
//! key.
//!
//! DataFusion makes of a DISTINCT ON an aggregation with a `first_value` for each column, which is right where
//! rows are many. Where only the newest row of each series is read (`last_rows`), rows are few, and what
//! costs is the aggregation: there the rows are sorted instead, and those that begin a key kept.

mod exec;

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchemaRef, Result};
use datafusion::config::ConfigOptions;
use datafusion::datasource::{TableProvider, source_as_provider};
use datafusion::logical_expr::expr_rewriter::{normalize_cols, normalize_sorts};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Extension, LogicalPlan, LogicalPlanBuilder, SortExpr,
    TableProviderFilterPushDown, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::AnalyzerRule;
use model::schema::ColumnKind;

use crate::catalog::TskvTable;
use crate::plan_nodes::{each_once, only, places_of};
pub(crate) use exec::{FirstRowsExec, plan};

/// Keeps the first row of each key, in an order that begins with the keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct FirstRows {
    input: LogicalPlan,
    order: Vec<SortExpr>,
    /// So many of the order are the keys.
    keys: usize,
}

impl UserDefinedLogicalNodeCore for FirstRows {
    fn name(&self) -> &'static str {
        "FirstRows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.order.iter().map(|sort| sort.expr.clone()).collect()
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed = places_of(self.input.schema(), self.order.iter().map(|sort| &sort.expr))?;
        needed.extend(output);
        Some(vec![each_once(needed)])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order: Vec<String> = self.order.iter().map(ToString::to_string).collect();
        write!(f, "FirstRows: keys={}, order=[{}]", self.keys, order.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let order = self.order.iter().zip(exprs).map(|(sort, expr)| sort.with_expr(expr)).collect();
        Ok(Self { input: only(inputs)?, order, keys: self.keys })
    }
}

/// Puts the node where the newest rows of series are asked for.
#[derive(Debug)]
pub(crate) struct NewestRows;

impl AnalyzerRule for NewestRows {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewrite = |plan| match plan {
            LogicalPlan::Distinct(Distinct::On(distinct)) => newest(distinct),
            other => Ok(Transformed::no(other)),
        };
        plan.transform_up_with_subqueries(rewrite).data()
    }

    fn name(&self) -> &'static str {
        "newest_rows"
    }
}

fn newest(distinct: DistinctOn) -> Result<Transformed<LogicalPlan>> {
    let Some((keys, order)) = asked_for(&distinct)? else {
        return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::On(distinct))));
    };
    let DistinctOn { select_expr, input, schema, .. } = distinct;
    let node = FirstRows { input: Arc::unwrap_or_clone(input), order: order.clone(), keys };
    let first = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let named = select_expr.into_iter().zip(schema.iter()).map(|(expr, (qualifier, field))| {
        expr.unalias().alias_qualified(qualifier.cloned(), field.name())
    });
    let named: Vec<Expr> = named.collect();
    // The rows are in this order already; without saying so it may be lost above.
    Ok(Transformed::yes(LogicalPlanBuilder::from(first).sort(order)?.project(named)?.build()?))
}

/// Returns the keys' number and the order, where the newest row of each series is all that can matter.
fn asked_for(distinct: &DistinctOn) -> Result<Option<(usize, Vec<SortExpr>)>> {
    let Some(sorts) = &distinct.sort_expr else { return Ok(None) };
    let (scan, filters) = match distinct.input.as_ref() {
        LogicalPlan::TableScan(scan) => (scan, Vec::new()),
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::TableScan(scan) => (scan, split_conjunction(&filter.predicate)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<TskvTable>() else { return Ok(None) };
    // What the scan does not filter itself would choose among the newest rows.
    let exact =
        |answer: &TableProviderFilterPushDown| *answer == TableProviderFilterPushDown::Exact;
    if scan.fetch.is_some() || !table.supports_filters_pushdown(&filters)?.iter().all(exact) {
        return Ok(None);
    }
    let is = |expr: &Expr, wanted| matches!(expr, Expr::Column(column) if table.kind_of(&column.name) == Some(wanted));
    let keys = normalize_cols(distinct.on_expr.clone(), distinct.input.as_ref())?;
    let sorts = normalize_sorts(sorts.clone(), distinct.input.as_ref())?;
    let is_key = |sort: &&SortExpr| keys.contains(&sort.expr);
    let leading = sorts.iter().take_while(is_key).count();
    // Each key once, first; then the time, from the newest on.
    let each_once = leading == keys.len()
        && keys.iter().all(|key| sorts[..leading].iter().any(|sort| sort.expr == *key));
    let newest_first =
        sorts.get(leading).is_some_and(|sort| !sort.asc && is(&sort.expr, ColumnKind::Time));
    let by_tags = keys.iter().all(|key| is(key, ColumnKind::Tag));
    Ok((each_once && newest_first && by_tags).then_some((leading, sorts)))
}
