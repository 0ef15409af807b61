//! An optimizer rule: where a plan is cut into stages.
//!
//! A chain of operators above a scan goes to the nodes that read, where it makes fewer rows of those it gets:
//! filters, partial aggregates, the first rows of an order. What lies above stays here. An operator goes
//! only where what arrives is equal to what is sent: protobuf has no words for some options of expressions.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};
use datafusion_distributed::{DistributedLeafExec, NetworkCoalesceExec};
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use model::NodeId;

use super::{has_stages, stage_rows_min};
use crate::error::Error;
use crate::plan_nodes::recomputed;
use crate::scan::TskvScanExec;

/// Cuts plans into stages.
pub(super) struct CutStages {
    own: NodeId,
    /// With the functions that other nodes know.
    known: SessionState,
}

impl std::fmt::Debug for CutStages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CutStages").field("own", &self.own).finish_non_exhaustive()
    }
}

impl PhysicalOptimizerRule for CutStages {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.is::<AnalyzeExec>() {
            let analyzed: Result<Vec<_>> = plan
                .children()
                .into_iter()
                .map(|child| self.optimize(Arc::clone(child), options))
                .collect();
            return plan.replace_children(analyzed?, recomputed());
        }
        let cut = plan.transform_down(|plan| {
            // Its term runs again and again, a stage once.
            if plan.is::<RecursiveQueryExec>() {
                return Ok(Transformed::new(plan, false, TreeNodeRecursion::Jump));
            }
            Ok(match self.stage(&plan, options)? {
                Some(stage) => Transformed::new(stage, true, TreeNodeRecursion::Jump),
                None => Transformed::no(plan),
            })
        });
        let plan = cut.data()?;
        // What runs the stages gives one partition.
        if plan.output_partitioning().partition_count() > 1 && has_stages(&plan)? {
            return Ok(Arc::new(CoalescePartitionsExec::new(plan)));
        }
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "stages"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl CutStages {
    /// Makes the rule of a node; `known` has the functions that other nodes know.
    pub(super) fn new(own: NodeId, known: SessionState) -> Self {
        Self { own, known }
    }

    /// Returns the plan as a stage of the nodes that read; `None` where it had better run here.
    fn stage(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let partitions = plan.output_partitioning().partition_count();
        let Some(leaf) = leaf_of_chain(plan) else { return Ok(None) };
        let Some(scan) = leaf.downcast_ref::<TskvScanExec>() else { return Ok(None) };
        // What is above one partition may rely on there being no other.
        let few = partitions < 2 || scan.rows_elsewhere() < stage_rows_min(options).max(1);
        if few || !self.arrives(plan, &leaf, options) {
            return Ok(None);
        }
        let parts = scan.by_node(self.own).into_iter().map(|part| Arc::new(part) as _);
        let parts: Vec<Arc<dyn ExecutionPlan>> = parts.collect();
        let tasks = parts.len();
        let divided: Arc<dyn ExecutionPlan> =
            Arc::new(DistributedLeafExec::try_new(Arc::clone(&leaf), parts)?);
        let mut chain = with_leaf(plan, &divided)?;
        // Partitions of a task share a stream: who merges them here would wait for one while another
        // fills it.
        if let Some(order) = chain.output_ordering().cloned()
            && chain.output_partitioning().partition_count() > 1
        {
            chain = Arc::new(SortPreservingMergeExec::new(order, chain));
        }
        let boundary = Arc::new(NetworkCoalesceExec::try_new(chain, tasks, 1)?);
        // A limit of who stands right above, such as a join, would be taken for one of the stage.
        Ok(Some(Arc::new(CooperativeExec::new(boundary))))
    }

    /// Returns whether what arrives is equal to what is sent.
    fn arrives(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        leaf: &Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> bool {
        let codec = SameLeaf(Arc::clone(leaf));
        // A function is another one where its options are.
        let config = SessionConfig::from(options.clone());
        let Some(known) = Arc::into_inner(self.known.task_ctx()) else { return false };
        let known = known.with_session_config(config);
        let arrived = physical_plan_to_bytes_with_extension_codec(Arc::clone(plan), &codec)
            .and_then(|bytes| physical_plan_from_bytes_with_extension_codec(&bytes, &known, &codec))
            .and_then(|arrived| are_equal(plan, &arrived));
        match arrived {
            Ok(equal) => equal,
            Err(error) => {
                tracing::debug!(%error, "a plan stays here");
                false
            }
        }
    }
}

/// Returns the scan below a chain of operators that may go elsewhere and make fewer rows.
fn leaf_of_chain(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let mut below = Arc::clone(plan);
    let mut fewer = false;
    loop {
        if below.is::<TskvScanExec>() {
            return fewer.then_some(below);
        }
        fewer |= step(&below)?;
        let children = below.children();
        let [child] = children.as_slice() else { return None };
        below = Arc::clone(child);
    }
}

/// Returns whether an operator makes fewer rows; `None` for one that stays here.
fn step(plan: &Arc<dyn ExecutionPlan>) -> Option<bool> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return (*aggregate.mode() == AggregateMode::Partial).then_some(true);
    }
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return sort.preserve_partitioning().then_some(sort.fetch().is_some());
    }
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        let round_robin = matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_));
        return round_robin.then_some(false);
    }
    if plan.is::<FilterExec>() || plan.is::<LocalLimitExec>() {
        return Some(true);
    }
    (plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>()).then_some(false)
}

fn with_leaf(
    plan: &Arc<dyn ExecutionPlan>,
    leaf: &Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let children = plan.children();
    let Some(child) = children.first() else { return Ok(Arc::clone(leaf)) };
    Arc::clone(plan).replace_children(vec![with_leaf(child, leaf)?], recomputed())
}

/// Returns whether two chains do the same.
fn are_equal(ours: &Arc<dyn ExecutionPlan>, theirs: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let line = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).one_line().to_string();
    if line(ours) != line(theirs) || ours.schema() != theirs.schema() {
        return Ok(false);
    }
    // What a sort learns while it runs is no part of it.
    let equal = match (ours.downcast_ref::<SortExec>(), theirs.downcast_ref::<SortExec>()) {
        (Some(ours), Some(theirs)) => ours.expr() == theirs.expr(),
        _ => expressions(ours)? == expressions(theirs)?,
    };
    if !equal {
        return Ok(false);
    }
    if let (Some(ours), Some(theirs)) =
        (ours.downcast_ref::<AggregateExec>(), theirs.downcast_ref::<AggregateExec>())
        && ours.aggr_expr() != theirs.aggr_expr()
    {
        return Ok(false);
    }
    match (ours.children().as_slice(), theirs.children().as_slice()) {
        ([], []) => Ok(true),
        ([ours], [theirs]) => are_equal(ours, theirs),
        _ => Ok(false),
    }
}

fn expressions(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let mut found = Vec::new();
    plan.apply_expressions(&mut |expression| {
        found.push(Arc::clone(expression));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Leaves the leaf of a plan as it is.
#[derive(Debug)]
struct SameLeaf(Arc<dyn ExecutionPlan>);

impl PhysicalExtensionCodec for SameLeaf {
    fn try_decode(
        &self,
        _: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::clone(&self.0))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        _: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if node.is::<TskvScanExec>() {
            return Ok(());
        }
        Err(Error::internal(format!("{} cannot be sent", node.name())).into())
    }
}
