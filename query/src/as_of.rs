//! ASOF JOIN: each row of the left side with that row of the right side whose time is nearest on the
//! side that MATCH_CONDITION names, among those whose keys are equal; NULLs where there is none.
//!
//! `sugar` writes it as a left join whose condition calls a marker; the rule puts a node in its place.

mod exec;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchemaRef, JoinType, Result};
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Extension, Join, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, UserDefinedLogicalNodeCore, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::plan_nodes::{each_once, places_of};
pub(crate) use exec::{AsOfJoinExec, plan};

/// The marker around what MATCH_CONDITION says.
pub(crate) const MATCH_FUNCTION: &str = "__as_of_match";

/// Joins rows by the nearest time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsOfJoin {
    left: LogicalPlan,
    right: LogicalPlan,
    /// What must be equal, of the left and of the right.
    keys: Vec<(Expr, Expr)>,
    /// The times, of the left and of the right, and how the left one compares.
    times: (Expr, Expr),
    op: Operator,
    schema: DFSchemaRef,
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let order = self.times.partial_cmp(&other.times)?;
        Some(order).filter(|order| order.is_ne() || self == other)
    }
}

impl AsOfJoin {
    fn new(
        (left, right): (LogicalPlan, LogicalPlan),
        keys: Vec<(Expr, Expr)>,
        (times, op): ((Expr, Expr), Operator),
    ) -> Result<Self> {
        let schema = build_join_schema(left.schema(), right.schema(), &JoinType::Left)?;
        Ok(Self { left, right, keys, times, op, schema: Arc::new(schema) })
    }
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &'static str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let pairs = self.keys.iter().chain([&self.times]);
        pairs.flat_map(|(left, right)| [left.clone(), right.clone()]).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOfJoin: {} {} {}", self.times.0, self.op, self.times.1)?;
        self.keys.iter().try_for_each(|(left, right)| write!(f, ", {left} = {right}"))
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let wrong = || Error::internal("an ASOF join has two inputs, and pairs of expressions");
        let right = inputs.pop().ok_or_else(wrong)?;
        let left = inputs.pop().ok_or_else(wrong)?;
        let mut keys: Vec<(Expr, Expr)> =
            exprs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let times = keys.pop().ok_or_else(wrong)?;
        Self::new((left, right), keys, (times, self.op))
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let pairs = || self.keys.iter().chain([&self.times]);
        let mut left = places_of(self.left.schema(), pairs().map(|pair| &pair.0))?;
        let mut right = places_of(self.right.schema(), pairs().map(|pair| &pair.1))?;
        left.extend(output.iter().filter(|at| **at < width));
        right.extend(output.iter().filter(|at| **at >= width).map(|at| at - width));
        Some(vec![each_once(left), each_once(right)])
    }
}

/// Puts the node in the place of joins whose condition calls the marker.
#[derive(Debug)]
pub(crate) struct AsOfJoins;

impl AnalyzerRule for AsOfJoins {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewrite = |plan| match plan {
            LogicalPlan::Join(join) if has_marker(&join) => join_of(&join).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        };
        plan.transform_up_with_subqueries(rewrite).data()
    }

    fn name(&self) -> &'static str {
        "as_of_joins"
    }
}

fn marked(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == MATCH_FUNCTION => {
            args.first()
        }
        _ => None,
    }
}

fn has_marker(join: &Join) -> bool {
    let filter = join.filter.as_ref();
    filter.is_some_and(|filter| split_conjunction(filter).into_iter().any(|e| marked(e).is_some()))
}

fn join_of(join: &Join) -> Result<LogicalPlan> {
    let (left, right) = (join.left.schema(), join.right.schema());
    // Which of two expressions reads the left side alone, and the other the right one.
    let sides = |one: &Expr, other: &Expr| {
        let within = |expr: &Expr, schema: &DFSchemaRef| {
            let columns = expr.column_refs();
            !columns.is_empty() && columns.into_iter().all(|column| schema.has_column(column))
        };
        if within(one, left) && within(other, right) {
            Some((one.clone(), other.clone(), false))
        } else if within(other, left) && within(one, right) {
            Some((other.clone(), one.clone(), true))
        } else {
            None
        }
    };
    let mut keys: Vec<(Expr, Expr)> = join.on.clone();
    let mut matched = None;
    for conjunct in join.filter.as_ref().map(split_conjunction).unwrap_or_default() {
        let (expr, is_match) = marked(conjunct).map_or((conjunct, false), |inner| (inner, true));
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
            return Err(refused(is_match).into());
        };
        match (sides(left, right), op) {
            (
                Some((left, right, swapped)),
                Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq,
            ) if is_match => {
                let op = if swapped { op.swap().unwrap_or(*op) } else { *op };
                matched = Some(((left, right), op));
            }
            (Some((left, right, _)), Operator::Eq) if !is_match => keys.push((left, right)),
            _ => return Err(refused(is_match).into()),
        }
    }
    let matched = matched.ok_or_else(|| refused(true))?;
    let sides = (join.left.as_ref().clone(), join.right.as_ref().clone());
    let node = Arc::new(AsOfJoin::new(sides, keys, matched)?);
    Ok(LogicalPlan::Extension(Extension { node }))
}

fn refused(is_match: bool) -> Error {
    if is_match {
        let message = "MATCH_CONDITION compares a time of the left side with one of the right";
        Error::new("42601", message).hint("write MATCH_CONDITION (a.time >= b.time)")
    } else {
        let hint = "write ON a.tag = b.tag AND …, and other conditions in WHERE";
        Error::unsupported("ASOF JOIN by other conditions than equalities").hint(hint)
    }
}

/// Makes the marker.
pub(crate) fn marker() -> ScalarUDF {
    ScalarUDF::from(Marker {
        signature: Signature::exact(vec![DataType::Boolean], Volatility::Stable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &'static str {
        MATCH_FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::internal("an ASOF join was not recognized").into())
    }
}
