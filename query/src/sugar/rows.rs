//! Functions that give rows, and rows of VALUES, as PostgreSQL understands them.

use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use std::ops::ControlFlow;

use super::function;
use crate::error::{Error, Result};
use crate::sql::{fold, template};

/// Functions that give rows of one column, which has the name that the function is called by.
const SERIES: [&str; 2] = ["generate_series", "range"];

/// Names the column of a function in FROM as the function is called, and refuses samples.
pub(super) fn factor(factor: &mut ast::TableFactor) -> Result<()> {
    if let ast::TableFactor::Table { sample: Some(_), .. }
    | ast::TableFactor::Derived { sample: Some(_), .. } = factor
    {
        return Err(Error::unsupported("TABLESAMPLE").hint("use sample(column, count)"));
    }
    let ast::TableFactor::Table { name, alias, args, .. } = factor else { return Ok(()) };
    let called = name.to_string().to_lowercase();
    if let (Some(_), Some(alias)) = (args, alias)
        && alias.columns.is_empty()
        && SERIES.contains(&called.as_str())
    {
        let name = alias.name.clone();
        alias.columns.push(ast::TableAliasColumnDef { name, data_type: None });
    }
    Ok(())
}

/// Makes rows of `generate_series` in a select list.
pub(super) fn series_in_list(select: &mut ast::Select) {
    for item in &mut select.projection {
        let (expr, named) = match item {
            ast::SelectItem::UnnamedExpr(expr) => (expr, None),
            ast::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias.clone())),
            _ => continue,
        };
        let ast::Expr::Function(call) = expr else { continue };
        let Some(name) = call.name.0.last().and_then(|part| part.as_ident()).map(fold) else {
            continue;
        };
        if name == SERIES[0] {
            let rows = function("unnest", vec![expr.clone()]);
            let alias = named.unwrap_or_else(|| ast::Ident::new(name));
            *item = ast::SelectItem::ExprWithAlias { expr: rows, alias };
        }
    }
}

struct Subqueries;

impl Visitor for Subqueries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// Makes selects of rows of VALUES that hold subqueries.
pub(super) fn values(query: &mut ast::Query) {
    let ast::SetExpr::Values(values) = query.body.as_ref() else { return };
    let mut cells = values.rows.iter().flat_map(|row| &row.content);
    if !cells.any(|cell| cell.visit(&mut Subqueries).is_break()) {
        return;
    }
    let selects = values.rows.iter().filter_map(|row| {
        let mut one = template();
        let item = |(at, expr): (usize, &ast::Expr)| ast::SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: ast::Ident::new(format!("column{}", at + 1)),
        };
        match one.body.as_mut() {
            ast::SetExpr::Select(select) => {
                select.projection = row.content.iter().enumerate().map(item).collect();
            }
            _ => return None,
        }
        Some(*one.body)
    });
    let union = selects.reduce(|left, right| ast::SetExpr::SetOperation {
        op: ast::SetOperator::Union,
        set_quantifier: ast::SetQuantifier::All,
        left: Box::new(left),
        right: Box::new(right),
    });
    if let Some(union) = union {
        *query.body = union;
    }
}
