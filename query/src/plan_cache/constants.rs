//! Takes the constants out of the conditions of a query: what is left is one text for all queries of a kind.
//!
//! Only what a column is compared with is taken, for nothing but the rows that are read may depend on it.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, Visit, VisitMut, Visitor, VisitorMut};

use crate::instants::{Zone, parse_instant};
use crate::planning::{PARAMETERS_MAX, placeholder};
use crate::sql::cast_to;

/// Texts that are another time whenever they are read.
const MOVING: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// A constant, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    /// A number, with its sign.
    Number(String),
    /// A text.
    Text(String),
    /// The time at which the statement began.
    Now,
}

impl Constant {
    /// Returns the constant as a value of a type; `None` where it is not exactly one.
    pub(super) fn value(
        &self,
        data_type: &DataType,
        zone: &Zone,
        now_ns: i64,
    ) -> Option<ScalarValue> {
        let instant = |ns, zone: &Arc<str>| {
            ScalarValue::TimestampNanosecond(Some(ns), Some(Arc::clone(zone)))
        };
        match (self, data_type) {
            (Self::Number(number), DataType::Int64) => Some(number.parse::<i64>().ok()?.into()),
            (Self::Number(number), DataType::UInt64) => Some(number.parse::<u64>().ok()?.into()),
            (Self::Number(number), DataType::Float64) => {
                // A whole number is one before it is a double: -0 is 0.
                let whole = number.parse::<i64>().map(|whole| whole as f64);
                let number = whole.or_else(|_| number.parse::<f64>()).ok()?;
                number.is_finite().then(|| number.into())
            }
            (Self::Text(text), DataType::Utf8) => Some(text.as_str().into()),
            (Self::Text(text), DataType::Timestamp(TimeUnit::Nanosecond, Some(of))) => {
                Some(instant(parse_instant(text, zone, now_ns)?, of))
            }
            (Self::Now, DataType::Timestamp(TimeUnit::Nanosecond, Some(of))) => {
                Some(instant(now_ns, of))
            }
            _ => None,
        }
    }
}

/// A query without its constants: parameters stand for them, numbered after those it has.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) query: DfStatement,
    /// How many parameters it has.
    pub(super) parameters: usize,
    pub(super) constants: Vec<Constant>,
}

/// Takes the constants out of a query. `None` where the rest is not the same at all times, or no query.
pub(super) fn take(query: &DfStatement) -> Option<Taken> {
    let DfStatement::Statement(statement) = query else { return None };
    if !matches!(statement.as_ref(), ast::Statement::Query(_)) {
        return None;
    }
    let mut statement = statement.clone();
    let mut numbered = Parameters(0);
    let mut still = Visit::visit(&statement, &mut numbered).is_continue();
    let parameters = numbered.0;
    let mut taking = Taking { parameters, constants: Vec::new() };
    still &= VisitMut::visit(&mut statement, &mut taking).is_continue();
    still &= Visit::visit(&statement, &mut Still).is_continue();
    let (query, constants) = (DfStatement::Statement(statement), taking.constants);
    (still && parameters + constants.len() <= PARAMETERS_MAX).then_some(Taken {
        query,
        parameters,
        constants,
    })
}

/// The highest number of a parameter.
struct Parameters(usize);

impl Visitor for Parameters {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ast::ValueWithSpan) -> ControlFlow<()> {
        if let ast::Value::Placeholder(name) = &value.value {
            self.0 = self.0.max(placeholder(name).unwrap_or(0));
        }
        ControlFlow::Continue(())
    }
}

struct Taking {
    parameters: usize,
    constants: Vec<Constant>,
}

impl VisitorMut for Taking {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        if let Some(condition) = &mut select.selection {
            self.condition(condition);
        }
        ControlFlow::Continue(())
    }
}

impl Taking {
    fn condition(&mut self, condition: &mut ast::Expr) {
        use ast::BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
        match condition {
            ast::Expr::BinaryOp { left, op: And | Or, right } => {
                self.condition(left);
                self.condition(right);
            }
            ast::Expr::BinaryOp { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right } => {
                if is_column(left) {
                    self.compared(right);
                } else if is_column(right) {
                    self.compared(left);
                }
            }
            ast::Expr::Nested(inner)
            | ast::Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: inner } => {
                self.condition(inner);
            }
            ast::Expr::Between { expr, low, high, .. } if is_column(expr) => {
                self.compared(low);
                self.compared(high);
            }
            ast::Expr::InList { expr, list, .. } if is_column(expr) => {
                list.iter_mut().for_each(|one| self.compared(one));
            }
            _ => {}
        }
    }

    /// Takes what a column is compared with, where that is a constant, or the time now, more or less.
    fn compared(&mut self, expr: &mut ast::Expr) {
        use ast::BinaryOperator::{Minus, Plus};
        match expr {
            ast::Expr::Nested(inner) => self.compared(inner),
            ast::Expr::BinaryOp { left, op: Plus | Minus, .. } if is_now(left) => {
                self.compared(left)
            }
            ast::Expr::Cast { expr: inner, data_type, .. } if is_instant(data_type) => {
                if let Some(constant @ Constant::Text(_)) = constant(inner) {
                    **inner = self.put(constant);
                }
            }
            _ if is_now(expr) => {
                let placed = self.put(Constant::Now);
                let with_zone = ast::TimezoneInfo::WithTimeZone;
                *expr = cast_to(placed, ast::DataType::Timestamp(None, with_zone));
            }
            _ => {
                if let Some(constant) = constant(expr) {
                    *expr = self.put(constant);
                }
            }
        }
    }

    fn put(&mut self, constant: Constant) -> ast::Expr {
        self.constants.push(constant);
        let name = format!("${}", self.parameters + self.constants.len());
        ast::Expr::Value(ast::Value::Placeholder(name).with_empty_span())
    }
}

