//! `= ANY (array)` and `<> ALL (array)`, as drivers write lists of values: they become IN and NOT IN.
//!
//! An array that is a parameter is not known when a statement is prepared: there the element's type is
//! what the parameter would have alone, and the parameter an array of that.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::error::{Error, Result};
use crate::planning::placeholder;
use crate::sql::{cast_to, template};
use crate::sugar::{derived, element_type};

/// The most elements of an array that is read.
pub const ELEMENTS_MAX: usize = 100_000;

/// Reads the text of an array of one dimension, `{a,"b c",NULL}`, of at most [`ELEMENTS_MAX`] elements.
pub fn parse_array(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut rest = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let mut element = String::new();
        let is_quoted = rest.next_if_eq(&'"').is_some();
        if is_quoted {
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => element.push(rest.next()?),
                    other => element.push(other),
                }
            }
            while rest.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = rest.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' | '"' => return None,
                    '\\' => element.push(rest.next()?),
                    other => element.push(other),
                }
            }
            element.truncate(element.trim_end().len());
            if element.is_empty() {
                return None;
            }
        }
        let is_null = !is_quoted && element.eq_ignore_ascii_case("null");
        if elements.len() == ELEMENTS_MAX {
            return None;
        }
        elements.push((!is_null).then_some(element));
        match rest.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// Writes comparisons with arrays as IN. Returns the parameters that are such arrays; their values stand
/// in their places where `params` has them.
///
/// # Errors
/// An array that is none, or has too many elements.
pub(crate) fn expand(
    query: &mut DfStatement,
    params: Option<&[ScalarValue]>,
) -> Result<BTreeSet<usize>> {
    match query {
        DfStatement::Statement(statement) => {
            let mut expanding = Expanding { params, arrays: BTreeSet::new() };
            match statement.visit(&mut expanding) {
                ControlFlow::Break(error) => Err(error),
                ControlFlow::Continue(()) => Ok(expanding.arrays),
            }
        }
        DfStatement::Explain(explain) => expand(&mut explain.statement, params),
        _ => Ok(BTreeSet::new()),
    }
}

struct Expanding<'a> {
    params: Option<&'a [ScalarValue]>,
    arrays: BTreeSet<usize>,
}

