//! Functions of numbers that are not defined everywhere: outside they are errors, as PostgreSQL has it, and
//! no NaN or infinity that spreads through what is computed of it. Only what is computed of rows that were
//! chosen is checked: of `x > 0 AND ln(x) > 1` both sides are computed of all rows.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::guarded::{Guard, Guarded, guarded};
use crate::error::Error;

/// Returns why a function has no value at a place: an SQLSTATE and a message.
type Refusal = fn(f64) -> Option<(&'static str, &'static str)>;

const PARTIAL: [(&str, Refusal); 9] = [
    ("ln", logarithm),
    ("log", logarithm),
    ("log10", logarithm),
    ("log2", logarithm),
    ("sqrt", |x| (x < 0.0).then_some(("2201F", "cannot take square root of a negative number"))),
    ("asin", |x| outside(x.abs() > 1.0)),
    ("acos", |x| outside(x.abs() > 1.0)),
    ("atanh", |x| outside(x.abs() > 1.0)),
    ("acosh", |x| outside(x < 1.0)),
];

fn logarithm(x: f64) -> Option<(&'static str, &'static str)> {
    if x == 0.0 {
        return Some(("2201E", "cannot take logarithm of zero"));
    }
    (x < 0.0).then_some(("2201E", "cannot take logarithm of a negative number"))
}

fn outside(is_outside: bool) -> Option<(&'static str, &'static str)> {
    is_outside.then_some(("22003", "input is out of range"))
}

/// Returns a function with its domain checked, where it has one that is not.
pub(crate) fn checked(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    if function.inner().downcast_ref::<Guarded<Partial>>().is_some() {
        return None;
    }
    let at = PARTIAL.iter().position(|(name, _)| *name == function.name())?;
    Some(guarded(Arc::clone(function), Partial { at }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Partial {
    /// Which of [`PARTIAL`].
    at: usize,
}

impl Partial {
    fn check(&self, value: &ColumnarValue) -> Result<()> {
        let refuse = |x: f64| match PARTIAL[self.at].1(x) {
            Some((sqlstate, message)) => Err(Error::new(sqlstate, message).into()),
            None => Ok(()),
        };
        match value {
            ColumnarValue::Scalar(scalar) => match scalar.cast_to(&DataType::Float64)? {
                ScalarValue::Float64(Some(x)) => refuse(x),
                _ => Ok(()),
            },
            ColumnarValue::Array(array) => {
                let numbers = cast(array, &DataType::Float64)?;
                numbers.as_primitive::<Float64Type>().iter().flatten().try_for_each(refuse)
            }
        }
    }
}

impl Guard for Partial {
    fn look(&self, _: &str, args: &mut ScalarFunctionArgs) -> Result<()> {
        args.args.iter().try_for_each(|value| self.check(value))
    }
}
