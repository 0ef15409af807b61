//! The tables that a statement names. What WITH names is none: a query's own names are seen in its body, and
//! in each of its common table expressions those before it; with RECURSIVE all of them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::error::{Error, Result};
use crate::planning::parts;
use crate::sql::fold;

/// Visits the tables that are named in FROM, with the parts of their names. One may be replaced: what takes
/// its place is not visited.
///
/// # Errors
/// The first that `visit` gives.
pub(crate) fn each_table<T: VisitMut>(
    node: &mut T,
    visit: impl FnMut(&[String], &mut ast::TableFactor) -> Result<()>,
) -> Result<()> {
    match node.visit(&mut Tables { scopes: Vec::new(), visit }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Tables<F> {
    /// The queries around the place that the walk is at.
    scopes: Vec<Scope>,
    visit: F,
}

struct Scope {
    names: Vec<String>,
    recursive: bool,
    /// How many of its common table expressions were left: they are walked before its body.
    left: usize,
    /// Whether it is a common table expression of the query around it.
    is_cte: bool,
}

impl<F> Tables<F> {
    fn enter(&mut self, query: &ast::Query) {
        let is_cte = self.scopes.last().is_some_and(|around| around.left < around.names.len());
        let with = query.with.as_ref();
        let names = with.iter().flat_map(|with| &with.cte_tables);
        self.scopes.push(Scope {
            names: names.map(|cte| fold(&cte.alias.name)).collect(),
            recursive: with.is_some_and(|with| with.recursive),
            left: 0,
            is_cte,
        });
    }

    fn leave(&mut self) {
        let left = self.scopes.pop();
        if left.is_some_and(|one| one.is_cte)
            && let Some(around) = self.scopes.last_mut()
        {
            around.left += 1;
        }
    }

    /// Returns whether a name without a schema means what WITH names.
    fn hide(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| {
            let seen = if scope.recursive { scope.names.len() } else { scope.left };
            scope.names.iter().take(seen).any(|one| one == name)
        })
    }
}

impl<F: FnMut(&[String], &mut ast::TableFactor) -> Result<()>> VisitorMut for Tables<F> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Error> {
        self.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<Error> {
        self.leave();
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<Error> {
        let ast::TableFactor::Table { name, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let visited = parts(name).and_then(|name| match name.as_slice() {
            [one] if self.hide(one) => Ok(()),
            name => (self.visit)(name, factor),
        });
        match visited {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn a_name_is_hidden_where_with_names_it_and_nowhere_else() {
        let cases = [
            ("WITH t AS (SELECT 1 FROM t) SELECT 1 FROM t, u", vec!["t", "u"]),
            ("WITH RECURSIVE t AS (SELECT 1 FROM t) SELECT 1 FROM t", vec![]),
            ("WITH a AS (SELECT 1 FROM b), b AS (SELECT 1 FROM a) SELECT 1 FROM b", vec!["b"]),
            ("SELECT 1 FROM t WHERE x IN (WITH t AS (SELECT 1) SELECT 1 FROM t)", vec!["t"]),
            ("WITH a AS (WITH c AS (SELECT 1) SELECT 1 FROM c) SELECT 1 FROM c, a", vec!["c"]),
        ];
        for (text, wanted) in cases {
            let parser = Parser::new(&PostgreSqlDialect {});
            let mut query = parser.try_with_sql(text).unwrap().parse_query().unwrap();
            let mut found = Vec::new();
            each_table(&mut query, |name, _| {
                found.push(name.join("."));
                Ok(())
            })
            .unwrap();
            assert_eq!(found, wanted, "{text}");
        }
    }
}
