//! How deep a query nests what the planner writes out twice a level: refused before it takes a time and
//! memory that double with every level.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::error::{Error, Result};
use crate::sql::fold;

/// The deepest subqueries within expressions of subqueries: each is checked again at every level around it.
const SUBQUERIES_MAX: usize = 16;
/// The deepest `coalesce` within other calls of it: each becomes a CASE that names its arguments twice.
const COALESCES_MAX: usize = 12;

/// The deepest comparisons of rows by `<` and its like within others: each names its fields twice.
const ROWS_MAX: usize = 8;

/// Writes directly nested calls of `coalesce` as one, and refuses what nests too deeply.
///
/// # Errors
/// 54001.
pub(crate) fn check(statement: &mut ast::Statement) -> Result<()> {
    match statement.visit(&mut Nesting::default()) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Nesting {
    subqueries: usize,
    coalesces: usize,
    rows: usize,
}

impl Nesting {
    fn counter(&mut self, expr: &ast::Expr) -> Option<(&mut usize, usize, &'static str)> {
        match expr {
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                Some((&mut self.subqueries, SUBQUERIES_MAX, "subqueries"))
            }
            ast::Expr::BinaryOp { left, op, .. }
                if matches!(**left, ast::Expr::Tuple(_)) && is_inequality(op) =>
            {
                Some((&mut self.rows, ROWS_MAX, "comparisons of rows"))
            }
            ast::Expr::Function(call) if is_coalesce(call) => {
                Some((&mut self.coalesces, COALESCES_MAX, "calls of coalesce"))
            }
            _ => None,
        }
    }
}

impl VisitorMut for Nesting {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        flatten(expr);
        if let Some((depth, most, what)) = self.counter(expr) {
            *depth += 1;
            if *depth > most {
                let message = format!("{what} are nested more than {most} deep");
                return ControlFlow::Break(Error::new("54001", message));
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        if let Some((depth, ..)) = self.counter(expr) {
            *depth -= 1;
        }
        ControlFlow::Continue(())
    }
}

fn is_inequality(op: &ast::BinaryOperator) -> bool {
    use ast::BinaryOperator::{Gt, GtEq, Lt, LtEq};
    matches!(op, Gt | GtEq | Lt | LtEq)
}

fn is_coalesce(call: &ast::Function) -> bool {
    let name = match call.name.0.as_slice() {
        [name] => name.as_ident().map(fold),
        _ => None,
    };
    name.is_some_and(|name| ["coalesce", "nvl", "nvl2", "ifnull"].contains(&name.as_str()))
}

/// Writes `coalesce(coalesce(a, b), c)` as `coalesce(a, b, c)`.
fn flatten(expr: &mut ast::Expr) {
    let Some(args) = arguments(expr) else { return };
    let mut flat = Vec::with_capacity(args.len());
    // What is still to be looked at, the first argument last.
    let mut left: Vec<ast::FunctionArg> = std::mem::take(args).into_iter().rev().collect();
    while let Some(mut argument) = left.pop() {
        let inner = match &mut argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(inner)) => arguments(inner),
            _ => None,
        };
        match inner {
            Some(inner) if !inner.is_empty() => {
                left.extend(std::mem::take(inner).into_iter().rev())
            }
            _ => flat.push(argument),
        }
    }
    if let Some(args) = arguments(expr) {
        *args = flat;
    }
}

/// Returns the arguments of a call of `coalesce`.
fn arguments(expr: &mut ast::Expr) -> Option<&mut Vec<ast::FunctionArg>> {
    match expr {
        ast::Expr::Function(ast::Function {
            name,
            args: ast::FunctionArguments::List(list),
            ..
        }) if name.to_string().eq_ignore_ascii_case("coalesce") => Some(&mut list.args),
        _ => None,
    }
}
