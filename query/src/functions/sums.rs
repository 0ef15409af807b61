//! `sum` of whole numbers: exact, or 22003 where the result has no room in its type.
//!
//! DataFusion adds modulo 2^64. Sums are kept in 128 bits here, which no number of rows can fill, so that what
//! overflows on the way and comes back is right as well. Everything else is DataFusion's own.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array,
};
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature,
};

use crate::error::Error;

/// Returns the aggregate.
pub(super) fn sum() -> AggregateUDF {
    AggregateUDF::from(Sum { inner: sum_udaf() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    inner: Arc<AggregateUDF>,
}

fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct || !is_whole(args.return_field.data_type()) {
            return self.inner.accumulator(args);
        }
        Ok(Box::new(OneSum::new(args.return_field.data_type())))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct || !is_whole(args.return_field.data_type()) {
            return self.inner.create_sliding_accumulator(args);
        }
        Ok(Box::new(OneSum::new(args.return_field.data_type())))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if args.is_distinct || !is_whole(args.return_type()) {
            return self.inner.state_fields(args);
        }
        let name = format_state_name(args.name, "sum");
        Ok(vec![Arc::new(Field::new(name, state_type(), true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        if !is_whole(args.return_field.data_type()) {
            return self.inner.create_groups_accumulator(args);
        }
        let data_type = args.return_field.data_type().clone();
        Ok(Box::new(ManySums { data_type, sums: Vec::new(), seen: Vec::new() }))
    }
}

fn state_type() -> DataType {
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)
}

fn out_of_range(data_type: &DataType) -> Error {
    let name = if *data_type == DataType::Int64 { "bigint" } else { "bigint unsigned" };
    Error::new("22003", format!("{name} out of range"))
}

/// Visits the numbers of an array with their rows, without NULLs.
fn each(array: &ArrayRef, mut visit: impl FnMut(usize, i128)) {
    let is_valid = |row: usize| array.nulls().is_none_or(|nulls| nulls.is_valid(row));
    if let Some(values) = array.as_primitive_opt::<Int64Type>() {
        let values = values.values().iter().enumerate();
        values
            .filter(|(row, _)| is_valid(*row))
            .for_each(|(row, value)| visit(row, (*value).into()));
    } else if let Some(values) = array.as_primitive_opt::<UInt64Type>() {
        let values = values.values().iter().enumerate();
        values
            .filter(|(row, _)| is_valid(*row))
            .for_each(|(row, value)| visit(row, (*value).into()));
    } else if let Some(values) = array.as_primitive_opt::<Decimal128Type>() {
        let values = values.values().iter().enumerate();
        values.filter(|(row, _)| is_valid(*row)).for_each(|(row, value)| visit(row, *value));
    }
}

/// The sum of all rows, or of those in a frame that slides over them.
#[derive(Debug)]
struct OneSum {
    data_type: DataType,
    sum: i128,
    count: u64,
}

impl OneSum {
    fn new(data_type: &DataType) -> Self {
        Self { data_type: data_type.clone(), sum: 0, count: 0 }
    }
}

impl Accumulator for OneSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            self.sum += value;
            self.count += 1;
        });
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            self.sum -= value;
            self.count -= 1;
        });
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.count > 0).then_some(self.sum);
        Ok(vec![ScalarValue::Decimal128(sum, DECIMAL128_MAX_PRECISION, 0)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let none = self.count == 0;
        let wrong = || out_of_range(&self.data_type);
        Ok(match &self.data_type {
            DataType::Int64 if none => ScalarValue::Int64(None),
            DataType::Int64 => ScalarValue::Int64(Some(self.sum.try_into().map_err(|_| wrong())?)),
            _ if none => ScalarValue::UInt64(None),
            _ => ScalarValue::UInt64(Some(self.sum.try_into().map_err(|_| wrong())?)),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of many groups.
#[derive(Debug)]
struct ManySums {
    data_type: DataType,
    sums: Vec<i128>,
    /// Whether a group had a number.
    seen: Vec<bool>,
}

impl ManySums {
    fn add(
        &mut self,
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) {
        self.sums.resize(total, 0);
        self.seen.resize(total, false);
        let (sums, seen) = (&mut self.sums, &mut self.seen);
        each(values, |row, value| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                sums[groups[row]] += value;
                seen[groups[row]] = true;
            }
        });
    }

    fn take(&mut self, emit_to: EmitTo) -> impl Iterator<Item = Option<i128>> + use<> {
        let (sums, seen) =
            (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.seen));
        sums.into_iter().zip(seen).map(|(sum, seen)| seen.then_some(sum))
    }
}

fn states(sums: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef> {
    let states: Decimal128Array = sums.collect();
    Ok(Arc::new(states.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?))
}

impl GroupsAccumulator for ManySums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.add(&values[0], groups, filter, total);
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.add(&values[0], groups, None, total);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let data_type = self.data_type.clone();
        let sums = self.take(emit_to);
        let wrong = |_| out_of_range(&data_type);
        Ok(if data_type == DataType::Int64 {
            let sums = sums.map(|sum| sum.map(i64::try_from).transpose().map_err(wrong));
            Arc::new(sums.collect::<crate::error::Result<Int64Array>>()?)
        } else {
            let sums = sums.map(|sum| sum.map(u64::try_from).transpose().map_err(wrong));
            Arc::new(sums.collect::<crate::error::Result<UInt64Array>>()?)
        })
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![states(self.take(emit_to))?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut sums = vec![None; values[0].len()];
        each(&values[0], |row, value| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                sums[row] = Some(value);
            }
        });
        Ok(vec![states(sums.into_iter())?])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}
