//! Functions that give rows, and rows of VALUES, as PostgreSQL understands them.

use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use std::ops::ControlFlow;

use super::{function, literal_text};
use crate::error::{Error, Result};
use crate::sql::{cast_to, fold, template};

/// Functions that give rows of one column, which has the name that the function is called by.
const SERIES: [&str; 2] = ["generate_series", "range"];

/// Functions in FROM that give rows.
const GIVE_ROWS: [&str; 3] = ["generate_series", "range", "unnest"];

/// Names the column of a function in FROM as the function is called, and refuses samples.
pub(super) fn factor(factor: &mut ast::TableFactor) -> Result<()> {
    if let ast::TableFactor::Table { sample: Some(_), .. }
    | ast::TableFactor::Derived { sample: Some(_), .. } = factor
    {
        return Err(Error::unsupported("TABLESAMPLE").hint("use sample(column, count)"));
    }
    let ast::TableFactor::Table { name, alias, args, with_ordinality, .. } = factor else {
        return Ok(());
    };
    if args.is_some() && *with_ordinality {
        return Err(Error::unsupported("WITH ORDINALITY").hint("use row_number()"));
    }
    let called = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
    if let Some(called_with) = args
        && !GIVE_ROWS.contains(&called.as_str())
    {
        *factor = one_row(name, &called_with.args, alias.as_ref());
        return Ok(());
    }
    if let Some(args) = args
        && called == SERIES[0]
    {
        align(&mut args.args);
    }
    if let (Some(_), Some(alias)) = (args, alias)
        && alias.columns.is_empty()
        && SERIES.contains(&called.as_str())
    {
        let name = alias.name.clone();
        alias.columns.push(ast::TableAliasColumnDef { name, data_type: None });
    }
    Ok(())
}

/// Makes a relation of one row of a function that gives a value.
fn one_row(
    name: &ast::ObjectName,
    args: &[ast::FunctionArg],
    alias: Option<&ast::TableAlias>,
) -> ast::TableFactor {
    let mut call = function("", Vec::new());
    if let ast::Expr::Function(function) = &mut call {
        function.name = name.clone();
        if let ast::FunctionArguments::List(list) = &mut function.args {
            list.args = args.to_vec();
        }
    }
    let named = match (alias, name.0.last().and_then(|part| part.as_ident())) {
        (Some(alias), _) => alias.name.clone(),
        (None, Some(name)) => name.clone(),
        (None, None) => ast::Ident::new("value"),
    };
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        let alias = named.clone();
        select.projection = vec![ast::SelectItem::ExprWithAlias { expr: call, alias }];
    }
    let mut from = super::derived(query, &named.value).relation;
    if let (ast::TableFactor::Derived { alias: made, .. }, Some(alias)) = (&mut from, alias) {
        *made = Some(alias.clone());
    }
    from
}

/// Gives texts among the bounds of a series the type of the bound that has one; where both are texts and
/// the step is an interval they are instants.
fn align(args: &mut [ast::FunctionArg]) {
    let [first, second, rest @ ..] = args else { return };
    let typed = |arg: &ast::FunctionArg| match plain(arg)? {
        ast::Expr::TypedString(typed) => Some(typed.data_type.clone()),
        ast::Expr::Cast { data_type, .. } => Some(data_type.clone()),
        _ => None,
    };
    let is_interval = |arg: &ast::FunctionArg| match plain(arg) {
        Some(ast::Expr::Interval(_)) => true,
        Some(ast::Expr::Cast { data_type, .. }) => {
            matches!(data_type, ast::DataType::Interval { .. })
        }
        _ => false,
    };
    let by_interval = rest.first().is_some_and(is_interval);
    let instant = || ast::DataType::Timestamp(None, ast::TimezoneInfo::Tz);
    let known = typed(first).or_else(|| typed(second));
    let is_date = known.as_ref().is_some_and(|known| matches!(known, ast::DataType::Date));
    let known = known.filter(|_| !(is_date && by_interval));
    let is_whole = known.as_ref().is_none_or(whole);
    if is_whole && !by_interval {
        let bounds = [first, second].into_iter().chain(rest);
        return bounds.filter_map(plain_mut).for_each(as_whole);
    }
    let Some(data_type) = known.or_else(|| by_interval.then(instant)) else { return };
    if let Some(step) = rest.first_mut().and_then(plain_mut)
        && literal_text(step).is_some()
        && matches!(data_type, ast::DataType::Timestamp(..))
    {
        let fields = None;
        let precision = None;
        *step = cast_to(step.clone(), ast::DataType::Interval { fields, precision });
    }
    for bound in [first, second] {
        let is_of_date = matches!(typed(bound), Some(ast::DataType::Date)) && by_interval;
        let Some(expr) = plain_mut(bound) else { continue };
        add_seconds(expr);
        if literal_text(expr).is_some() || is_of_date {
            *expr = cast_to(expr.clone(), data_type.clone());
        }
    }
}

/// Gives a literal date and time without seconds, which the planner does not read, its seconds.
fn add_seconds(expr: &mut ast::Expr) {
    if let ast::Expr::Cast { expr, .. } = expr {
        return add_seconds(expr);
    }
    if let ast::Expr::TypedString(typed) = expr {
        let mut literal = ast::Expr::Value(typed.value.clone());
        add_seconds(&mut literal);
        if let ast::Expr::Value(value) = literal {
            typed.value = value;
        }
        return;
    }
    let is_to_the_minute =
        |text: &&str| text.len() == 16 && text.bytes().filter(|byte| *byte == b':').count() == 1;
    if let Some(minutes) = literal_text(expr).filter(is_to_the_minute) {
        *expr = super::text(&format!("{minutes}:00"));
    }
}

fn whole(data_type: &ast::DataType) -> bool {
    use ast::DataType::{BigInt, Int, Int2, Int4, Int8, Integer, SmallInt};
    matches!(data_type, Int(_) | Integer(_) | BigInt(_) | SmallInt(_) | Int2(_) | Int4(_) | Int8(_))
}

/// Makes a whole number of the widest type of what is none yet as it is written.
fn as_whole(expr: &mut ast::Expr) {
    let is_whole = match expr {
        ast::Expr::Cast { data_type, .. } => whole(data_type),
        ast::Expr::Function(function) => {
            let called = function.name.to_string().to_lowercase();
            ["array_lower", "array_upper", "array_length", "cardinality"].contains(&called.as_str())
        }
        _ => false,
    };
    if is_whole {
        *expr = cast_to(expr.clone(), ast::DataType::BigInt(None));
    }
}

fn plain_mut(arg: &mut ast::FunctionArg) -> Option<&mut ast::Expr> {
    match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn plain(arg: &ast::FunctionArg) -> Option<&ast::Expr> {
    match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
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
        if !call.name.to_string().eq_ignore_ascii_case(SERIES[0]) {
            continue;
        }
        if let ast::FunctionArguments::List(list) = &mut call.args {
            align(&mut list.args);
        }
        let rows = function("unnest", vec![expr.clone()]);
        let alias = named.unwrap_or_else(|| ast::Ident::new(SERIES[0]));
        *item = ast::SelectItem::ExprWithAlias { expr: rows, alias };
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
