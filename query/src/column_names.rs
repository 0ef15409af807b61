//! The names of a query's columns: PostgreSQL's for clients, distinct ones for the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::sql::fold;
use crate::types::short_name;

/// Returns the names PostgreSQL gives the columns of a query; empty where the plan's own names stay.
pub(crate) fn names(query: &DfStatement) -> Names {
    let none = Names::default();
    let DfStatement::Statement(statement) = query else { return none };
    let ast::Statement::Query(query) = statement.as_ref() else { return none };
    let mut body = query.body.as_ref();
    while let ast::SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    let ast::SetExpr::Select(select) = body else { return none };
    let name = |item: &ast::SelectItem| match item {
        ast::SelectItem::UnnamedExpr(expression) => Some(Some(column_name(expression))),
        ast::SelectItem::ExprWithAlias { alias, .. } => Some(Some(fold(alias))),
        _ => None,
    };
    let names: Vec<Option<Option<String>>> = select.projection.iter().map(name).collect();
    let wildcards = names.iter().filter(|name| name.is_none()).count();
    let at = names.iter().position(Option::is_none);
    let named = |names: &[Option<Option<String>>]| names.iter().flatten().cloned().collect();
    match (at, wildcards) {
        (None, _) => Names { first: named(&names), last: Vec::new(), between: false },
        (Some(at), 1) => {
            Names { first: named(&names[..at]), last: named(&names[at + 1..]), between: true }
        }
        _ => none,
    }
}

/// The names of the first and the last columns. A wildcard stands for nobody knows how many between.
#[derive(Debug, Default)]
pub(crate) struct Names {
    first: Vec<Option<String>>,
    last: Vec<Option<String>>,
    between: bool,
}

/// What PostgreSQL calls a column that nothing names.
const UNKNOWN: &str = "?column?";

/// Names a column as PostgreSQL's `FigureColname` does: after the column, the function or the type.
fn column_name(expression: &ast::Expr) -> String {
    let unknown = || UNKNOWN.to_owned();
    match expression {
        ast::Expr::Identifier(ident) => fold(ident),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map_or_else(unknown, fold),
        ast::Expr::Function(function) => {
            let last = function.name.0.last().and_then(|part| part.as_ident());
            last.map_or_else(unknown, fold)
        }
        ast::Expr::Cast { expr, data_type, .. } => match column_name(expr) {
            name if name == UNKNOWN => type_name(data_type),
            name => name,
        },
        ast::Expr::Nested(inner) => column_name(inner),
        ast::Expr::Case { else_result: Some(otherwise), .. }
            if is_column(otherwise) || matches!(**otherwise, ast::Expr::Function(_)) =>
        {
            column_name(otherwise)
        }
        ast::Expr::Case { .. } => "case".to_owned(),
        ast::Expr::Ceil { .. } => "ceil".to_owned(),
        ast::Expr::Floor { .. } => "floor".to_owned(),
        ast::Expr::Position { .. } => "position".to_owned(),
        ast::Expr::Substring { .. } => "substring".to_owned(),
        ast::Expr::Overlay { .. } => "overlay".to_owned(),
        ast::Expr::Trim { .. } => "btrim".to_owned(),
        ast::Expr::AtTimeZone { .. } => "timezone".to_owned(),
        ast::Expr::Extract { .. } => "extract".to_owned(),
        ast::Expr::TypedString(typed) => type_name(&typed.data_type),
        ast::Expr::Interval(_) => "interval".to_owned(),
        ast::Expr::Subquery(query) => {
            let item = match query.body.as_ref() {
                ast::SetExpr::Select(select) => select.projection.first(),
                _ => None,
            };
            match item {
                Some(ast::SelectItem::UnnamedExpr(expression)) => column_name(expression),
                Some(ast::SelectItem::ExprWithAlias { alias, .. }) => fold(alias),
                _ => unknown(),
            }
        }
        ast::Expr::Exists { .. } => "exists".to_owned(),
        ast::Expr::Array(_) => "array".to_owned(),
        _ => unknown(),
    }
}

pub(crate) fn renamed(schema: &SchemaRef, names: &Names) -> SchemaRef {
    let known = names.first.len() + names.last.len();
    let count = schema.fields().len();
    if known > count || (known < count && !names.between) {
        return Arc::clone(schema);
    }
    let between = std::iter::repeat_n(&None, count - known);
    let names = names.first.iter().chain(between).chain(&names.last);
    let field = |(field, name): (&FieldRef, &Option<String>)| match name {
        Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
        None => Arc::clone(field),
    };
    let fields: Vec<FieldRef> = schema.fields().iter().zip(names).map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Names the columns of every SELECT in a statement: as PostgreSQL does, so that the queries around it may
/// say these names; where a name is taken, otherwise, as the planner wants them told apart. Clients see the
/// names of [`names`].
pub(crate) fn name_columns(statement: &mut ast::Statement) {
    struct Naming;
    impl VisitorMut for Naming {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
            name_query(query, Level::Within);
            order_by_names(query);
            ControlFlow::Continue(())
        }
    }
    if let ast::Statement::Query(query) = statement {
        name_query(query, Level::Top);
    }
    let walked = statement.visit(&mut Naming);
    debug_assert!(walked.is_continue());
}

