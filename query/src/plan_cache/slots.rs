//! Plans in which slots stand for constants: how slots come in, what may be kept, how it is filled.
//!
//! Invariant: slots are in filters and scans alone, and no node of a kept plan has a state of its own that a
//! filled one would share.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr::expressions::{DynamicFilterPhysicalExpr, InListExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, expressions};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use crate::distinct_on::FirstRowsExec;
use crate::error::Error;
use crate::plan_expressions::for_each_expression;
use crate::planning::placeholder;
use crate::scan::{ScanLayout, TskvScanExec};
use crate::stretches::StretchAggregateExec;

/// `slot()`: the constant with a number. It is never computed, for a constant takes its place before.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Slot {
    number: usize,
    data_type: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Slot {
    fn name(&self) -> &'static str {
        "slot"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::internal(format!("slot {} was not filled", self.number)).into())
    }
}

/// Returns whether all that a plan computes depends on its input alone.
pub(super) fn is_immutable(plan: &LogicalPlan) -> Result<bool> {
    let mut immutable = true;
    for_each_expression(plan, |expr| {
        let changes = match expr {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::ScalarVariable(..) => true,
            _ => false,
        };
        immutable &= !changes;
    })?;
    Ok(immutable)
}

/// Puts slots in the stead of an optimized plan's parameters; scans keep theirs. `None` where a parameter is
/// anywhere but in a filter.
pub(super) fn with_slots(plan: LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut elsewhere = false;
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::TableScan(_) => Ok(Transformed::no(node)),
        LogicalPlan::Filter(filter) => {
            let predicate = filter.predicate.transform_up(slot).data()?;
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
        }
        other => {
            other.apply_expressions(|expr| {
                elsewhere |= expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_))))?;
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(Transformed::no(other))
        }
    });
    let plan = plan.data()?;
    Ok((!elsewhere).then_some(plan))
}

fn slot(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::Placeholder(Placeholder { id, field: Some(field) }) = &expr else {
        return Ok(Transformed::no(expr));
    };
    let number = placeholder(id).ok_or_else(|| Error::internal("a parameter has a number"))?;
    let signature = Signature::exact(Vec::new(), Volatility::Volatile);
    let slot = Slot { number, data_type: field.data_type().clone(), signature };
    let func = Arc::new(ScalarUDF::from(slot));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: Vec::new() })))
}

/// Returns the layouts of a plan's scans, in the order they stand; `None` where the plan cannot be kept.
pub(super) fn layouts(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<ScanLayout>>> {
    let mut layouts = Vec::new();
    let mut fits = true;
    plan.apply(|node| {
        if let Some(scan) = node.downcast_ref::<TskvScanExec>() {
            // Of rows that are known a plan may tell all before it runs.
            fits &= scan.reopening().is_some() && !scan.is_known() && !scan.has_left_out();
            layouts.push(scan.layout());
        } else if let Some(filter) = node.downcast_ref::<FilterExec>() {
            fits &=
                !filter.predicate().exists(|expr| Ok(expr.is::<DynamicFilterPhysicalExpr>()))?;
        } else {
            fits &= is_plain(node) && !has_slots(node)?;
        }
        Ok(if fits { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(fits.then_some(layouts))
}

fn is_plain(node: &Arc<dyn ExecutionPlan>) -> bool {
    if node.is::<AggregateExec>() {
        // What it tells of its groups while it runs, a filled one would tell of others.
        return node.dynamic_expressions_produced().is_empty();
    }
    node.is::<ProjectionExec>()
        || node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<RepartitionExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<CooperativeExec>()
        || node.is::<FirstRowsExec>()
        || node.is::<StretchAggregateExec>()
}

fn has_slots(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(&mut |expr| {
        found |= expr.exists(|expr| Ok(number(expr).is_some()))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn number(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    Some(call.fun().inner().downcast_ref::<Slot>()?.number)
}

/// Returns the scans of a plan, in the order they stand.
pub(super) fn scans(plan: &Arc<dyn ExecutionPlan>) -> Vec<TskvScanExec> {
    if let Some(scan) = plan.downcast_ref::<TskvScanExec>() {
        return vec![scan.clone()];
    }
    plan.children().into_iter().flat_map(scans).collect()
}

/// Gives a plan these scans, in the order they stand, and its slots these constants, where there are any.
pub(super) fn filled(
    plan: &Arc<dyn ExecutionPlan>,
    scans: &mut impl Iterator<Item = TskvScanExec>,
    constants: Option<&[ScalarValue]>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.is::<TskvScanExec>() {
        let scan = scans.next().ok_or_else(|| Error::internal("a scan for each"))?;
        return Ok(Arc::new(scan));
    }
    let children = plan.children().into_iter().map(|child| filled(child, scans, constants));
    let mut children = children.collect::<Result<Vec<_>>>()?;
    if let (Some(filter), Some(constants)) = (plan.downcast_ref::<FilterExec>(), constants) {
        let predicate = with_constants(filter, constants)?;
        let input = children.pop().ok_or_else(|| Error::internal("a filter has an input"))?;
        let builder = FilterExecBuilder::from(filter).with_input(input).with_predicate(predicate);
        return Ok(Arc::new(builder.build()?));
    }
    let kept = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    Arc::clone(plan).replace_children(children, kept)?.reset_state()
}

fn with_constants(filter: &FilterExec, constants: &[ScalarValue]) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = filter.input().schema();
    let put = |expr: Arc<dyn PhysicalExpr>| {
        if let Some(number) = number(&expr) {
            let constant = constants.get(number - 1);
            let constant = constant.ok_or_else(|| Error::internal("a constant for each slot"))?;
            return Ok(Transformed::yes(expressions::lit(constant.clone())));
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            // Made anew it looks constants up in a set.
            let (expr, among) = (Arc::clone(list.expr()), list.list().to_vec());
            let list = expressions::in_list(expr, among, &list.negated(), &schema)?;
            return Ok(Transformed::yes(list));
        }
        Ok(Transformed::no(expr))
    };
    Arc::clone(filter.predicate()).transform_up(put).data()
}
