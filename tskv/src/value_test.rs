//! Tests of a field's value that are asked before rows are merged and other columns are read.
//!
//! A reader may leave out rows that fail one; who asks tests what it gets once more. Floats have the order of
//! IEEE 754's totalOrder, as Arrow's kernels have.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, Scalar, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp;
use model::{ColumnId, ValueType};
use serde::{Deserialize, Serialize};

/// How a value compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Less.
    Lt,
    /// Less or equal.
    LtEq,
    /// Greater.
    Gt,
    /// Greater or equal.
    GtEq,
}

impl Comparison {
    /// Returns its sign in SQL.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
        }
    }
}

/// A number that values of a field compare with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Number {
    /// Of a field of integers.
    I64(i64),
    /// Of a field of integers without a sign.
    U64(u64),
    /// Of a field of floats, as its bits; not a NaN.
    F64(u64),
}

impl Number {
    /// Returns the type of fields it is compared with.
    pub fn value_type(self) -> ValueType {
        match self {
            Self::I64(_) => ValueType::I64,
            Self::U64(_) => ValueType::U64,
            Self::F64(_) => ValueType::F64,
        }
    }

    fn array(self) -> ArrayRef {
        match self {
            Self::I64(number) => Arc::new(Int64Array::from(vec![number])),
            Self::U64(number) => Arc::new(UInt64Array::from(vec![number])),
            Self::F64(bits) => Arc::new(Float64Array::from(vec![f64::from_bits(bits)])),
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::I64(number) => number.fmt(f),
            Self::U64(number) => number.fmt(f),
            Self::F64(bits) => f64::from_bits(*bits).fmt(f),
        }
    }
}

/// `column comparison number`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueTest {
    /// The field.
    pub column: ColumnId,
    /// How its values compare.
    pub comparison: Comparison,
    /// With what.
    pub number: Number,
}

impl ValueTest {
    /// Returns which values pass; NULLs do not.
    pub(crate) fn passing(&self, values: &ArrayRef) -> BooleanBuffer {
        let number = Scalar::new(self.number.array());
        let compared = match self.comparison {
            Comparison::Eq => cmp::eq(values, &number),
            Comparison::Lt => cmp::lt(values, &number),
            Comparison::LtEq => cmp::lt_eq(values, &number),
            Comparison::Gt => cmp::gt(values, &number),
            Comparison::GtEq => cmp::gt_eq(values, &number),
        };
        // Of a field of another type nothing is known: all may pass.
        let Ok(compared) = compared else { return BooleanBuffer::new_set(values.len()) };
        let (passing, valid) = compared.into_parts();
        match valid {
            Some(valid) => &passing & valid.inner(),
            None => passing,
        }
    }

    /// Returns whether no value from `low` to `high` passes. Both are bits of the number's type.
    pub(crate) fn fails_within(&self, low: u64, high: u64) -> bool {
        match self.number {
            Number::I64(number) => {
                self.fails(low.cast_signed() > number, high.cast_signed() < number)
            }
            Number::U64(number) => self.fails(low > number, high < number),
            // Zeros compare equal here, though one may be told for the other.
            Number::F64(bits) => {
                let number = f64::from_bits(bits);
                self.fails(f64::from_bits(low) > number, f64::from_bits(high) < number)
            }
        }
    }

    fn fails(&self, all_are_greater: bool, all_are_less: bool) -> bool {
        match self.comparison {
            Comparison::Eq => all_are_greater || all_are_less,
            Comparison::Lt | Comparison::LtEq => all_are_greater,
            Comparison::Gt | Comparison::GtEq => all_are_less,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::new_null_array;

    fn test(comparison: Comparison, number: Number) -> ValueTest {
        ValueTest { column: ColumnId(1), comparison, number }
    }

    fn passing(test: &ValueTest, values: ArrayRef) -> Vec<bool> {
        test.passing(&values).iter().collect()
    }

    #[test]
    fn values_pass_that_compare_so_and_nulls_do_not() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(2)]));
        let at_least_two = test(Comparison::GtEq, Number::I64(2));
        assert_eq!(passing(&at_least_two, Arc::clone(&values)), [false, false, true, true]);
        let other_type = test(Comparison::Eq, Number::U64(2));
        assert_eq!(passing(&other_type, values), [true; 4], "who asks tests them again");
        let nulls = new_null_array(&ValueType::I64.arrow(), 2);
        assert_eq!(passing(&at_least_two, nulls), [false, false]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -1.0, 91.0]));
        let above = test(Comparison::Gt, Number::F64(90.0_f64.to_bits()));
        assert_eq!(passing(&above, floats), [true, false, true], "a NaN is above all");
    }

    #[test]
    fn a_page_is_left_out_only_where_none_of_its_values_can_pass() {
        let (low, high) = ((-5_i64).cast_unsigned(), 5);
        let fails =
            |comparison, number| test(comparison, Number::I64(number)).fails_within(low, high);
        assert!(fails(Comparison::Gt, 6) && !fails(Comparison::Gt, 4));
        assert!(fails(Comparison::LtEq, -6) && !fails(Comparison::LtEq, -5));
        assert!(fails(Comparison::Eq, 6) && fails(Comparison::Eq, -6) && !fails(Comparison::Eq, 0));
        let zero = test(Comparison::Gt, Number::F64((-0.0_f64).to_bits()));
        assert!(!zero.fails_within(0.0_f64.to_bits(), 0.0_f64.to_bits()), "0 is above -0");
    }
}