/// Where a SELECT stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Its rows are the answer.
    Top,
    /// A query around it reads it.
    Within,
}

fn name_query(query: &mut ast::Query, level: Level) {
    let within_orders = named_within_orders(query);
    let mut groups = BTreeMap::new();
    each_select(&mut query.body, &mut |select| {
        groups = name_items(select, level, &within_orders);
    });
    for order in orders(query) {
        if let ast::Expr::Identifier(name) = &order.expr
            && let Some(alias) = groups.get(&fold(name))
        {
            order.expr = ast::Expr::Identifier(alias.clone());
        }
    }
}

fn orders(query: &mut ast::Query) -> &mut [ast::OrderByExpr] {
    match &mut query.order_by {
        Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(orders), .. }) => orders,
        _ => &mut [],
    }
}

/// Returns the names within what a query orders by, but for those that stand alone: only these may mean a
/// column of the answer.
fn named_within_orders(query: &mut ast::Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for order in orders(query) {
        if is_column(&order.expr) {
            continue;
        }
        let walked = ast::visit_expressions(&order.expr, |expr| {
            if let ast::Expr::Identifier(name) = expr {
                names.insert(fold(name));
            }
            ControlFlow::<()>::Continue(())
        });
        debug_assert!(walked.is_continue());
    }
    names
}

/// Orders distinct rows by their columns' names, where what is computed stands: the planner looks for these.
fn order_by_names(query: &mut ast::Query) {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return };
    if select.distinct.is_none() {
        return;
    }
    let items: Vec<(ast::Expr, ast::Ident)> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            ast::SelectItem::ExprWithAlias { expr, alias } => Some((expr.clone(), alias.clone())),
            _ => None,
        })
        .collect();
    for order in orders(query) {
        if let Some((_, alias)) = items.iter().find(|(expr, _)| *expr == order.expr) {
            order.expr = ast::Expr::Identifier(alias.clone());
        }
    }
}

fn each_select(body: &mut ast::SetExpr, name: &mut impl FnMut(&mut ast::Select)) {
    match body {
        ast::SetExpr::SetOperation { left, right, .. } => {
            each_select(left, name);
            each_select(right, name);
        }
        ast::SetExpr::Select(select) => name(select),
        _ => {}
    }
}

/// Returns what a cast to a type is called.
fn type_name(data_type: &ast::DataType) -> String {
    let written = data_type.to_string().to_lowercase();
    let bare = written.split(['(', '[']).next().unwrap_or_default().trim();
    short_name(bare).to_owned()
}

fn is_column(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))
}

/// Names the columns of a SELECT. Returns the names that PostgreSQL gives those which have others here because
/// the rows are grouped by a column of that name.
fn name_items(
    select: &mut ast::Select,
    level: Level,
    within_orders: &BTreeSet<String>,
) -> BTreeMap<String, ast::Ident> {
    let mut of_groups = BTreeMap::new();
    let has_groups = select.having.is_some()
        || !matches!(&select.group_by, ast::GroupByExpr::Expressions(by, _) if by.is_empty());
    let mut taken = BTreeSet::new();
    let mut beside_wildcard = false;
    for item in &select.projection {
        match item {
            ast::SelectItem::UnnamedExpr(expr) if is_column(expr) => {
                taken.insert(column_name(expr));
            }
            ast::SelectItem::ExprWithAlias { alias, .. } => {
                taken.insert(fold(alias));
            }
            ast::SelectItem::UnnamedExpr(_) => {}
            _ => beside_wildcard = true,
        }
    }
    let mut written = BTreeSet::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let fresh = || ast::Ident::with_quote('"', format!("?column {}?", at + 1));
        match item {
            ast::SelectItem::ExprWithAlias { alias, .. }
                if !written.insert(fold(alias)) && level == Level::Top =>
            {
                *alias = fresh();
            }
            ast::SelectItem::UnnamedExpr(expr) if !is_column(expr) || beside_wildcard => {
                let name = column_name(expr);
                // What a wildcard gives may have that name already; and of what is grouped by a column,
                // its cast is another thing.
                let of_group = has_groups && is_named_after_column(expr);
                let clashes = name == UNKNOWN
                    || (beside_wildcard && (level == Level::Top || is_named_after_column(expr)))
                    || within_orders.contains(&name)
                    || !taken.insert(name.clone());
                if of_group && !clashes {
                    of_groups.insert(name.clone(), fresh());
                }
                let clashes = clashes || of_group;
                name_item(item, if clashes { fresh() } else { ast::Ident::with_quote('"', name) });
            }
            ast::SelectItem::UnnamedExpr(expr) if !written.insert(expr.to_string()) => {
                name_item(item, fresh());
            }
            _ => {}
        }
    }
    of_groups
}

/// Returns whether an expression is called after a column, as a cast of one is.
fn is_named_after_column(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Cast { expr, .. } | ast::Expr::Nested(expr) => is_named_after_column(expr),
        other => is_column(other),
    }
}

fn name_item(item: &mut ast::SelectItem, alias: ast::Ident) {
    if let ast::SelectItem::UnnamedExpr(expression) = item {
        let null = ast::Expr::Value(ast::Value::Null.with_empty_span());
        let expr = std::mem::replace(expression, null);
        *item = ast::SelectItem::ExprWithAlias { expr, alias };
    }
}
