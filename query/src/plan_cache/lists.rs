//! Lists that may be made one: `a IN (…) AND a IN (…)` is simplified by what stands in both, and two slots of
//! one value are not the same to the optimizer. A query that has such lists is planned with its constants.

use std::collections::BTreeMap;

use datafusion::common::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use crate::plan_expressions::for_each_expression;

/// What lists and constants are compared with.
#[derive(Default)]
struct Compared {
    /// Beside the name of each column, or none where it is no bare one: how many lists and constants there are,
    /// and whether a parameter stands in one of the lists.
    of: BTreeMap<Option<String>, (usize, bool)>,
    /// Whether a column has another name anywhere.
    renames: bool,
}

/// Returns whether lists in which parameters stand may be simplified with others, or with constants.
pub(super) fn meet(plan: &LogicalPlan) -> Result<bool> {
    let mut compared = Compared::default();
    for_each_expression(plan, |expr| compared.add(expr))?;
    let alike = compared.renames || compared.of.contains_key(&None);
    let all = compared.of.values().map(|(count, _)| count).sum::<usize>();
    let meets = |(count, has_parameter): &(usize, bool)| {
        *has_parameter && (*count > 1 || (alike && all > 1))
    };
    Ok(compared.of.values().any(meets))
}

impl Compared {
    fn add(&mut self, expr: &Expr) {
        match expr {
            Expr::Alias(alias) => self.renames |= matches!(*alias.expr, Expr::Column(_)),
            Expr::InList(list) => {
                let has_parameter = list.list.iter().any(|one| !matches!(one, Expr::Literal(..)));
                self.note(&list.expr, has_parameter);
            }
            Expr::BinaryExpr(both) if matches!(both.op, Operator::Eq | Operator::NotEq) => {
                if matches!(*both.right, Expr::Literal(..)) {
                    self.note(&both.left, false);
                } else if matches!(*both.left, Expr::Literal(..)) {
                    self.note(&both.right, false);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, what: &Expr, has_parameter: bool) {
        let name = what.try_as_col().map(|column| column.name.clone());
        let (count, parameter) = self.of.entry(name).or_default();
        *count += 1;
        *parameter |= has_parameter;
    }
}
