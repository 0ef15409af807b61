//! Makes physical nodes of our own logical ones.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::as_of::{self, AsOfJoin};
use crate::distinct_on::{self, FirstRows};
use crate::gap_fill::{self, GapFill};

/// DataFusion's planner, with our nodes.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Nodes)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct Nodes;

#[async_trait]
impl ExtensionPlanner for Nodes {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let (Some(node), [input]) = (node.as_any().downcast_ref::<GapFill>(), inputs) {
            return gap_fill::plan(node, Arc::clone(input), session).map(Some);
        }
        if let (Some(node), [input]) = (node.as_any().downcast_ref::<FirstRows>(), inputs) {
            return distinct_on::plan(node, Arc::clone(input), session).map(Some);
        }
        match node.as_any().downcast_ref::<AsOfJoin>() {
            Some(node) => as_of::plan(node, inputs, session).map(Some),
            None => Ok(None),
        }
    }
}
