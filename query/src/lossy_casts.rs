//! An optimizer rule, the last: casts are hidden that the planner takes for what they are not.
//!
//! In filters it reasons backwards through those that make one value of several: of `time::date = '2024-03-31'`
//! it takes `time` to be one instant, and neither sorts nor partitions by it any more. Everywhere it takes all
//! casts among instants, dates and times of day to keep their order, and does not sort `time::time`.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::plan_expressions::{columns_read, rewrite_expressions};
use crate::zones::is_utc;

/// Puts a function in the place of such casts.
#[derive(Debug)]
pub(crate) struct LossyCasts;

impl OptimizerRule for LossyCasts {
    fn name(&self) -> &'static str {
        "lossy_casts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let keeps = if matches!(plan, LogicalPlan::Filter(_)) {
            tells_apart
        } else if has_cast_of_times(&plan)? {
            keeps_order
        } else {
            return Ok(Transformed::no(plan));
        };
        let schema = columns_read(&plan)?;
        rewrite_expressions(plan, |expr| hide(expr, &schema, keeps))
    }
}

fn has_cast_of_times(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|expr| {
            Ok(matches!(expr, Expr::Cast(cast) if cast.field.data_type().is_temporal()))
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn hide(
    expr: Expr,
    schema: &DFSchema,
    keeps: fn(&DataType, &DataType) -> bool,
) -> Result<Transformed<Expr>> {
    let Expr::Cast(Cast { expr: inner, field }) = expr else { return Ok(Transformed::no(expr)) };
    let is_seen = inner.column_refs().is_empty()
        || inner.get_type(schema).is_ok_and(|from| keeps(&from, field.data_type()));
    if is_seen {
        return Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field })));
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let func = Arc::new(ScalarUDF::from(HiddenCast { to: field, signature }));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![*inner] })))
}

/// Returns whether a cast gives different values for different ones.
fn tells_apart(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32,
        UInt64, Utf8,
    };
    match (from, to) {
        (from, to) if from == to => true,
        (Timestamp(from, _), Timestamp(to, _)) => from == to,
        (Int8 | Int16 | Int32 | Int64, Int64) | (Float32, Float64) => true,
        (Int8 | Int16, Int32) | (Int8, Int16) => true,
        (UInt8 | UInt16 | UInt32, Int64 | UInt64) | (UInt8 | UInt16, Int32) => true,
        // Beyond 2^53 a double stands for several whole numbers.
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32, Float64) => true,
        (from, Utf8) => from.is_integer(),
        (from, Decimal128(_, scale)) => from.is_integer() && *scale >= 0,
        _ => false,
    }
}

/// Returns whether a cast keeps the order of values, among those that the planner believes it of.
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Time32, Time64, Timestamp};
    match (from, to) {
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (from, Time32(_) | Time64(_)) => !from.is_temporal(),
        // Where clocks are put back, what comes later is earlier.
        (Timestamp(_, Some(zone)), Timestamp(_, None) | Date32 | Date64) => is_utc(zone),
        _ => true,
    }
}

/// `hidden_cast(x)`: x as another type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HiddenCast {
    to: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for HiddenCast {
    fn name(&self) -> &'static str {
        "hidden_cast"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(self.to.as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args[0].cast_to(self.to.data_type(), None)
    }
}
