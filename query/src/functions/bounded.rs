//! DataFusion's scalar functions: those that make long texts are bounded, those that read their
//! arguments otherwise than PostgreSQL are left out.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::guarded::{Guard, guarded};
use crate::error::Error;

/// The longest text a function makes, and all it makes of one batch.
const TEXT_BYTES_MAX: i64 = 64 << 20;
const BATCH_BYTES_MAX: i64 = 512 << 20;
/// They may make far more than they are given.
const BOUNDED: [&str; 11] = [
    "repeat",
    "lpad",
    "rpad",
    "replace",
    "concat",
    "concat_ws",
    "overlay",
    "regexp_replace",
    "array_repeat",
    "range",
    "generate_series",
];
/// `to_char` takes other patterns than PostgreSQL's and would answer them with nonsense: `postgres` has
/// another. So has `date_trunc`.
const LEFT_OUT: [&str; 2] = ["to_char", "date_trunc"];

/// Returns DataFusion's scalar functions.
pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let all = SessionStateDefaults::default_scalar_functions().into_iter();
    let kept = all.filter(|function| !LEFT_OUT.contains(&function.name()));
    let bound = |function: Arc<ScalarUDF>| {
        if BOUNDED.contains(&function.name()) { guarded(function, Bounded) } else { function }
    };
    kept.map(bound).collect()
}

/// Takes a negative length for none, as PostgreSQL does; it would overflow.
fn without_negatives(count: &ColumnarValue) -> Result<ColumnarValue> {
    let data_type = count.data_type();
    Ok(match count {
        ColumnarValue::Scalar(scalar) => {
            let negative = scalar.cast_to(&DataType::Int64)?;
            match negative {
                ScalarValue::Int64(Some(number)) if number < 0 => {
                    ColumnarValue::Scalar(ScalarValue::Int64(Some(0)).cast_to(&data_type)?)
                }
                _ => count.clone(),
            }
        }
        ColumnarValue::Array(array) => {
            let numbers = cast(array, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>().unary::<_, Int64Type>(|n| n.max(0));
            ColumnarValue::Array(cast(&numbers, &data_type)?)
        }
    })
}

/// Measures results before they are made.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded;

impl Guard for Bounded {
    fn look(&self, name: &str, args: &mut ScalarFunctionArgs) -> Result<()> {
        let sizes: Vec<Sizes> = args.args.iter().map(Sizes::of).collect::<Result<_>>()?;
        check(args.number_rows, |row| result_bytes(name, &sizes, row))?;
        if matches!(name, "repeat" | "lpad" | "rpad")
            && let Some(count) = args.args.get_mut(1)
        {
            *count = without_negatives(count)?;
        }
        Ok(())
    }
}

/// Refuses what would make too much, before it is made.
///
/// # Errors
/// 54000.
pub(crate) fn check(rows: usize, bytes: impl Fn(usize) -> i64) -> Result<()> {
    let mut all = 0_i64;
    for row in 0..rows {
        let bytes = bytes(row);
        all = all.saturating_add(bytes);
        if bytes > TEXT_BYTES_MAX || all > BATCH_BYTES_MAX {
            return Err(Error::new("54000", "requested length too large").into());
        }
    }
    Ok(())
}

/// Returns the most bytes a function makes of one row.
fn result_bytes(name: &str, sizes: &[Sizes], row: usize) -> i64 {
    let size = |at: usize| sizes.get(at).map_or(0, |one| one.bytes(row));
    let number = |at: usize| sizes.get(at).map_or(0, |one| one.number(row));
    match name {
        "repeat" => size(0).saturating_mul(number(1).max(0)),
        // As many characters as are asked for.
        "lpad" | "rpad" => number(1).max(0).saturating_mul(4),
        "replace" => {
            let times = size(0) / size(1).max(1);
            size(0).saturating_add(times.saturating_mul(size(2)))
        }
        // Only with flags may it replace more than once.
        "regexp_replace" if sizes.len() > 3 => {
            size(0).saturating_add((size(0) + 1).saturating_mul(size(2)))
        }
        "array_repeat" => size(0).max(8).saturating_mul(number(1).max(0)),
        "range" | "generate_series" => {
            let (from, to) = if sizes.len() < 2 { (0, number(0)) } else { (number(0), number(1)) };
            let step = if sizes.len() < 3 { 1 } else { number(2).saturating_abs().max(1) };
            (to.saturating_sub(from).saturating_abs() / step).saturating_mul(8)
        }
        _ => (0..sizes.len()).fold(0_i64, |all, at| all.saturating_add(size(at) + size(0))),
    }
}

/// How large the values of an argument are; a scalar is not spread over all rows to learn it.
pub(crate) struct Sizes {
    /// One for all rows, or one for each.
    bytes: Vec<i64>,
    numbers: Vec<i64>,
}

impl Sizes {
    pub(crate) fn of(value: &ColumnarValue) -> Result<Self> {
        let array = match value {
            ColumnarValue::Scalar(scalar) => scalar.to_array()?,
            ColumnarValue::Array(array) => Arc::clone(array),
        };
        let len = |text: Option<&str>| text.map_or(0, |text| text.len() as i64);
        let bytes = match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().iter().map(len).collect(),
            DataType::LargeUtf8 => array.as_string::<i64>().iter().map(len).collect(),
            DataType::Utf8View => array.as_string_view().iter().map(len).collect(),
            // Of other types a text is short, but for lists, of which none is made here.
            _ => vec![32],
        };
        let numbers = if array.data_type().is_integer() {
            let numbers = cast(&array, &DataType::Int64)?;
            numbers.as_primitive::<Int64Type>().iter().map(|n| n.unwrap_or(0)).collect()
        } else {
            vec![0]
        };
        Ok(Self { bytes, numbers })
    }

    pub(crate) fn bytes(&self, row: usize) -> i64 {
        self.bytes.get(row).or(self.bytes.first()).copied().unwrap_or(0)
    }

    fn number(&self, row: usize) -> i64 {
        self.numbers.get(row).or(self.numbers.first()).copied().unwrap_or(0)
    }
}
