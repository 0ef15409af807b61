//! `JOIN … USING`: the planner takes the wrong column, or knows not which, in RIGHT and FULL joins, in WHERE,
//! and where more than two relations share it. The join gets its condition, and the column's name what stands
//! for it.
//!
//! | joins                                     | `k` is                    |
//! |-------------------------------------------|---------------------------|
//! | `a JOIN b USING (k) JOIN c USING (k)`     | `a.k`                     |
//! | `a RIGHT JOIN b USING (k)`                | `b.k`                     |
//! | `a FULL JOIN b USING (k)`                 | `coalesce(a.k, b.k)`      |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, VisitMut, VisitorMut,
};

use super::operators::binary;
use crate::error::{Error, Result};
use crate::sql::fold;

/// What stands for each column that joins share.
type Merged = Vec<(String, Expr)>;

/// Rewrites the joins of a query's SELECT.
///
/// # Errors
/// Joins whose shared columns cannot be told.
pub(super) fn using(query: &mut ast::Query) -> Result<()> {
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some(kinds) = needed(select)? else { return Ok(()) };
    let has_wildcard = select.projection.iter().any(|item| {
        !matches!(item, ast::SelectItem::UnnamedExpr(_) | ast::SelectItem::ExprWithAlias { .. })
    });
    if has_wildcard && kinds.outer {
        return Err(refused("SELECT * of"));
    }
    let mut merged = Merged::new();
    let mut from = select.from.clone();
    for tables in &mut from {
        let mut of_tables = Merged::new();
        if !merge(tables, &mut of_tables)? {
            return if kinds.outer { Err(refused("such joins with")) } else { Ok(()) };
        }
        let walked = tables.visit(&mut Naming { merged: &of_tables, within: 0 });
        debug_assert!(walked.is_continue());
        for (name, stands) in of_tables {
            // A name of two relations is ambiguous: the planner says so.
            if merged.iter().any(|(other, _)| *other == name) {
                return if kinds.outer { Err(refused("several")) } else { Ok(()) };
            }
            merged.push((name, stands));
        }
    }
    // A wildcard gives a shared column once, as long as the join says what is shared.
    if !has_wildcard {
        select.from = from;
    }
    let mut naming = Naming { merged: &merged, within: 0 };
    for item in &mut select.projection {
        if let ast::SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
            && let Some(expr) = naming.of(name)
        {
            *item = ast::SelectItem::ExprWithAlias { expr, alias: name.clone() };
        }
    }
    let named: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            ast::SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        })
        .collect();
    // ORDER BY means the answer's column before one that is read.
    let unnamed: Merged =
        merged.iter().filter(|(name, _)| !named.contains(name)).cloned().collect();
    let mut of_order = Naming { merged: &unnamed, within: 0 };
    let walked = [
        select.projection.visit(&mut naming),
        select.selection.visit(&mut naming),
        select.group_by.visit(&mut naming),
        select.having.visit(&mut naming),
        select.named_window.visit(&mut naming),
        query.order_by.visit(&mut of_order),
    ];
    debug_assert!(walked.iter().all(ControlFlow::is_continue));
    Ok(())
}

fn refused(what: &str) -> Error {
    let hint = "write the join's condition with ON, and name the columns";
    Error::unsupported(format!("{what} RIGHT or FULL JOIN ... USING")).hint(hint)
}

/// Which joins there are that need to be rewritten.
struct Kinds {
    /// A RIGHT or FULL join.
    outer: bool,
}

fn needed(select: &ast::Select) -> Result<Option<Kinds>> {
    let (mut outer, mut any) = (false, false);
    for join in select.from.iter().flat_map(|tables| &tables.joins) {
        let Some((constraint, kept)) = parts(&join.join_operator) else { continue };
        match constraint {
            JoinConstraint::Using(_) => {
                any = true;
                outer |= kept != Kept::Left;
            }
            JoinConstraint::Natural if kept != Kept::Left => {
                let what = "NATURAL RIGHT or FULL JOIN";
                return Err(Error::unsupported(what).hint("write the join's condition with ON"));
            }
            _ => {}
        }
    }
    Ok(any.then_some(Kinds { outer }))
}

/// Whose value of a shared column is never missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Left,
    Right,
    Either,
}

fn parts(operator: &JoinOperator) -> Option<(&JoinConstraint, Kept)> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => Some((constraint, Kept::Left)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            Some((constraint, Kept::Right))
        }
        JoinOperator::FullOuter(constraint) => Some((constraint, Kept::Either)),
        _ => None,
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// Writes out the conditions of joins; false where it is not known which relation has a column.
fn merge(tables: &mut ast::TableWithJoins, merged: &mut Merged) -> Result<bool> {
    let first = name_of(&tables.relation);
    for (at, join) in tables.joins.iter_mut().enumerate() {
        let Some((JoinConstraint::Using(columns), kept)) = parts(&join.join_operator) else {
            continue;
        };
        let Some(right_name) = name_of(&join.relation) else { return Ok(false) };
        let mut conditions: Option<Expr> = None;
        for column in columns.clone() {
            let [ast::ObjectNamePart::Identifier(column)] = column.0.as_slice() else {
                return Err(Error::syntax("USING names columns"));
            };
            let known = merged.iter().position(|(name, _)| *name == fold(column));
            let left = match (known, &first) {
                (Some(known), _) => merged[known].1.clone(),
                (None, Some(first)) if at == 0 => qualified(first, column),
                _ => return Ok(false),
            };
            let right = qualified(&right_name, column);
            let condition = binary(left.clone(), BinaryOperator::Eq, right.clone());
            conditions = Some(match conditions {
                Some(before) => binary(before, BinaryOperator::And, condition),
                None => condition,
            });
            let stands = match kept {
                Kept::Left => left,
                Kept::Right => right,
                Kept::Either => either(left, right),
            };
            match known {
                Some(known) => merged[known].1 = stands,
                None => merged.push((fold(column), stands)),
            }
        }
        if let (Some(conditions), Some(constraint)) =
            (conditions, constraint(&mut join.join_operator))
        {
            *constraint = JoinConstraint::On(conditions);
        }
    }
    Ok(true)
}

/// Returns the first of what is not NULL; what is such a choice already gets one more.
fn either(left: Expr, right: Expr) -> Expr {
    if let Expr::Function(function) = &left
        && let Some((name, choices)) = super::call(function)
        && name == "coalesce"
    {
        let choices = choices.into_iter().cloned().chain([right]);
        return super::function("coalesce", choices.collect());
    }
    super::function("coalesce", vec![left, right])
}

/// Returns the name by which a relation's columns are told from others.
fn name_of(relation: &ast::TableFactor) -> Option<Ident> {
    match relation {
        ast::TableFactor::Table { alias: Some(alias), .. }
        | ast::TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        ast::TableFactor::Table { name, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

fn qualified(relation: &Ident, column: &Ident) -> Expr {
    Expr::CompoundIdentifier(vec![relation.clone(), column.clone()])
}

/// Puts what stands for shared columns in the places of their names, not within subqueries.
struct Naming<'a> {
    merged: &'a Merged,
    within: usize,
}

impl Naming<'_> {
    fn of(&self, name: &Ident) -> Option<Expr> {
        let name = fold(name);
        self.merged.iter().find(|(column, _)| *column == name).map(|(_, expr)| expr.clone())
    }
}

impl VisitorMut for Naming<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.within += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.within -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.within == 0
            && let Expr::Identifier(name) = expr
            && let Some(stands) = self.of(name)
        {
            *expr = stands;
        }
        ControlFlow::Continue(())
    }
}
