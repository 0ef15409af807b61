//! Functions that read one value of the struct that an aggregate made: `rate(gauge_agg(...))`.
//! Invariant: a struct of another aggregate is refused when the query is planned.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, StructArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Fields, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::no_such_call;
use crate::error::Error;

/// A function that reads a struct.
#[derive(Debug)]
pub(super) struct Accessor {
    pub(super) name: &'static str,
    /// The name of the aggregate that makes the struct, and its type.
    pub(super) of: (&'static str, fn() -> DataType),
    pub(super) returns: fn() -> DataType,
    pub(super) read: fn(&StructArray) -> Result<ArrayRef>,
}

/// Makes the function of an accessor.
pub(super) fn scalar(accessor: &'static Accessor) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(Reading { accessor, signature }))
}

#[derive(Debug)]
struct Reading {
    accessor: &'static Accessor,
    signature: Signature,
}

impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        self.accessor.name == other.accessor.name
    }
}

impl Eq for Reading {}

impl Hash for Reading {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.accessor.name.hash(state);
    }
}

fn same_names(found: &Fields, wanted: &DataType) -> bool {
    let DataType::Struct(wanted) = wanted else { return false };
    let names = |fields: &Fields| fields.iter().map(|one| one.name().clone()).collect::<Vec<_>>();
    names(found) == names(wanted)
}

impl ScalarUDFImpl for Reading {
    fn name(&self) -> &str {
        self.accessor.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let (aggregate, made) = self.accessor.of;
        match found {
            [DataType::Struct(fields)] if same_names(fields, &made()) => Ok(found.to_vec()),
            [DataType::Null] => Ok(vec![made()]),
            _ => no_such_call(self.name(), found, &format!("({aggregate}(...))")),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok((self.accessor.returns)())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = args.args.first() else {
            return Err(Error::internal("one argument").into());
        };
        match argument {
            ColumnarValue::Array(array) => {
                Ok(ColumnarValue::Array((self.accessor.read)(array.as_struct())?))
            }
            ColumnarValue::Scalar(scalar) => {
                let read = (self.accessor.read)(scalar.to_array()?.as_struct())?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&read, 0)?))
            }
        }
    }
}

/// Returns a field of a struct, NULL where the struct is.
pub(super) fn field(structs: &StructArray, name: &str) -> Result<ArrayRef> {
    use datafusion::arrow::array::Array;
    use datafusion::arrow::buffer::NullBuffer;
    let missing = || Error::internal(format!("a struct without {name}"));
    let column = structs.column_by_name(name).ok_or_else(missing)?;
    let nulls = NullBuffer::union(column.nulls(), structs.nulls());
    let data = column.to_data().into_builder().nulls(nulls).build()?;
    Ok(datafusion::arrow::array::make_array(data))
}

/// Returns a field of numbers.
pub(super) fn numbers(structs: &StructArray, name: &str) -> Result<Float64Array> {
    let numbers = cast(&field(structs, name)?, &DataType::Float64)?;
    Ok(numbers.as_primitive::<Float64Type>().clone())
}

/// Computes a number of each row from fields of numbers; NULL where one is NULL or it has no value.
pub(super) fn computed(
    structs: &StructArray,
    names: &[&str],
    compute: impl Fn(&[f64]) -> Option<f64>,
) -> Result<ArrayRef> {
    use datafusion::arrow::array::Array;
    let columns = names.iter().map(|name| numbers(structs, name)).collect::<Result<Vec<_>>>()?;
    let mut values = vec![0.0; columns.len()];
    let row = |row: usize| {
        if columns.iter().any(|column| column.is_null(row)) {
            return None;
        }
        for (value, column) in values.iter_mut().zip(&columns) {
            *value = column.value(row);
        }
        compute(&values)
    };
    Ok(Arc::new((0..structs.len()).map(row).collect::<Float64Array>()))
}
