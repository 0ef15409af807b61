//! `EXCEPT ALL` and `INTERSECT ALL`: every copy of a row has a number, and rows are compared with it.

use datafusion::sql::sqlparser::ast::{self, SetExpr, SetOperator, SetQuantifier};
use datafusion::sql::sqlparser::parser::Parser;

use crate::error::{Error, Result};
use crate::sql::{DIALECT, RECURSION_MAX};

/// Rewrites the operations of a query.
pub(super) fn copies(body: &mut SetExpr) -> Result<()> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    copies(left)?;
    copies(right)?;
    if !matches!(set_quantifier, SetQuantifier::All)
        || !matches!(op, SetOperator::Except | SetOperator::Intersect)
    {
        return Ok(());
    }
    let Some(names) = names(left) else {
        let hint = "name the columns instead of *";
        return Err(Error::unsupported(format!("{op} ALL of SELECT *")).hint(hint));
    };
    let columns = names.join(", ");
    let numbered = |side: &SetExpr, alias: &str| {
        format!(
            "SELECT {columns}, row_number() OVER (PARTITION BY {columns}) AS __copy \
             FROM ({side}) AS {alias}({columns})"
        )
    };
    let (left, right) = (numbered(left, "__left"), numbered(right, "__right"));
    let text = format!("SELECT {columns} FROM ({left} {op} {right}) AS __copies");
    let parser = Parser::new(&DIALECT).with_recursion_limit(RECURSION_MAX);
    let parsed = parser.try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    let parsed = parsed.map_err(|error| Error::parser(&error, &text))?;
    *body = *parsed.body;
    Ok(())
}

/// Returns the names of the columns of a query, quoted; `None` where only the planner knows them.
fn names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::SetOperation { left, .. } => names(left),
        SetExpr::Query(query) => names(&query.body),
        SetExpr::Values(values) => {
            let width = values.rows.first()?.content.len();
            Some((1..=width).map(|at| format!("column{at}")).collect())
        }
        SetExpr::Select(select) => {
            let mut names: Vec<String> = Vec::new();
            for (at, item) in select.projection.iter().enumerate() {
                let name = match item {
                    ast::SelectItem::ExprWithAlias { alias, .. } => quoted(alias),
                    ast::SelectItem::UnnamedExpr(ast::Expr::Identifier(name)) => quoted(name),
                    ast::SelectItem::UnnamedExpr(ast::Expr::CompoundIdentifier(parts)) => {
                        quoted(parts.last()?)
                    }
                    ast::SelectItem::UnnamedExpr(_) => format!("\"?column {}?\"", at + 1),
                    _ => return None,
                };
                let is_taken = names.contains(&name);
                names.push(if is_taken { format!("\"?column {}?\"", at + 1) } else { name });
            }
            Some(names)
        }
        _ => None,
    }
}

fn quoted(name: &ast::Ident) -> String {
    format!("\"{}\"", crate::sql::fold(name).replace('"', "\"\""))
}
