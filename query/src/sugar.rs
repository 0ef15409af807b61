//! Spellings that stand for other SQL: rewritten before a query is planned.
//!
//! | written                                   | planned                                             |
//! |-------------------------------------------|-----------------------------------------------------|
//! | `first(time, x)`, `last(time, x)`         | `first_value(x ORDER BY time)`, `last_value(…)`      |
//! | `exact_count(x)`                          | `count(x)`, which is always exact                    |
//! | `delta(time, x)`, `rate(time, x)`         | the aggregates, not the readers of `gauge_agg`       |
//! | `topk(x, n)`, `bottom(x, n)`              | `x … ORDER BY x DESC LIMIT n`, or ascending          |
//! | `value_fill(time, x, …)` and its like     | one row per pair of what it returns                  |
//! | `ceiling`, `sign`, `variance`, `every` … | what DataFusion calls them                          |
//! | `mod(a, b)`                               | `a % b`                                             |
//! | `row_number() OVER w`                     | as BIGINT                                           |
//! | `extract(second FROM t)`, `array_remove(a, x)`, `date_trunc('decade', t)` … | what `calls` says |
//! | `x AT TIME ZONE z`                        | `timezone(z, x)`                                    |
//! | `x SIMILAR TO 'p'`                        | `x ~ '^(?:q)$'`, q what p means                      |
//! | `EXISTS (…)`, `x IN (…)` in a select list | whether a count is above 0                          |
//! | `a EXCEPT ALL b`, `a INTERSECT ALL b`     | rows with numbers of their copies                   |
//! | `j -> 'k'`, `j #>> '{a,b}'`, `(a, b) OVERLAPS (c, d)` | functions                               |
//! | `'{1,2}'::int[]`, `'\x00'::bytea`, `1.5::numeric`, `j::json` | what `casts` says              |
//! | `to_timestamp(t, p)`, `to_date(t, p)`, `make_interval(days => 1)`, `json_agg(x)` | functions of other names |
//! | `INTERVAL '1 day 04:05'`, `'P1D'::interval` | the same in words                                  |
//! | `generate_series(…) AS g`                 | its column is `g`; in a select list its rows          |
//! | `VALUES ((SELECT …))`                     | `SELECT (SELECT …)`                                 |
//! | `FETCH FIRST n ROWS ONLY`                 | `LIMIT n`                                           |
//! | `(a, b) = (c, d)`, `ROW(a) IS NULL`       | its fields compared                                 |
//! | `a IS DISTINCT FROM b AND c`             | `(a IS DISTINCT FROM b) AND c`                      |
//! | `RIGHT JOIN b USING (k)`                  | its condition, and what stands for `k`              |
//! | `a ASOF JOIN b MATCH_CONDITION (c) ON d`  | a left join that `as_of` recognizes                  |

mod calls;
mod casts;
mod counted;
mod distinct;
mod operators;
mod row_values;
mod rows;
mod sets;
pub(crate) mod spans;
mod using;

pub(crate) use casts::element_type;
pub use casts::uuid;
pub use spans::in_words as spell_interval;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::as_of::MATCH_FUNCTION;
use crate::error::{Error, Result};
use crate::functions::{DATE_BY_PATTERN, NS_OF_MINUTE, WALL_BY_PATTERN, json};
use crate::sql::{cast_to, fold};
use crate::zones::INSTANT_OF;

/// Functions that make rows of a whole series.
const REPAIRS: [&str; 3] = ["timestamp_repair", "value_fill", "value_repair"];
/// Functions that keep the rows with the greatest or the least values.
const TOPS: [&str; 2] = ["topk", "bottom"];
/// The most rows of `topk` and `bottom`.
const TOP_MAX: u64 = 255;