fn is_column(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))
}

fn is_instant(data_type: &ast::DataType) -> bool {
    use ast::TimezoneInfo::{Tz, WithTimeZone};
    matches!(data_type, ast::DataType::Timestamp(None, Tz | WithTimeZone))
}

fn is_now(expr: &ast::Expr) -> bool {
    let ast::Expr::Function(function) = expr else { return false };
    let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return false };
    let has_no_arguments = match &function.args {
        ast::FunctionArguments::None => true,
        ast::FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        ast::FunctionArguments::Subquery(_) => false,
    };
    let is_named = |known| name.value.eq_ignore_ascii_case(known);
    has_no_arguments
        && function.over.is_none()
        && ["now", "current_timestamp"].into_iter().any(is_named)
}

fn constant(expr: &ast::Expr) -> Option<Constant> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(number, false) => Some(Constant::Number(number.clone())),
            ast::Value::SingleQuotedString(text) => Some(Constant::Text(text.clone())),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match constant(expr)? {
            Constant::Number(number) if !number.starts_with('-') => {
                Some(Constant::Number(format!("-{number}")))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Stops at a text that means another time whenever it is read.
struct Still;

impl Visitor for Still {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ast::ValueWithSpan) -> ControlFlow<()> {
        let moves = value.value.clone().into_string().is_some_and(|text| {
            let text = text.trim().to_ascii_lowercase();
            MOVING.contains(&text.as_str())
        });
        if moves { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Statement, parse_one};

    fn taken(sql: &str) -> Option<(String, Vec<Constant>)> {
        let Ok(Some(Statement::Query(query))) = parse_one(sql) else { panic!("{sql}") };
        take(&query).map(|taken| (taken.query.to_string(), taken.constants))
    }

    #[test]
    fn what_columns_are_compared_with_is_taken_and_nothing_else() {
        let (text, constants) = taken(
            "SELECT usage + 1, 'x' FROM cpu WHERE host IN ('a', 'b') AND time >= '2016-01-01' \
             AND (time < now() - INTERVAL '1 hour' OR usage > -90.5) AND 1 = 1 LIMIT 5",
        )
        .expect("it is the same at all times");
        assert_eq!(
            text,
            "SELECT usage + 1, 'x' FROM cpu WHERE host IN ($1, $2) AND time >= $3 AND \
             (time < CAST($4 AS TIMESTAMP WITH TIME ZONE) - INTERVAL '1 hour' OR usage > $5) \
             AND 1 = 1 LIMIT 5"
        );
        let text = |text: &str| Constant::Text(text.to_owned());
        let number = Constant::Number("-90.5".to_owned());
        let expected = [text("a"), text("b"), text("2016-01-01"), Constant::Now, number];
        assert_eq!(constants, expected);
    }

    #[test]
    fn a_text_that_means_another_time_each_day_stays_out() {
        assert!(taken("SELECT 'today'::timestamptz FROM cpu WHERE usage > 1").is_none());
        assert!(taken("SELECT 1 FROM cpu WHERE time > 'today'").is_some(), "it is a constant");
    }

    #[test]
    fn a_constant_is_a_value_of_a_type_only_where_it_is_exactly_that() {
        let number = |text: &str| Constant::Number(text.to_owned());
        let of = |constant: Constant, of| constant.value(&of, &Zone::default(), 7);
        assert_eq!(of(number("5"), DataType::Int64), Some(5_i64.into()));
        assert_eq!(of(number("5.5"), DataType::Int64), None);
        assert_eq!(of(number("-0"), DataType::Float64), Some(0.0_f64.into()));
        assert_eq!(of(number("-5"), DataType::UInt64), None);
        assert_eq!(of(number("5"), DataType::Utf8), None);
        assert_eq!(of(Constant::Text("5".to_owned()), DataType::Int64), None);
        let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
        let now = ScalarValue::TimestampNanosecond(Some(7), Some("+00:00".into()));
        assert_eq!(of(Constant::Now, instant.clone()), Some(now.clone()));
        assert_eq!(of(Constant::Text("now".to_owned()), instant), Some(now));
    }
}
