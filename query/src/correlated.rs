//! An analyzer rule: what a correlated subquery compares with the outer row gets a column of its own.
//!
//! DataFusion turns such a subquery into a join, and groups its rows by the columns that the condition
//! reads: of `r.time::date = o.time::date` by `time`, so that one outer row met several groups. By a
//! column that holds `r.time::date` it groups rightly.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, ident,
};
use datafusion::optimizer::AnalyzerRule;

/// What the columns are called, with a number behind it.
const NAME: &str = "__correlated_";

/// Puts columns in the places of what is compared with outer rows.
#[derive(Debug)]
pub(crate) struct CorrelatedKeys;

impl AnalyzerRule for CorrelatedKeys {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite).data()
    }

    fn name(&self) -> &'static str {
        "correlated_keys"
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
    if !filter.predicate.contains_outer() {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let Filter { predicate, input, .. } = filter;
    let mut made = Vec::new();
    let mut keyed = |inner: Box<Expr>| -> Box<Expr> {
        let name = format!("{NAME}{}", made.len());
        made.push(inner.alias(&name));
        Box::new(ident(name))
    };
    let parts = split_conjunction_owned(predicate).into_iter().map(|part| match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
            if is_computed(&left) && is_outer(&right) =>
        {
            Expr::BinaryExpr(BinaryExpr { left: keyed(left), op: Operator::Eq, right })
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
            if is_outer(&left) && is_computed(&right) =>
        {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right: keyed(right) })
        }
        other => other,
    });
    let predicate = conjunction(parts.collect::<Vec<_>>());
    let Some(predicate) = predicate else {
        return Ok(Transformed::no(LogicalPlan::clone(&input)));
    };
    if made.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Filter(Filter::try_new(predicate, input)?)));
    }
    let kept = input.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = kept.chain(made).collect();
    let plan = LogicalPlanBuilder::from(LogicalPlan::clone(&input)).project(columns)?;
    // Not by the builder, which would look for the outer columns here.
    let filter = Filter::try_new(predicate, std::sync::Arc::new(plan.build()?))?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

/// Returns whether an expression reads the outer row alone.
fn is_outer(expr: &Expr) -> bool {
    expr.contains_outer() && expr.column_refs().is_empty()
}

/// Returns whether an expression reads the row of the subquery alone, and is no column as it is.
fn is_computed(expr: &Expr) -> bool {
    let is_column = matches!(expr, Expr::Column(_));
    let has_subquery = expr.exists(|one| {
        Ok(matches!(one, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)))
    });
    !is_column
        && !expr.contains_outer()
        && !expr.column_refs().is_empty()
        && !has_subquery.unwrap_or(true)
}
