//! Gap filling: rows for windows in which there was none.
//!
//! `GROUP BY time_window_gapfill(time, width)` groups as `time_window` does; then each combination of
//! the other groups gets a row of every window from the lower to the upper bound that WHERE sets
//! to the time, and where it sets none, from the first to the last window there is. Aggregates of a new
//! row are NULL; `locf(x)` carries the last value forward, `interpolate(x)` puts it on the line
//! between its neighbours. The rule finds these calls, the node does it.

mod exec;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, ColumnarValue, Expr, Extension, LogicalPlan, LogicalPlanBuilder,
    Operator, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::functions::windows::{
    DATE_BIN_GAPFILL, INTERPOLATE, LOCF, Stride, TIME_WINDOW_GAPFILL, stride_of, window_start,
};
use crate::plan_nodes::only;
pub(crate) use exec::plan;

/// What a column of the aggregation is to gap filling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
enum Role {
    /// The start of the window.
    Time,
    /// Part of what is filled by itself.
    Key,
    /// NULL in a new row.
    Null,
    /// The last value that is not NULL.
    Locf,
    /// On the line between its neighbours.
    Interpolate,
}

/// A bound that WHERE sets to the time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
struct Bound {
    op: Operator,
    value: Expr,
}

/// Makes the rows of windows that are missing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GapFill {
    input: LogicalPlan,
    roles: Vec<Role>,
    stride: Stride,
    origin: i64,
    bounds: Vec<Bound>,
    schema: DFSchemaRef,
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let key = |one: &Self| (one.stride, one.origin);
        key(self).partial_cmp(&key(other)).filter(|order| order.is_ne() || self == other)
    }
}

impl GapFill {
    fn new(
        input: LogicalPlan,
        roles: Vec<Role>,
        (stride, origin): (Stride, i64),
        bounds: Vec<Bound>,
    ) -> Result<Self> {
        let fields = input.schema().iter().zip(&roles).map(|((relation, field), role)| {
            let nullable = field.is_nullable() || !matches!(role, Role::Time | Role::Key);
            let field = Field::new(field.name(), field.data_type().clone(), nullable);
            (relation.cloned(), Arc::new(field))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
        Ok(Self { input, roles, stride, origin, bounds, schema: Arc::new(schema) })
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &'static str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.bounds.iter().map(|bound| bound.value.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFill: stride={:?}", self.stride)?;
        for bound in &self.bounds {
            write!(f, ", time {} {}", bound.op, bound.value)?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let bounds = self.bounds.iter().zip(exprs);
        let bounds = bounds.map(|(bound, value)| Bound { op: bound.op, value }).collect();
        Self::new(only(inputs)?, self.roles.clone(), (self.stride, self.origin), bounds)
    }
}

/// Puts the node above aggregations that ask for it.
#[derive(Debug)]
pub(crate) struct GapFilling;

impl AnalyzerRule for GapFilling {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewrite = |plan| match plan {
            LogicalPlan::Aggregate(aggregate) => fill_aggregate(aggregate),
            LogicalPlan::Projection(_) => fill_columns(plan),
            other => Ok(Transformed::no(other)),
        };
        plan.transform_up_with_subqueries(rewrite).data()
    }

    fn name(&self) -> &'static str {
        "gap_filling"
    }
}

fn call_of<'a>(expr: &'a Expr, names: &[&str]) -> Option<&'a ScalarFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr, names),
        Expr::ScalarFunction(call) if names.contains(&call.func.name()) => Some(call),
        _ => None,
    }
}

/// Returns the value of a literal, also of one that is cast.
fn constant(expr: &Expr) -> Result<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Ok(value.clone()),
        Expr::Cast(Cast { expr, field }) => constant(expr)?.cast_to(field.data_type()),
        other => {
            let message =
                format!("gap filling takes constants for its width and origin, not {other}");
            Err(Error::new("42601", message).into())
        }
    }
}

fn fill_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    const NAMES: [&str; 2] = [TIME_WINDOW_GAPFILL, DATE_BIN_GAPFILL];
    let calls: Vec<usize> = (0..aggregate.group_expr.len())
        .filter(|at| call_of(&aggregate.group_expr[*at], &NAMES).is_some())
        .collect();
    let [at] = calls.as_slice() else {
        return match calls.len() {
            0 => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            _ => Err(Error::unsupported("gap filling of several windows at once").into()),
        };
    };
    let Some(call) = call_of(&aggregate.group_expr[*at], &NAMES) else {
        return Err(Error::internal("a call was just found").into());
    };
    let mut args = call.args.clone();
    if call.func.name() == DATE_BIN_GAPFILL {
        args.swap(0, 1);
        if args.len() == 3 {
            // The origin stands after the slide.
            args.insert(2, args[1].clone());
        }
    }
    let time = args.remove(0);
    let constants = args.iter().map(constant).collect::<Result<Vec<_>>>()?;
    let constants: Vec<ColumnarValue> = constants.into_iter().map(ColumnarValue::Scalar).collect();
    let (stride, slide, origin) = stride_of(&constants)?;
    if stride != slide {
        return Err(Error::unsupported("gap filling of windows that overlap").into());
    }
    // In another zone than UTC the time is cast to what windows take.
    let bare = match &time {
        Expr::Cast(cast) if is_time(cast.field.data_type()) => cast.expr.as_ref(),
        other => other,
    };
    let bounds = match bare {
        Expr::Column(column) => bounds(&aggregate.input, column),
        _ => Vec::new(),
    };
    let name = aggregate.group_expr[*at].schema_name().to_string();
    let mut start_args = vec![time];
    start_args.extend(args);
    let mut groups = aggregate.group_expr.clone();
    let start = ScalarFunction { func: window_start(), args: start_args };
    groups[*at] = Expr::ScalarFunction(start).alias(name);
    let roles = (0..aggregate.schema.fields().len()).map(|column| {
        if column == *at {
            Role::Time
        } else if column < groups.len() {
            Role::Key
        } else {
            Role::Null
        }
    });
    let roles = roles.collect();
    let input = Aggregate::try_new(aggregate.input, groups, aggregate.aggr_expr)?;
    let node = GapFill::new(LogicalPlan::Aggregate(input), roles, (stride, origin), bounds)?;
    Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

