//! Comparisons of rows, field by field as PostgreSQL's: a field that is NULL leaves open what the others do
//! not decide.
//!
//! | written                        | planned                                                   |
//! |--------------------------------|-----------------------------------------------------------|
//! | `(a, b) = (c, d)`              | `a = c AND b = d`                                         |
//! | `(a, b) < (c, d)`              | `a < c OR (a = c AND b < d)`                              |
//! | `(a, b) IN ((c, d), (e, f))`   | `(a = c AND b = d) OR (a = e AND b = f)`                  |
//! | `(a, b) IN (SELECT …)`         | `EXISTS (SELECT … WHERE c = a AND d = b)`                 |
//! | `ROW(a, b) IS NULL`            | `a IS NULL AND b IS NULL`                                 |

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, Ident, UnaryOperator};

use super::operators::{binary, case};
use super::{call, derived};
use crate::error::{Error, Result};
use crate::sql::template;

/// What the rows of a subquery are called.
const ROWS: &str = "__rows";
/// The most rows of a list that a row is looked for in; each comes to be a term of the condition.
const ROWS_MAX: usize = 10_000;

/// The longest text of the row that is looked for, times the rows of the list.
const LIST_BYTES_MAX: usize = 1 << 20;

/// Rewrites a comparison of rows.
///
/// # Errors
/// Rows of different lengths, and a list too long.
pub(super) fn compare(expr: &mut Expr) -> Result<()> {
    let rewritten = match &*expr {
        Expr::BinaryOp { left, op, right } => match (fields(left), fields(right)) {
            (Some(left), Some(right)) => compared(&left, op, &right)?,
            _ => None,
        },
        Expr::InList { expr: of, list, negated } => match fields(of) {
            Some(of) => among(&of, list, *negated)?,
            None => None,
        },
        Expr::InSubquery { expr: of, subquery, negated } => {
            fields(of).map(|of| among_rows(&of, subquery, *negated))
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => match inner.as_ref() {
            Expr::Nested(inner) => not_among(inner),
            inner => not_among(inner),
        },
        Expr::IsNull(of) => {
            fields(of).and_then(|of| all(of.iter().map(|field| Expr::IsNull(boxed(field)))))
        }
        Expr::IsNotNull(of) => {
            fields(of).and_then(|of| all(of.iter().map(|field| Expr::IsNotNull(boxed(field)))))
        }
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = Expr::Nested(Box::new(rewritten));
    }
    Ok(())
}

/// Returns the fields of a row that is written out.
fn fields(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(fields) if !fields.is_empty() => Some(fields.clone()),
        Expr::Function(function) => match call(function)? {
            (name, fields) if name == "row" && !fields.is_empty() => {
                Some(fields.into_iter().cloned().collect())
            }
            _ => None,
        },
        _ => None,
    }
}

fn boxed(field: &Expr) -> Box<Expr> {
    Box::new(Expr::Nested(Box::new(field.clone())))
}

fn all(terms: impl Iterator<Item = Expr>) -> Option<Expr> {
    joined(terms.collect(), &BinaryOperator::And)
}

/// Joins terms by AND or OR, as a tree that is as low as can be.
fn joined(mut terms: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        let mut left = terms.into_iter();
        while let Some(one) = left.next() {
            pairs.push(match left.next() {
                Some(other) => Expr::Nested(Box::new(binary(one, op.clone(), other))),
                None => one,
            });
        }
        terms = pairs;
    }
    terms.pop()
}

fn of_one_length(left: &[Expr], right: &[Expr]) -> Result<()> {
    if left.len() == right.len() {
        return Ok(());
    }
    Err(Error::syntax("unequal number of entries in row expressions"))
}

