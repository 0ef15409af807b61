//! DataFusion's scalar functions: those that make long texts are bounded, those that read their
//! arguments otherwise than PostgreSQL are left out.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::Error;

/// The longest text a function makes, and all it makes of one batch.
const TEXT_BYTES_MAX: i64 = 64 << 20;
const BATCH_BYTES_MAX: i64 = 512 << 20;
/// Their second argument says how long the text becomes.
const BOUNDED: [&str; 3] = ["repeat", "lpad", "rpad"];
/// `to_char` takes other patterns than PostgreSQL's and would answer them with nonsense.
const LEFT_OUT: [&str; 1] = ["to_char"];

/// Returns the scalar functions of every session.
pub(crate) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let all = SessionStateDefaults::default_scalar_functions().into_iter();
    let kept = all.filter(|function| !LEFT_OUT.contains(&function.name()));
    let bound = |function: Arc<ScalarUDF>| {
        if BOUNDED.contains(&function.name()) {
            Arc::new(ScalarUDF::from(Bounded { inner: function }))
        } else {
            function
        }
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

/// A function whose results are measured before they are made.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        if let [text, count, ..] = arrays.as_slice() {
            let text = cast(text, &DataType::Utf8)?;
            let (text, count) = (text.as_string::<i32>(), cast(count, &DataType::Int64)?);
            let count = count.as_primitive::<Int64Type>();
            let mut all = 0_i64;
            for row in 0..text.len().min(count.len()) {
                if text.is_null(row) || count.is_null(row) {
                    continue;
                }
                let width = if self.name() == "repeat" { text.value(row).len() as i64 } else { 4 };
                let bytes = count.value(row).max(0).saturating_mul(width);
                all = all.saturating_add(bytes);
                if bytes > TEXT_BYTES_MAX || all > BATCH_BYTES_MAX {
                    return Err(Error::new("54000", "requested length too large").into());
                }
            }
        }
        let mut args = args;
        if let Some(count) = args.args.get_mut(1) {
            *count = without_negatives(count)?;
        }
        self.inner.invoke_with_args(args)
    }
}
