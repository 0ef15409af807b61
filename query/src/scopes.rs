//! Which names of tables WITH hides where: a query's own are seen in its body, and in each of its common
//! table expressions those before it; with RECURSIVE all of them.

use datafusion::sql::sqlparser::ast;

use crate::sql::fold;

/// The queries around the place that a walk of a statement is at.
#[derive(Debug, Default)]
pub(crate) struct Scopes(Vec<Scope>);

#[derive(Debug)]
struct Scope {
    names: Vec<String>,
    recursive: bool,
    /// How many of its common table expressions were left: they are walked before its body.
    left: usize,
    /// Whether it is a common table expression of the query around it.
    is_cte: bool,
}

impl Scopes {
    /// Notes that the walk comes into a query.
    pub(crate) fn enter(&mut self, query: &ast::Query) {
        let is_cte = self.0.last().is_some_and(|around| around.left < around.names.len());
        let with = query.with.as_ref();
        let names = with.iter().flat_map(|with| &with.cte_tables);
        self.0.push(Scope {
            names: names.map(|cte| fold(&cte.alias.name)).collect(),
            recursive: with.is_some_and(|with| with.recursive),
            left: 0,
            is_cte,
        });
    }

    /// Notes that the walk leaves the query it came into last.
    pub(crate) fn leave(&mut self) {
        let left = self.0.pop();
        if left.is_some_and(|one| one.is_cte)
            && let Some(around) = self.0.last_mut()
        {
            around.left += 1;
        }
    }

    /// Returns whether a name without a schema means what WITH names.
    pub(crate) fn hide(&self, name: &str) -> bool {
        self.0.iter().any(|scope| {
            let seen = if scope.recursive { scope.names.len() } else { scope.left };
            scope.names.iter().take(seen).any(|one| one == name)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use datafusion::sql::sqlparser::ast::{Query, TableFactor, Visit, Visitor};
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[derive(Default)]
    struct Walk(Scopes, Vec<String>);

    impl Visitor for Walk {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.0.enter(query);
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0.leave();
            ControlFlow::Continue(())
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, .. } = factor {
                let name = name.to_string();
                if !self.0.hide(&name) {
                    self.1.push(name);
                }
            }
            ControlFlow::Continue(())
        }
    }

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
            let query = parser.try_with_sql(text).unwrap().parse_query().unwrap();
            let mut walk = Walk::default();
            assert_eq!(query.visit(&mut walk), ControlFlow::Continue(()));
            assert_eq!(walk.1, wanted, "{text}");
        }
    }
}