fn compared(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Option<Expr>> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let strict = match op {
        Eq | NotEq => op.clone(),
        Lt | LtEq => Lt,
        Gt | GtEq => Gt,
        _ => return Ok(None),
    };
    of_one_length(left, right)?;
    let pair =
        |at: usize, op: &BinaryOperator| binary(*boxed(&left[at]), op.clone(), *boxed(&right[at]));
    if matches!(op, Eq | NotEq) {
        let terms = (0..left.len()).map(|at| pair(at, op)).collect();
        return Ok(joined(terms, if *op == Eq { &And } else { &Or }));
    }
    // From the last field on, which alone may be equal.
    let mut decided = pair(left.len() - 1, op);
    for at in (0..left.len() - 1).rev() {
        let further = binary(pair(at, &Eq), And, Expr::Nested(Box::new(decided)));
        decided = binary(pair(at, &strict), Or, Expr::Nested(Box::new(further)));
    }
    Ok(Some(decided))
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    if negated {
        let expr = Box::new(Expr::Nested(Box::new(expr)));
        return Expr::UnaryOp { op: UnaryOperator::Not, expr };
    }
    expr
}

fn among(of: &[Expr], list: &[Expr], negated: bool) -> Result<Option<Expr>> {
    let fields_written: usize = of.iter().map(|field| field.to_string().len()).sum();
    if list.len() > ROWS_MAX || list.len().saturating_mul(fields_written) > LIST_BYTES_MAX {
        let message = format!(
            "a list has more than {ROWS_MAX} rows, or the row that is looked for is written too long"
        );
        return Err(Error::new("54000", message).hint("join with VALUES, or with a table"));
    }
    let mut terms = Vec::with_capacity(list.len());
    for row in list {
        let Some(row) = fields(row) else { return Ok(None) };
        let same = compared(of, &BinaryOperator::Eq, &row)?;
        terms.extend(same.map(|same| Expr::Nested(Box::new(same))));
    }
    Ok(joined(terms, &BinaryOperator::Or).map(|found| negated_if(negated, found)))
}

/// Turns `NOT (row IN (SELECT …))`, which was rewritten already, into `NOT IN`: of what is NULL neither holds.
fn not_among(expr: &Expr) -> Option<Expr> {
    let found = match expr {
        Expr::Nested(inner) => inner.as_ref(),
        other => other,
    };
    let Expr::Exists { subquery, negated: false } = found else { return None };
    let mut subquery = subquery.clone();
    let ast::SetExpr::Select(select) = subquery.body.as_mut() else { return None };
    let is_ours = select.from.iter().any(|from| match &from.relation {
        ast::TableFactor::Derived { alias: Some(alias), .. } => alias.name.value == ROWS,
        _ => false,
    });
    let selection = select.selection.take().filter(|_| is_ours)?;
    select.selection = Some(Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(selection)))));
    Some(Expr::Exists { subquery, negated: true })
}

/// Says in a select list whether a row is among those of a query: NULL where that cannot be known.
pub(super) fn in_list(expr: &mut Expr) {
    let Expr::InSubquery { expr: of, subquery, negated } = &*expr else { return };
    let Some(of) = fields(of) else { return };
    let found = among_rows(&of, subquery, false);
    let Expr::Exists { subquery: maybe, .. } = among_rows(&of, subquery, true) else { return };
    let maybe = Expr::Exists { subquery: maybe, negated: false };
    let truth = |value: bool| Expr::Value(ast::Value::Boolean(value).with_empty_span());
    let unknown = Expr::Value(ast::Value::Null.with_empty_span());
    let (yes, no) = (truth(!*negated), truth(*negated));
    *expr = Expr::Nested(Box::new(case(vec![(found, yes), (maybe, unknown)], no)));
}

/// Looks for a row among those of a query. What is NULL may be the same: none is surely missing then.
fn among_rows(of: &[Expr], subquery: &ast::Query, negated: bool) -> Expr {
    let mut from = derived(subquery.clone(), ROWS);
    let names: Vec<Ident> = (1..=of.len()).map(|at| Ident::new(format!("__field_{at}"))).collect();
    if let ast::TableFactor::Derived { alias: Some(alias), .. } = &mut from.relation {
        let column =
            |name: &Ident| ast::TableAliasColumnDef { name: name.clone(), data_type: None };
        alias.columns = names.iter().map(column).collect();
    }
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.from = vec![from];
        let same = names.iter().zip(of).map(|(name, field)| {
            let same = binary(Expr::Identifier(name.clone()), BinaryOperator::Eq, *boxed(field));
            match negated {
                true => Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(same)))),
                false => same,
            }
        });
        select.selection = all(same);
    }
    Expr::Exists { subquery: Box::new(query), negated }
}