/// Rewrites a statement.
///
/// # Errors
/// A spelling that stands where it means nothing.
pub(crate) fn rewrite(statement: &mut ast::Statement) -> Result<()> {
    match statement.visit(&mut Sugar { budget: counted::BUDGET }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Sugar {
    /// How many subqueries of select lists may be rewritten yet.
    budget: usize,
}

impl VisitorMut for Sugar {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Error> {
        if let Err(error) = counted::in_list(query, &mut self.budget) {
            return ControlFlow::Break(error);
        }
        rows::values(query);
        if let ast::SetExpr::Select(select) = query.body.as_mut() {
            rows::series_in_list(select);
        }
        let rewritten = using::using(query)
            .and_then(|()| sets::copies(&mut query.body))
            .and_then(|()| top(query))
            .and_then(|()| repair(query))
            .and_then(|()| as_of(query))
            .and_then(|()| fetch(query));
        by_place(query);
        match rewritten {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<Error> {
        match rows::factor(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        distinct::rebind(expr);
        operators::operator(expr);
        calls::escaped(expr);
        if let Some(found) = calls::substring(expr) {
            *expr = found;
        }
        if let Err(error) = casts::cast(expr).and_then(|()| row_values::compare(expr)) {
            return ControlFlow::Break(error);
        }
        match expr {
            ast::Expr::Function(function)
                if matches!(function.args, ast::FunctionArguments::None)
                    && function.name.to_string().eq_ignore_ascii_case("localtimestamp") =>
            {
                *expr = wall_now();
            }
            ast::Expr::Function(function) if numbers_rows(function) => {
                *expr = cast_to(expr.clone(), ast::DataType::BigInt(None));
            }
            ast::Expr::Function(function) => {
                named_arguments(function);
                mark_json(function);
                match respelt(function)
                    .or_else(|| calls::respelt(function))
                    .or_else(|| remainder(function))
                {
                    Some(rewritten) => *expr = rewritten,
                    None => rename(function),
                }
            }
            ast::Expr::Identifier(name)
                if name.quote_style.is_none()
                    && ["current_role", "current_schema"]
                        .iter()
                        .any(|one| name.value.eq_ignore_ascii_case(one)) =>
            {
                *expr = function(&name.value.to_lowercase(), Vec::new());
            }
            ast::Expr::Interval(interval) if interval.leading_field.is_none() => {
                span(&mut interval.value);
            }
            ast::Expr::Cast { expr: inner, data_type: ast::DataType::Interval { .. }, .. } => {
                span(inner);
            }
            ast::Expr::SimilarTo { .. } => {
                if let Some(matched) = similar_to(expr) {
                    *expr = matched;
                }
            }
            // Texts are compared by their bytes.
            ast::Expr::Collate { expr: inner, collation }
                if ["C", "POSIX", "default", "ucs_basic"]
                    .contains(&collation.to_string().trim_matches('"')) =>
            {
                *expr = inner.as_ref().clone();
            }
            ast::Expr::Extract { field, expr: inner, .. } => {
                if let Some(part) = calls::part(&field.to_string(), inner) {
                    *expr = part;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Returns whether a window function numbers rows: PostgreSQL's numbers have a sign.
fn numbers_rows(function: &ast::Function) -> bool {
    let called = function.name.to_string().to_lowercase();
    function.over.is_some()
        && ["row_number", "rank", "dense_rank", "ntile"].contains(&called.as_str())
}

/// Writes a literal span in words.
fn span(literal: &mut ast::Expr) {
    let Some(words) = literal_text(literal).and_then(spans::in_words) else { return };
    let text = ast::Value::SingleQuotedString(words);
    *literal = ast::Expr::Value(text.with_empty_span());
}

/// Returns the name of a function and its plain arguments.
fn call(function: &ast::Function) -> Option<(String, Vec<&ast::Expr>)> {
    let [name] = function.name.0.as_slice() else { return None };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let plain = |arg: &ast::FunctionArg| -> Option<*const ast::Expr> {
        match arg {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        }
    };
    let all_plain = list.args.iter().all(|arg| plain(arg).is_some()) && list.clauses.is_empty();
    let args = list.args.iter().filter_map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    all_plain.then(|| (name.as_ident().map(fold).unwrap_or_default(), args.collect()))
}

/// Writes `mod(a, b)` as an operator.
fn remainder(function: &ast::Function) -> Option<ast::Expr> {
    let (name, args) = call(function)?;
    let ("mod", [left, right]) = (name.as_str(), args.as_slice()) else { return None };
    let nested = |expr: &ast::Expr| Box::new(ast::Expr::Nested(Box::new(expr.clone())));
    let (left, right) = (nested(left), nested(right));
    let modulo = ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Modulo, right };
    Some(ast::Expr::Nested(Box::new(modulo)))
}

/// The arguments of `make_interval`, in order.
const PARTS_OF_INTERVAL: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Puts the named arguments of `make_interval` into their places.
fn named_arguments(function: &mut ast::Function) {
    let [name] = function.name.0.as_slice() else { return };
    if name.as_ident().map(fold).as_deref() != Some("make_interval") {
        return;
    }
    let ast::FunctionArguments::List(list) = &mut function.args else { return };
    let mut places: [Option<ast::FunctionArgExpr>; 7] = Default::default();
    for (at, argument) in list.args.iter().enumerate() {
        let (place, value) = match argument {
            // `name := value` is read as an operator.
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::BinaryOp {
                left,
                op: ast::BinaryOperator::Assignment,
                right,
            })) => {
                let ast::Expr::Identifier(name) = left.as_ref() else { return };
                let place = PARTS_OF_INTERVAL.iter().position(|part| *part == fold(name));
                (place, ast::FunctionArgExpr::Expr(right.as_ref().clone()))
            }
            ast::FunctionArg::Unnamed(value) => (Some(at), value.clone()),
            ast::FunctionArg::Named { name, arg, .. } => {
                (PARTS_OF_INTERVAL.iter().position(|part| *part == fold(name)), arg.clone())
            }
            ast::FunctionArg::ExprNamed { .. } => return,
        };
        // What does not fit is refused by the function.
        let Some(place) = place.and_then(|place| places.get_mut(place)) else { return };
        *place = Some(value);
    }
    let or_zero = |place: Option<ast::FunctionArgExpr>| {
        let value = place.unwrap_or_else(|| ast::FunctionArgExpr::Expr(number(0)));
        ast::FunctionArg::Unnamed(value)
    };
    list.args = places.map(or_zero).into();
}

/// Writes functions that read by a pattern, where an instant is meant in the session's zone, and the age
/// of today.
fn respelt(call_of: &ast::Function) -> Option<ast::Expr> {
    if ["json_agg", "jsonb_agg"].contains(&call_of.name.to_string().to_lowercase().as_str()) {
        let mut array = call_of.clone();
        array.name = ast::ObjectName::from(vec![ast::Ident::new("array_agg")]);
        return Some(function("to_json", vec![ast::Expr::Function(array)]));
    }
    let (name, args) = call(call_of)?;
    if let ("age", [of]) = (name.as_str(), args.as_slice()) {
        return Some(function("age", vec![function("current_date", Vec::new()), (*of).clone()]));
    }
    let [of, pattern] = args.as_slice() else { return None };
    let args = vec![(*of).clone(), (*pattern).clone()];
    match name.as_str() {
        "to_timestamp" => Some(cast_to(
            function(WALL_BY_PATTERN, args),
            ast::DataType::Timestamp(None, ast::TimezoneInfo::Tz),
        )),
        "to_date" => Some(function(DATE_BY_PATTERN, args)),
        _ => None,
    }
}

/// Marks the arguments of functions that make JSON where they are JSON themselves.
fn mark_json(function_of: &mut ast::Function) {
    let Some((name, _)) = call(function_of) else { return };
    let makes =
        ["json_build_object", "json_build_array", "jsonb_build_object", "jsonb_build_array"];
    if !makes.contains(&name.as_str()) && name != "to_json" && name != "to_jsonb" {
        return;
    }
    let ast::FunctionArguments::List(list) = &mut function_of.args else { return };
    for arg in &mut list.args {
        let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) = arg else { continue };
        let inner = match &*expr {
            ast::Expr::Nested(inner) => inner.as_ref(),
            other => other,
        };
        let ast::Expr::Function(argument) = inner else { continue };
        let called = argument.name.0.last().and_then(|part| part.as_ident()).map(fold);
        if called.is_some_and(|called| json::gives_json(&called)) {
            *expr = function(json::AS_VALUE, vec![expr.clone()]);
        }
    }
}

fn rename(function: &mut ast::Function) {
    let Some((name, args)) = call(function) else {
        // count(*) has an argument that is no expression.
        if function.name.to_string().eq_ignore_ascii_case("exact_count") {
            function.name = ast::ObjectName::from(vec![ast::Ident::new("count")]);
        }
        return;
    };
    let renamed = match (name.as_str(), args.len()) {
        ("first", 2) => "first_value",
        ("last", 2) => "last_value",
        ("exact_count", _) => "count",
        ("delta", 2) => "gauge_delta",
        ("rate", 2) => "counter_rate",
        ("ceiling", 1) => "ceil",
        ("sign", 1) => "signum",
        ("variance", 1) => "var_samp",
        ("every", 1) => "bool_and",
        ("clock_timestamp" | "statement_timestamp" | "transaction_timestamp", 0) => "now",
        ("gen_random_uuid", 0) => "uuid",
        ("to_timestamp", 1) => INSTANT_OF,
        _ => return,
    };
    if renamed.ends_with("_value") {
        let order = ast::OrderByExpr {
            expr: args[0].clone(),
            options: ast::OrderByOptions { asc: None, nulls_first: None },
            with_fill: None,
        };
        let value = args[1].clone();
        let value = ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value));
        if let ast::FunctionArguments::List(list) = &mut function.args {
            list.args = vec![value];
            list.clauses = vec![ast::FunctionArgumentClause::OrderBy(vec![order])];
        }
    }
    function.name = ast::ObjectName::from(vec![ast::Ident::new(renamed)]);
}

fn expression(item: &ast::SelectItem) -> Option<&ast::Expr> {
    match item {
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => {
            Some(expr)
        }
        _ => None,
    }
}

fn expression_mut(item: &mut ast::SelectItem) -> Option<&mut ast::Expr> {
    match item {
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => {
            Some(expr)
        }
        _ => None,
    }
}

/// Finds the one item of a select list that calls one of some functions.
fn item_calling(select: &ast::Select, names: &[&str]) -> Option<(usize, String, Vec<ast::Expr>)> {
    select.projection.iter().enumerate().find_map(|(at, item)| {
        let ast::Expr::Function(function) = expression(item)? else { return None };
        let (name, args) = call(function)?;
        let known = names.contains(&name.as_str());
        known.then(|| (at, name, args.into_iter().cloned().collect()))
    })
}

/// Returns whether a call decides which rows there are.
pub(crate) fn makes_rows(function: &ast::Function) -> bool {
    let name = function.name.to_string().to_lowercase();
    TOPS.contains(&name.as_str()) || REPAIRS.contains(&name.as_str())
}

fn top(query: &mut ast::Query) -> Result<()> {
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some((at, name, args)) = item_calling(select, &TOPS) else { return Ok(()) };
    let count = match args.as_slice() {
        [_, ast::Expr::Value(value)] => match &value.value {
            ast::Value::Number(text, _) => text.parse::<u64>().ok(),
            _ => None,
        },
        _ => None,
    };
    let Some(count) = count.filter(|count| (1..=TOP_MAX).contains(count)) else {
        let message = format!("write {name}(column, n), n between 1 and {TOP_MAX}");
        return Err(Error::new("22023", message));
    };
    if query.order_by.is_some() || query.limit_clause.is_some() {
        return Err(Error::unsupported(format!("{name} with ORDER BY or LIMIT")));
    }
    if let Some(expr) = expression_mut(&mut select.projection[at]) {
        *expr = args[0].clone();
    }
    let options = ast::OrderByOptions { asc: Some(name == "bottom"), nulls_first: Some(false) };
    let order = ast::OrderByExpr { expr: args[0].clone(), options, with_fill: None };
    query.order_by =
        Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(vec![order]), interpolate: None });
    query.limit_clause = Some(ast::LimitClause::LimitOffset {
        limit: Some(number(count)),
        offset: None,
        limit_by: Vec::new(),
    });
    Ok(())
}

fn number(count: u64) -> ast::Expr {
    ast::Expr::Value(ast::Value::Number(count.to_string(), false).with_empty_span())
}

/// Makes rows of what a repairing function returns: `SELECT r.time, r.value FROM (SELECT unnest(…))`.
fn repair(query: &mut ast::Query) -> Result<()> {
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some((_, name, _)) = item_calling(select, &REPAIRS) else { return Ok(()) };
    if select.projection.len() > 1 {
        let message = format!("{name} beside other columns: it makes rows of its own");
        return Err(Error::unsupported(message));
    }
    let alias = ast::Ident::new("__repaired");
    let inner = expression(&select.projection[0]).cloned();
    let inner = inner.ok_or_else(|| Error::internal("a call was just found"))?;
    let mut made = select.as_ref().clone();
    made.projection = vec![ast::SelectItem::ExprWithAlias {
        expr: function("unnest", vec![inner]),
        alias: alias.clone(),
    }];
    // It is a call of another function now: the visitor does not find it again.
    let subquery = ast::Query {
        with: None,
        body: Box::new(ast::SetExpr::Select(Box::new(made))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        ..query.clone()
    };
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let field = |name: &str| {
        let column = ast::Expr::Identifier(alias.clone());
        let text = ast::Value::SingleQuotedString(name.to_owned()).with_empty_span();
        let expr = function("get_field", vec![column, ast::Expr::Value(text)]);
        ast::SelectItem::ExprWithAlias { expr, alias: ast::Ident::new(name) }
    };
    select.projection = vec![field("time"), field("value")];
    select.selection = None;
    select.group_by = ast::GroupByExpr::Expressions(Vec::new(), Vec::new());
    select.having = None;
    select.from = vec![derived(subquery, "__repair")];
    Ok(())
}

/// Makes a relation of a query.
pub(crate) fn derived(subquery: ast::Query, name: &str) -> ast::TableWithJoins {
    ast::TableWithJoins {
        relation: ast::TableFactor::Derived {
            lateral: false,
            subquery: Box::new(subquery),
            alias: Some(ast::TableAlias {
                explicit: true,
                name: ast::Ident::new(name),
                columns: Vec::new(),
                at: None,
            }),
            sample: None,
        },
        joins: Vec::new(),
    }
}

/// What the session's clocks show now.
fn wall_now() -> ast::Expr {
    cast_to(function("now", Vec::new()), ast::DataType::Timestamp(None, ast::TimezoneInfo::None))
}

/// Returns the text of a literal in quotes.
pub(crate) fn literal_text(expr: &ast::Expr) -> Option<&str> {
    match expr {
        ast::Expr::Value(value) => quoted(&value.value),
        _ => None,
    }
}

/// Makes a literal.
fn text(text: &str) -> ast::Expr {
    ast::Expr::Value(ast::Value::SingleQuotedString(text.to_owned()).with_empty_span())
}

fn quoted(value: &ast::Value) -> Option<&str> {
    match value {
        ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => Some(text),
        _ => None,
    }
}

/// Writes SIMILAR TO a literal as a match of a regular expression.
fn similar_to(expr: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::SimilarTo { negated, expr: inner, pattern, escape_char } = expr else {
        return None;
    };
    let escape = escape_char.as_ref().and_then(|escape| quoted(&escape.value));
    let escape = escape.map_or(Some('\\'), |escape| escape.chars().next());
    let pattern = similar(literal_text(pattern)?, escape);
    Some(ast::Expr::BinaryOp {
        left: inner.clone(),
        op: match negated {
            true => ast::BinaryOperator::PGRegexNotMatch,
            false => ast::BinaryOperator::PGRegexMatch,
        },
        right: Box::new(text(&pattern)),
    })
}

/// Returns the regular expression that a pattern of SIMILAR TO means (SQL:2016, 8.6): `%` and `_` as in LIKE,
/// `| * + ? { } ( ) [ ]` as in regular expressions, everything else itself.
fn similar(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut rest = pattern.chars();
    let mut in_class = false;
    while let Some(c) = rest.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(literal) = rest.next() {
                    regex.push_str(&regex::escape(&literal.to_string()));
                }
            }
            ']' => {
                in_class = false;
                regex.push(c);
            }
            c @ ('[' | '&' | '~') if in_class => {
                regex.push('\\');
                regex.push(c);
            }
            c if in_class => regex.push(c),
            '[' => {
                in_class = true;
                regex.push(c);
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' => regex.push(c),
            c => regex.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex.push_str(")$");
    regex
}

/// Orders by the place of what the select list has: in PostgreSQL an expression of ORDER BY means columns of
/// the tables, whatever the columns of the answer are called.
fn by_place(query: &mut ast::Query) {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return };
    let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(all), .. }) = &mut query.order_by
    else {
        return;
    };
    // What a wildcard stands for is not known here.
    let items = select.projection.iter().map_while(expression);
    let items: Vec<String> = items.map(ToString::to_string).collect();
    for one in all {
        let is_name =
            matches!(one.expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_));
        if is_name || matches!(one.expr, ast::Expr::Value(_)) {
            continue;
        }
        let written = one.expr.to_string();
        if let Some(at) = items.iter().position(|item| *item == written) {
            one.expr = number(at as u64 + 1);
        }
    }
}

