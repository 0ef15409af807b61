//! `IS [NOT] DISTINCT FROM` as PostgreSQL binds it: tighter than NOT, AND and OR. The parser takes all that
//! follows for its right side; what a query writes in parentheses stands in `Nested`, so that what it does
//! not can be told and put right.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Puts an expression right whose parts are.
pub(super) fn rebind(expr: &mut Expr) {
    match expr {
        Expr::IsDistinctFrom(left, right) if is_junction(right) => {
            let (left, right) = (taken(left), taken(right));
            *expr = into_first(right, &|first| {
                Expr::IsDistinctFrom(Box::new(left.clone()), Box::new(first))
            });
        }
        Expr::IsNotDistinctFrom(left, right) if is_junction(right) => {
            let (left, right) = (taken(left), taken(right));
            *expr = into_first(right, &|first| {
                Expr::IsNotDistinctFrom(Box::new(left.clone()), Box::new(first))
            });
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } if is_junction(inner) => {
            let junction = taken(inner);
            *expr = into_first(junction, &|first| Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr: Box::new(first),
            });
        }
        Expr::BinaryOp { left, op: BinaryOperator::And, right } if is_or(right) => {
            let (or, left) = (taken(right), taken(left));
            if let Expr::BinaryOp { left: first, op, right } = or {
                let mut and =
                    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: first };
                rebind(&mut and);
                *expr = Expr::BinaryOp { left: Box::new(and), op, right };
            }
        }
        _ => {}
    }
}

/// Takes an expression out of its place, which is to be filled anew.
fn taken(place: &mut Expr) -> Expr {
    std::mem::replace(place, Expr::Value(Value::Null.with_empty_span()))
}

fn is_junction(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
}

fn is_or(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::Or, .. })
}

/// Wraps the first term of a junction.
fn into_first(expr: Expr, wrap: &dyn Fn(Expr) -> Expr) -> Expr {
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            Expr::BinaryOp { left: Box::new(into_first(*left, wrap)), op, right }
        }
        other => wrap(other),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::sql::DIALECT;

    struct Rebinding;

    impl VisitorMut for Rebinding {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            rebind(expr);
            ControlFlow::Continue(())
        }
    }

    /// Returns an expression with parentheses around all that is bound.
    fn bound(expr: &Expr) -> String {
        match expr {
            Expr::BinaryOp { left, op, right } => {
                format!("({} {op} {})", bound(left), bound(right))
            }
            Expr::UnaryOp { op, expr } => format!("({op} {})", bound(expr)),
            Expr::IsDistinctFrom(left, right) => format!("({} <> {})", bound(left), bound(right)),
            Expr::IsNotDistinctFrom(left, right) => {
                format!("({} == {})", bound(left), bound(right))
            }
            Expr::Nested(inner) => bound(inner),
            other => other.to_string(),
        }
    }

    #[test]
    fn it_binds_tighter_than_not_and_and_or() {
        let cases = [
            ("a IS NOT DISTINCT FROM b AND c", "((a == b) AND c)"),
            ("p AND a IS DISTINCT FROM b OR c", "((p AND (a <> b)) OR c)"),
            ("p OR a IS DISTINCT FROM b AND c OR d", "(p OR (((a <> b) AND c) OR d))"),
            ("NOT a IS DISTINCT FROM b AND c", "((NOT (a <> b)) AND c)"),
            ("a IS DISTINCT FROM (b AND c)", "(a <> (b AND c))"),
            (
                "a IS DISTINCT FROM b AND c IS DISTINCT FROM d OR e",
                "(((a <> b) AND (c <> d)) OR e)",
            ),
            ("p AND q AND a IS DISTINCT FROM b + 1 OR c", "(((p AND q) AND (a <> (b + 1))) OR c)"),
        ];
        for (text, wanted) in cases {
            let parser = Parser::new(&DIALECT);
            let mut expr = parser.try_with_sql(text).unwrap().parse_expr().unwrap();
            assert_eq!(expr.visit(&mut Rebinding), ControlFlow::Continue(()));
            assert_eq!(bound(&expr), wanted, "{text}");
        }
    }
}
