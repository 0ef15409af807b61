//! Operators that are calls of functions: those of JSON, OVERLAPS, AT TIME ZONE, roots, `@@setting`.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, CaseWhen, Expr, UnaryOperator};

use super::{function, text};
use crate::functions::{OVERLAPS, json};
use crate::zones::TIMEZONE;

/// Rewrites an operator.
pub(super) fn operator(expr: &mut Expr) {
    let called = match expr {
        Expr::BinaryOp { left, op, right } => between(left, op, right),
        Expr::UnaryOp { op, expr: inner } => match op {
            UnaryOperator::DoubleAt => {
                Some(function("current_setting", vec![text(&inner.to_string())]))
            }
            UnaryOperator::PGSquareRoot => Some(function("sqrt", vec![operand(inner)])),
            UnaryOperator::PGCubeRoot => Some(function("cbrt", vec![operand(inner)])),
            UnaryOperator::Minus if is_span(inner) => {
                let zero = Expr::Interval(ast::Interval {
                    value: Box::new(text("0 seconds")),
                    leading_field: None,
                    leading_precision: None,
                    last_field: None,
                    fractional_seconds_precision: None,
                });
                let negative = binary(zero, BinaryOperator::Minus, operand(inner));
                Some(Expr::Nested(Box::new(negative)))
            }
            UnaryOperator::PGAbs => Some(function("abs", vec![operand(inner)])),
            UnaryOperator::BitwiseNot => {
                let ones =
                    Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(super::number(1)) };
                let not = binary(inner.as_ref().clone(), BinaryOperator::PGBitwiseXor, ones);
                Some(Expr::Nested(Box::new(not)))
            }
            // A sign binds tighter than a power.
            UnaryOperator::Minus => with_sign(inner),
            _ => None,
        },
        Expr::AtTimeZone { timestamp, time_zone } => {
            Some(function(TIMEZONE, vec![operand(time_zone), operand(timestamp)]))
        }
        _ => None,
    };
    if let Some(called) = called {
        *expr = called;
    }
}

/// Returns the call that an operator between two operands is.
fn between(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    let both = || vec![operand(left), operand(right)];
    Some(match op {
        BinaryOperator::Arrow => function(json::GET, both()),
        BinaryOperator::LongArrow => function(json::GET_TEXT, both()),
        BinaryOperator::HashArrow => function(json::AT_PATH, both()),
        BinaryOperator::HashLongArrow => function(json::AT_PATH_TEXT, both()),
        BinaryOperator::PGOverlap => function("array_has_any", both()),
        BinaryOperator::Overlaps => {
            let (Expr::Tuple(first), Expr::Tuple(second)) = (left, right) else { return None };
            let [a, b] = first.as_slice() else { return None };
            let [c, d] = second.as_slice() else { return None };
            function(OVERLAPS, [a, b, c, d].map(Clone::clone).to_vec())
        }
        _ => return None,
    })
}

/// Puts a minus before the first base of a power.
fn with_sign(power: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op: op @ BinaryOperator::PGExp, right } = power else { return None };
    let negative = || Expr::UnaryOp { op: UnaryOperator::Minus, expr: left.clone() };
    let base = with_sign(left).unwrap_or_else(negative);
    Some(binary(base, op.clone(), right.as_ref().clone()))
}

/// Returns whether an interval is written out.
fn is_span(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_span(inner),
        Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } => matches!(data_type, ast::DataType::Interval { .. }),
        _ => false,
    }
}

fn operand(expr: &Expr) -> Expr {
    match expr {
        Expr::Nested(inner) => inner.as_ref().clone(),
        other => other.clone(),
    }
}

/// Makes a CASE of conditions and results.
pub(super) fn case(conditions: Vec<(Expr, Expr)>, otherwise: Expr) -> Expr {
    let when = |(condition, result)| CaseWhen { condition, result };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: conditions.into_iter().map(when).collect(),
        else_result: Some(Box::new(otherwise)),
    }
}

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}
