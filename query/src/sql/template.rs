//! Queries made of parts of other statements.

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;

use super::Statement;
use super::dialect::DIALECT;

/// Returns a query as a statement.
pub(crate) fn of_query(query: Box<ast::Query>) -> Statement {
    let query = ast::Statement::Query(query);
    Statement::Query(Box::new(DfStatement::Statement(Box::new(query))))
}

/// Returns the query of some expressions over the rows of a table.
pub(crate) fn select_from(
    relation: ast::TableWithJoins,
    selection: Option<ast::Expr>,
    projection: Vec<ast::SelectItem>,
) -> Statement {
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.from = vec![relation];
        select.selection = selection;
        select.projection = projection;
    }
    of_query(Box::new(query))
}

/// Returns the query of one row of expressions.
pub(crate) fn select_values(values: &[ast::Expr]) -> Statement {
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        let item = |(at, expr): (usize, &ast::Expr)| ast::SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: ast::Ident::new(format!("c{at}")),
        };
        select.projection = values.iter().enumerate().map(item).collect();
    }
    of_query(Box::new(query))
}

/// Returns an expression cast to a type.
pub(crate) fn cast_to(expr: ast::Expr, data_type: ast::DataType) -> ast::Expr {
    ast::Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// Returns the query of all rows of a table.
pub(crate) fn select_all(table: &[String]) -> Option<Statement> {
    let quoted = table.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    let text = format!("SELECT * FROM {}", quoted.collect::<Vec<_>>().join("."));
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).ok()?.parse_query();
    Some(of_query(parsed.ok()?))
}

/// Returns a query to be filled.
pub(crate) fn template() -> ast::Query {
    let parsed = Parser::new(&DIALECT).try_with_sql("SELECT 1").and_then(|mut p| p.parse_query());
    *parsed.expect("the text is a query")
}
