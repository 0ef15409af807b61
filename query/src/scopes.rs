//! The tables that a statement names. What WITH names is none: a query's own names are seen in its body, and
//! in each of its common table expressions those before it; with RECURSIVE all of them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::error::{Error, Result};
use crate::planning::parts;
use crate::sql::fold;

/// The most relations a query reads, its views and WITH names written out.
pub(crate) const RELATIONS_MAX: usize = 1_024;

/// Returns the error of a query that reads more than [`RELATIONS_MAX`].
pub(crate) fn too_many_relations() -> Error {
    let message = format!("the query reads more than {RELATIONS_MAX} relations");
    let hint = "each mention of a view or a WITH name counts what it reads: keep its rows in a temporary table";
    Error::new("54001", message).hint(hint)
}

/// Refuses a query that reads too many relations. What WITH names is planned anew at each mention, so that
/// names which mention one before them twice each double the plan.
///
/// # Errors
/// 54001.
pub(crate) fn check_relations(statement: &mut ast::Statement) -> Result<()> {
    let mut tables = Tables { scopes: Vec::new(), visit: |_: &[String], _: &mut _| Ok(()) };
    match statement.visit(&mut tables) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

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
    /// How many relations each of its common table expressions reads that were left: they are walked before
    /// its body.
    left: Vec<usize>,
    /// How many relations it was seen to read.
    relations: usize,
    /// Whether it is a common table expression of the query around it.
    is_cte: bool,
}

impl<F> Tables<F> {
    fn enter(&mut self, query: &ast::Query) {
        let is_cte =
            self.scopes.last().is_some_and(|around| around.left.len() < around.names.len());
        let with = query.with.as_ref();
        let names = with.iter().flat_map(|with| &with.cte_tables);
        self.scopes.push(Scope {
            names: names.map(|cte| fold(&cte.alias.name)).collect(),
            recursive: with.is_some_and(|with| with.recursive),
            left: Vec::new(),
            relations: 0,
            is_cte,
        });
    }

    fn leave(&mut self) {
        let (Some(left), around) = (self.scopes.pop(), self.scopes.last_mut()) else { return };
        match around {
            Some(around) if left.is_cte => around.left.push(left.relations.max(1)),
            Some(around) => around.relations += left.relations,
            None => {}
        }
    }

    fn check(&self) -> Result<()> {
        match self.scopes.last() {
            Some(scope) if scope.relations > RELATIONS_MAX => Err(too_many_relations()),
            _ => Ok(()),
        }
    }

    /// Counts the relations that a name in FROM stands for.
    fn count(&mut self, factor: &ast::TableFactor) -> Result<()> {
        let mut read = 1;
        if let ast::TableFactor::Derived { .. } | ast::TableFactor::NestedJoin { .. } = factor {
            read = 0;
        } else if let ast::TableFactor::Table { name, args: None, .. } = factor
            && let [name] = parts(name)?.as_slice()
        {
            read = self.reads(name).unwrap_or(1);
        }
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        scope.relations += read;
        self.check()
    }

    /// Returns how many relations what WITH names so reads.
    fn reads(&self, name: &str) -> Option<usize> {
        self.scopes.iter().rev().find_map(|scope| {
            let at = scope.names.iter().position(|one| one == name)?;
            scope.left.get(at).copied()
        })
    }

    /// Returns whether a name without a schema means what WITH names.
    fn hide(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| {
            let seen = if scope.recursive { scope.names.len() } else { scope.left.len() };
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
        if let Err(error) = self.check() {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<Error> {
        if let Err(error) = self.count(factor) {
            return ControlFlow::Break(error);
        }
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
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::sql::DIALECT;

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
            let parser = Parser::new(&DIALECT);
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