impl VisitorMut for Expanding<'_> {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        use ast::BinaryOperator::{Eq, NotEq};
        let (left, right, negated) = match expr {
            ast::Expr::AnyOp { left, compare_op: Eq, right, .. } => (left, right, false),
            ast::Expr::AllOp { left, compare_op: NotEq, right } => (left, right, true),
            ast::Expr::AnyOp { right, .. } | ast::Expr::AllOp { right, .. } => {
                // Under a name of its own: the planner mixes up columns of one name on both sides.
                if let ast::Expr::Subquery(query) = right.as_mut() {
                    **query = under_a_name(query);
                }
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        if let ast::Expr::Subquery(query) = right.as_ref() {
            let (subquery, inner) = (query.clone(), left.clone());
            *expr = ast::Expr::InSubquery { expr: inner, subquery, negated };
            return ControlFlow::Continue(());
        }
        match self.elements(right) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(list)) if list.is_empty() => {
                *expr = ast::Expr::Value(ast::Value::Boolean(negated).with_empty_span());
                ControlFlow::Continue(())
            }
            Ok(Some(list)) => {
                let null = ast::Expr::Value(ast::Value::Null.with_empty_span());
                let inner = Box::new(std::mem::replace(left.as_mut(), null));
                *expr = ast::Expr::InList { expr: inner, list, negated };
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Expanding<'_> {
    /// Returns the elements of an array that is a literal or a parameter, `None` where it is neither.
    fn elements(&mut self, array: &ast::Expr) -> Result<Option<Vec<ast::Expr>>> {
        let (inner, element_type) = match array {
            ast::Expr::Nested(inner) => return self.elements(inner),
            ast::Expr::Array(list)
                if !list.elem.iter().any(|one| matches!(one, ast::Expr::Array(_))) =>
            {
                return Ok(Some(list.elem.clone()));
            }
            ast::Expr::Cast { expr, data_type: ast::DataType::Array(of), .. } => {
                (expr.as_ref(), element_type(of))
            }
            ast::Expr::Cast { .. } => return Ok(None),
            other => (other, None),
        };
        let ast::Expr::Value(value) = inner else { return Ok(None) };
        let typed = |element: ast::Expr| match element_type {
            None => element,
            Some(data_type) => cast_to(element, data_type.clone()),
        };
        let elements: Vec<ast::Expr> = match &value.value {
            ast::Value::SingleQuotedString(text) => array_of(text)?,
            ast::Value::Placeholder(name) => {
                let Some(number) = placeholder(name) else { return Ok(None) };
                self.arrays.insert(number);
                match self.params.and_then(|params| params.get(number - 1)) {
                    None => vec![inner.clone()],
                    Some(value) => values(value)?,
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(elements.into_iter().map(typed).collect()))
    }
}

fn array_of(text: &str) -> Result<Vec<ast::Expr>> {
    let elements = parse_array(text);
    let elements = elements.ok_or_else(|| malformed(text))?;
    Ok(elements.into_iter().map(literal).collect())
}

/// Makes a literal, which gets the type of what it is compared with.
fn literal(text: Option<String>) -> ast::Expr {
    let value = text.map_or(ast::Value::Null, ast::Value::SingleQuotedString);
    ast::Expr::Value(value.with_empty_span())
}

/// Writes a query as all rows of itself.
fn under_a_name(query: &ast::Query) -> ast::Query {
    let mut around = template();
    if let ast::SetExpr::Select(select) = around.body.as_mut() {
        let options = ast::WildcardAdditionalOptions::default();
        select.projection = vec![ast::SelectItem::Wildcard(options)];
        select.from = vec![derived(query.clone(), "__compared")];
    }
    around
}

fn malformed(text: &str) -> Error {
    if text.len() > ELEMENTS_MAX {
        return too_many();
    }
    Error::new("22P02", format!("malformed array literal: \"{text}\""))
}

fn too_many() -> Error {
    Error::new("54000", format!("an array of more than {ELEMENTS_MAX} elements"))
}

/// Returns the elements of a parameter.
fn values(value: &ScalarValue) -> Result<Vec<ast::Expr>> {
    if let Some(text) = value.try_as_str() {
        // A client that declared a text sends an array's text.
        return text.map_or_else(|| Ok(vec![literal(None)]), array_of);
    }
    let ScalarValue::List(list) = value else {
        let message = format!("ANY and ALL need an array, not {}", value.data_type());
        return Err(Error::new("42809", message));
    };
    if value.is_null() {
        return Ok(vec![literal(None)]);
    }
    let items = list.value(0);
    if items.len() > ELEMENTS_MAX {
        return Err(too_many());
    }
    let item = |row| {
        let item = ScalarValue::try_from_array(&items, row)?;
        if item.is_null() {
            return Ok(literal(None));
        }
        if let ScalarValue::Boolean(Some(value)) = item {
            return Ok(ast::Expr::Value(ast::Value::Boolean(value).with_empty_span()));
        }
        let is_number = item.data_type().is_numeric();
        let text = match item.cast_to(&datafusion::arrow::datatypes::DataType::Utf8)? {
            ScalarValue::Utf8(text) => text,
            _ => None,
        };
        Ok(match text {
            Some(text) if is_number && text.parse::<f64>().is_ok_and(f64::is_finite) => {
                ast::Expr::Value(ast::Value::Number(text, false).with_empty_span())
            }
            text => literal(text),
        })
    };
    (0..items.len()).map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_array_is_read_as_postgresql_writes_it() {
        let read = |text| {
            parse_array(text).map(|all| {
                let show = |one: Option<String>| one.unwrap_or_else(|| "<null>".to_owned());
                all.into_iter().map(show).collect::<Vec<_>>().join("|")
            })
        };
        assert_eq!(read("{}").unwrap(), "");
        assert_eq!(read("{1,2}").unwrap(), "1|2");
        assert_eq!(
            read(r#"{a b, "c,d" ,NULL,"NULL","x\"y\\"}"#).unwrap(),
            r#"a b|c,d|<null>|NULL|x"y\"#
        );
        for wrong in ["", "1,2", "{1,}", "{{1},{2}}", "{\"a", "{\"a\"b}"] {
            assert_eq!(parse_array(wrong), None, "{wrong}");
        }
    }
}
