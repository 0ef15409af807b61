//! EXISTS and IN in select lists: whether a count is above 0, as the planner can make no join of them there.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use super::operators::{binary, case};
use super::{derived, expression, expression_mut, function, number, row_values};
use crate::error::{Error, Result};
use crate::sql::template;

/// The column of what a value is looked for in.
const AMONG: &str = "__among_value";
/// The most rewritings in a statement.
pub(super) const BUDGET: usize = 200;

/// Writes EXISTS and IN in a select list as counts.
pub(super) fn in_list(query: &mut ast::Query, budget: &mut usize) -> Result<()> {
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    for (at, item) in select.projection.iter_mut().enumerate() {
        let Some(expr) = expression_mut(item) else { continue };
        let mut counting = Counting { within: 0, budget };
        if expr.visit(&mut counting).is_break() {
            let message = "too many IN and EXISTS with subqueries in select lists";
            return Err(Error::new("54001", message).hint("join what they look for instead"));
        }
        if let ast::SelectItem::UnnamedExpr(expr) = item
            && is_counted(expr)
        {
            let null = ast::Expr::Value(ast::Value::Null.with_empty_span());
            let expr = std::mem::replace(expr, null);
            let alias = ast::Ident::with_quote('"', format!("?exists {at}?"));
            *item = ast::SelectItem::ExprWithAlias { expr, alias };
        }
    }
    Ok(())
}

/// Returns whether an expression is what [`Counting`] makes.
fn is_counted(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::BinaryOp { left, .. } => matches!(**left, ast::Expr::Subquery(_)),
        ast::Expr::Case { conditions, .. } => {
            conditions.first().is_some_and(|first| is_counted(&first.condition))
        }
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Not, expr } => is_counted(expr),
        _ => false,
    }
}

/// Rewrites what is in a select list itself: queries within have lists of their own.
struct Counting<'a> {
    within: usize,
    /// Each rewriting repeats its subquery, those within it too.
    budget: &'a mut usize,
}

impl VisitorMut for Counting<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.within += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.within -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let is_of_rows = |expr: &ast::Expr| matches!(expr, ast::Expr::InSubquery { expr, .. } if matches!(**expr, ast::Expr::Tuple(_)));
        if self.within > 0 {
            return ControlFlow::Continue(());
        }
        if is_of_rows(expr) {
            row_values::in_list(expr);
        }
        if matches!(expr, ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. }) {
            match self.budget.checked_sub(1) {
                Some(left) => *self.budget = left,
                None => return ControlFlow::Break(()),
            }
        }
        match expr {
            ast::Expr::Exists { subquery, negated } => {
                let op = if *negated { ast::BinaryOperator::Eq } else { ast::BinaryOperator::Gt };
                let left = Box::new(ast::Expr::Subquery(Box::new(counted(subquery))));
                *expr = ast::Expr::BinaryOp { left, op, right: Box::new(number(0)) };
            }
            ast::Expr::InSubquery { expr: of, subquery, negated } => {
                let found = is_in(of, subquery);
                *expr = match negated {
                    false => found,
                    true => {
                        ast::Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: Box::new(found) }
                    }
                };
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Returns whether an item neither makes rows nor takes several together.
fn gives_one_value(item: &ast::SelectItem) -> bool {
    match expression(item) {
        Some(expr) => ast::visit_expressions(expr, |expr| match expr {
            ast::Expr::Function(_) | ast::Expr::Subquery(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_continue(),
        None => true,
    }
}

/// Returns the query of how many rows a query has. A plain one stays as it is but for its list, so that it
/// may name columns of the query around it.
fn counted(query: &ast::Query) -> ast::Query {
    let count = || ast::SelectItem::UnnamedExpr(function("count", vec![number(1)]));
    let mut counted = query.clone();
    counted.order_by = None;
    let limits_rows = query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some();
    if let ast::SetExpr::Select(select) = counted.body.as_mut()
        && !limits_rows
        && select.distinct.is_none()
        && select.having.is_none()
        && select.projection.iter().all(gives_one_value)
        && matches!(&select.group_by, ast::GroupByExpr::Expressions(by, _) if by.is_empty())
    {
        select.projection = vec![count()];
        return counted;
    }
    let mut around = template();
    if let ast::SetExpr::Select(select) = around.body.as_mut() {
        select.projection = vec![count()];
        select.from = vec![derived(query.clone(), "__counted")];
    }
    around
}

/// Says whether a value is among those of a query: NULL where that cannot be known.
fn is_in(of: &ast::Expr, subquery: &ast::Query) -> ast::Expr {
    let among = || ast::Expr::Identifier(ast::Ident::new(AMONG));
    let some = |condition: Option<ast::Expr>| {
        let mut around = template();
        if let ast::SetExpr::Select(select) = around.body.as_mut() {
            let mut from = derived(subquery.clone(), "__among");
            if let ast::TableFactor::Derived { alias: Some(alias), .. } = &mut from.relation {
                let name = ast::Ident::new(AMONG);
                alias.columns.push(ast::TableAliasColumnDef { name, data_type: None });
            }
            select.projection =
                vec![ast::SelectItem::UnnamedExpr(function("count", vec![number(1)]))];
            select.from = vec![from];
            select.selection = condition;
        }
        let count = ast::Expr::Subquery(Box::new(around));
        binary(count, ast::BinaryOperator::Gt, number(0))
    };
    let of = ast::Expr::Nested(Box::new(of.clone()));
    let found = some(Some(binary(among(), ast::BinaryOperator::Eq, of.clone())));
    let nothing_to_compare = binary(
        ast::Expr::IsNull(Box::new(of)),
        ast::BinaryOperator::And,
        ast::Expr::Nested(Box::new(some(None))),
    );
    let null_among = some(Some(ast::Expr::IsNull(Box::new(among()))));
    let unknown = binary(nothing_to_compare, ast::BinaryOperator::Or, null_among);
    let value = |value: ast::Value| ast::Expr::Value(value.with_empty_span());
    let conditions =
        vec![(found, value(ast::Value::Boolean(true))), (unknown, value(ast::Value::Null))];
    case(conditions, value(ast::Value::Boolean(false)))
}
