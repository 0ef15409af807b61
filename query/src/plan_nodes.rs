//! What the nodes of plans that we write share.

use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};

use crate::error::Error;

/// Returns the wish that a node with other children works out its properties anew.
pub(crate) fn recomputed() -> ReplaceChildrenOptions {
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute)
}

/// Returns the child or input of a node that has one.
///
/// # Errors
/// None at all.
pub(crate) fn only<T>(mut all: Vec<T>) -> Result<T> {
    Ok(all.pop().ok_or_else(|| Error::internal("a node of a plan has one input"))?)
}

/// Returns the places of the columns that expressions name; `None` where one is not there.
pub(crate) fn places_of<'a>(
    schema: &DFSchema,
    exprs: impl IntoIterator<Item = &'a Expr>,
) -> Option<Vec<usize>> {
    let columns = exprs.into_iter().flat_map(Expr::column_refs);
    columns.map(|column| schema.index_of_column(column).ok()).collect()
}

/// Returns places in order, each once.
pub(crate) fn each_once(mut places: Vec<usize>) -> Vec<usize> {
    places.sort_unstable();
    places.dedup();
    places
}