/// Writes FETCH FIRST as LIMIT.
fn fetch(query: &mut ast::Query) -> Result<()> {
    let Some(fetch) = &query.fetch else { return Ok(()) };
    if fetch.with_ties || fetch.percent {
        return Err(Error::unsupported("FETCH FIRST ... WITH TIES or PERCENT"));
    }
    let wanted = fetch.quantity.clone().unwrap_or_else(|| number(1));
    let limit_by = Vec::new();
    query.limit_clause = Some(match query.limit_clause.take() {
        None => ast::LimitClause::LimitOffset { limit: Some(wanted), offset: None, limit_by },
        Some(ast::LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
            ast::LimitClause::LimitOffset { limit: Some(wanted), offset, limit_by }
        }
        Some(_) => return Err(Error::syntax("multiple LIMIT clauses not allowed")),
    });
    query.fetch = None;
    Ok(())
}

/// Makes a part of an instant that keeps its fraction.
fn fraction(of: ast::Expr, scale: &str) -> ast::Expr {
    let scale = ast::Value::Number(scale.to_owned(), false).with_empty_span();
    ast::Expr::Nested(Box::new(ast::Expr::BinaryOp {
        left: Box::new(function(NS_OF_MINUTE, vec![of])),
        op: ast::BinaryOperator::Divide,
        right: Box::new(ast::Expr::Value(scale)),
    }))
}

/// Makes a call of a function.
fn function(name: &str, args: Vec<ast::Expr>) -> ast::Expr {
    let unnamed = |expr| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr));
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(unnamed).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Writes ASOF joins as left joins whose condition says what they are.
fn as_of(query: &mut ast::Query) -> Result<()> {
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
        let ast::JoinOperator::AsOf { match_condition, constraint } = &join.join_operator else {
            continue;
        };
        let marked = function(MATCH_FUNCTION, vec![match_condition.clone()]);
        let on = match constraint {
            ast::JoinConstraint::On(on) => ast::Expr::BinaryOp {
                left: Box::new(ast::Expr::Nested(Box::new(on.clone()))),
                op: ast::BinaryOperator::And,
                right: Box::new(marked),
            },
            ast::JoinConstraint::None => marked,
            _ => {
                let hint = "write ON a.tag = b.tag";
                return Err(Error::unsupported("ASOF JOIN ... USING").hint(hint));
            }
        };
        join.join_operator = ast::JoinOperator::LeftOuter(ast::JoinConstraint::On(on));
    }
    Ok(())
}