/// Returns what filters below say of a column, as far as it is compared with what no row changes.
fn bounds(plan: &LogicalPlan, column: &Column) -> Vec<Bound> {
    let below = |plan: &LogicalPlan, at: usize| {
        let inner = Column::from(plan.schema().qualified_field(at));
        bounds(plan, &inner)
    };
    let Ok(at) = plan.schema().index_of_column(column) else { return Vec::new() };
    match plan {
        LogicalPlan::Filter(filter) => {
            let mut found = below(&filter.input, at);
            let conjuncts = split_conjunction(&filter.predicate);
            let column = Column::from(plan.schema().qualified_field(at));
            found.extend(conjuncts.into_iter().flat_map(|one| bounds_in(one, &column)));
            found
        }
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input, at),
        LogicalPlan::Sort(sort) => below(&sort.input, at),
        LogicalPlan::Projection(projection) => match projection.expr[at].clone().unalias() {
            Expr::Column(inner) => bounds(&projection.input, &inner),
            _ => Vec::new(),
        },
        LogicalPlan::TableScan(scan) => {
            scan.filters.iter().flat_map(|one| bounds_in(one, column)).collect()
        }
        _ => Vec::new(),
    }
}

fn bounds_in(predicate: &Expr, column: &Column) -> Vec<Bound> {
    let is_time = |expr: &Expr| {
        matches!(expr, Expr::Column(found) if found.name == column.name
            && (found.relation.is_none() || found.relation == column.relation))
    };
    // What a subquery gives is not known when this is planned.
    let open = |expr: &Expr| {
        let found = expr.exists(|one| {
            Ok(matches!(
                one,
                Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::OuterReferenceColumn(..)
            ))
        });
        found.unwrap_or(true)
    };
    let fixed = |expr: &Expr| expr.column_refs().is_empty() && !expr.is_volatile() && !open(expr);
    let bound = |op, value: &Expr| vec![Bound { op, value: value.clone() }];
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let op = match (is_time(left) && fixed(right), is_time(right) && fixed(left)) {
                (true, _) => Some((*op, right)),
                (_, true) => op.swap().map(|op| (op, left)),
                _ => None,
            };
            let bounds = [Operator::Gt, Operator::GtEq, Operator::Lt, Operator::LtEq, Operator::Eq];
            match op.filter(|(op, _)| bounds.contains(op)) {
                Some((op, value)) => bound(op, value),
                None => Vec::new(),
            }
        }
        Expr::Between(Between { expr, negated: false, low, high })
            if is_time(expr) && fixed(low) && fixed(high) =>
        {
            [bound(Operator::GtEq, low), bound(Operator::LtEq, high)].concat()
        }
        _ => Vec::new(),
    }
}

/// Has the columns filled that a projection asks for.
fn fill_columns(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some(node) = gap_fill(plan.inputs()[0]) else { return Ok(Transformed::no(plan)) };
    let mut calls: Vec<ScalarFunction> = Vec::new();
    for expr in plan.expressions() {
        expr.apply(|expr| {
            if let Expr::ScalarFunction(call) = expr
                && [LOCF, INTERPOLATE].contains(&call.func.name())
                && !calls.contains(call)
            {
                calls.push(call.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    if calls.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let mut columns: Vec<Expr> =
        node.input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut roles = node.roles.clone();
    for (at, call) in calls.iter().enumerate() {
        let argument = call.args.first().cloned();
        let argument = argument.ok_or_else(|| Error::internal("one argument"))?;
        let interpolated = call.func.name() == INTERPOLATE;
        roles.push(if interpolated { Role::Interpolate } else { Role::Locf });
        columns.push(argument.alias(filled_name(at)));
    }
    let input = LogicalPlanBuilder::from(node.input.clone()).project(columns)?.build()?;
    let window = (node.stride, node.origin);
    let filled = GapFill::new(input, roles, window, node.bounds.clone())?;
    let filled = LogicalPlan::Extension(Extension { node: Arc::new(filled) });
    let input = replaced(plan.inputs()[0], filled)?;
    let names = NamePreserver::new(&plan);
    let exprs = plan.expressions().into_iter().map(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform_up(|expr| {
            let found = match &expr {
                Expr::ScalarFunction(call) => calls.iter().position(|one| one == call),
                _ => None,
            };
            Ok(match found {
                Some(at) => Transformed::yes(Expr::Column(Column::from_name(filled_name(at)))),
                None => Transformed::no(expr),
            })
        })?;
        Ok(name.restore(expr.data))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok(Transformed::yes(plan.with_new_exprs(exprs, vec![input])?))
}

fn filled_name(at: usize) -> String {
    format!("__filled_{at}")
}

/// Returns the node a projection reads, through a HAVING.
fn gap_fill(plan: &LogicalPlan) -> Option<&GapFill> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<GapFill>(),
        LogicalPlan::Filter(filter) => gap_fill(&filter.input),
        _ => None,
    }
}

fn replaced(plan: &LogicalPlan, node: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Filter(filter) => {
            let input = replaced(&filter.input, node)?;
            plan.with_new_exprs(vec![filter.predicate.clone()], vec![input])
        }
        _ => Ok(node),
    }
}

/// Returns the type windows' starts have.
fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Nanosecond, _))
}
