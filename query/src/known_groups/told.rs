//! What an aggregate function asks for, and its partial results out of the statistics of row groups.

use std::sync::Arc;

use cluster::{KnownField, KnownGroup};
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, TimestampNanosecondArray,
    UInt64Array,
};
use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, FieldRef};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use model::ValueType;

use crate::error::Error;
use crate::scan::TskvScanExec;

/// A function over rows whose partial result statistics may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// How many rows there are.
    Rows,
    /// How many values a field has.
    Count(usize),
    /// The sum of a field; of whole numbers it is kept in 128 bits.
    Sum(Field),
    /// The mean of a field, of doubles or as such.
    Mean(Field),
    /// The lowest or the highest value of a field.
    Extreme(Field, End),
    /// The first or the last time.
    Time(End),
    /// The value of a field at the first or the last time.
    At(Field, End),
}

/// A field whose values are bits, no texts, by its place among the fields of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    at: usize,
    of: ValueType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Low,
    High,
}

impl Told {
    /// Returns what a function asks for; `None` where statistics do not tell it.
    pub(super) fn of(function: &AggregateFunctionExpr, scan: &TskvScanExec) -> Option<Self> {
        let is_by_order = matches!(function.fun().name(), "first_value" | "last_value");
        if function.ignore_nulls() || function.order_bys().is_empty() == is_by_order {
            return None;
        }
        let [argument] = &*function.expressions() else { return None };
        let number = |argument| number_of(argument, scan);
        let column = argument.downcast_ref::<Column>();
        let is_time = column.is_some_and(|column| scan.is_time(column.index()));
        let told = match function.fun().name() {
            "count" if is_time => Self::Rows,
            "count" => match (argument.downcast_ref::<Literal>(), column) {
                (Some(literal), _) if !literal.value().is_null() => Self::Rows,
                (_, Some(column)) => Self::Count(scan.field(column.index())?.0),
                _ => return None,
            },
            "sum" => Self::Sum(number(argument)?),
            "avg" => match argument.downcast_ref::<CastExpr>() {
                Some(cast) if *cast.cast_type() == DataType::Float64 => {
                    Self::Mean(number(cast.expr())?)
                }
                Some(_) => return None,
                None => Self::Mean(number(argument).filter(|number| number.of == ValueType::F64)?),
            },
            "min" if is_time => Self::Time(End::Low),
            "max" if is_time => Self::Time(End::High),
            "min" => Self::Extreme(number(argument)?, End::Low),
            "max" => Self::Extreme(number(argument)?, End::High),
            "first_value" => Self::At(field_of(argument, scan)?, begin(function, scan)?),
            "last_value" => Self::At(field_of(argument, scan)?, begin(function, scan)?.other()),
            _ => return None,
        };
        let states = function.state_fields().ok()?;
        told.are_states(&states).then_some(told)
    }

    /// Returns whether a function keeps its partial results as they are made here.
    fn are_states(self, states: &[FieldRef]) -> bool {
        let types: Vec<&DataType> = states.iter().map(|field| field.data_type()).collect();
        match (self, &*types) {
            (Self::Rows | Self::Count(_), [DataType::Int64])
            | (Self::Mean(_), [DataType::UInt64, DataType::Float64])
            | (Self::Time(_), [DataType::Timestamp(..)]) => true,
            (Self::Sum(Field { of: ValueType::F64, .. }), [one]) => **one == DataType::Float64,
            (Self::Sum(_), [one]) => **one == DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            (Self::Extreme(field, _), [one])
            | (Self::At(field, _), [one, DataType::Timestamp(..), DataType::Boolean]) => {
                Some(*one) == field.data_type().as_ref()
            }
            _ => false,
        }
    }

    /// Returns whether a row group's statistics tell what is asked for.
    pub(super) fn is_told_by(self, group: &KnownGroup) -> bool {
        match self {
            Self::Rows | Self::Count(_) | Self::Time(_) => true,
            Self::Extreme(number, _) => number.is_known(&group.fields[number.at]),
            Self::At(field, _) => {
                let known = &group.fields[field.at];
                known.values == 0 || known.ends.is_some()
            }
            Self::Sum(number) | Self::Mean(number) => {
                let field = &group.fields[number.at];
                let has_sum = || field.numbers.is_some_and(|numbers| numbers.sum.is_some());
                number.is_known(field) && (field.values == 0 || has_sum())
            }
        }
    }

    /// Returns the partial results of row groups that tell them: the columns that `fields` begins with.
    pub(super) fn states(
        self,
        groups: &[KnownGroup],
        fields: &[FieldRef],
    ) -> Result<Vec<ArrayRef>> {
        let field = |at: usize| groups.iter().map(move |group| &group.fields[at]);
        Ok(match self {
            Self::Rows => vec![counts(groups.iter().map(|group| group.rows))],
            Self::Count(at) => vec![counts(field(at).map(|field| field.values))],
            Self::Sum(number) => vec![number.sums(field(number.at))],
            Self::Mean(number) => {
                let counts = field(number.at)
                    .map(|field| (field.values > 0).then_some(field.values as u64))
                    .collect::<UInt64Array>();
                let sums = field(number.at)
                    .map(|field| sum_of(field).map(|bits| number.as_double(bits)))
                    .collect::<Float64Array>();
                vec![Arc::new(counts), Arc::new(sums)]
            }
            Self::Extreme(number, end) => {
                let bits = field(number.at)
                    .map(|field| field.numbers.map(|found| end.of((found.min, found.max))));
                vec![number.values(bits)]
            }
            Self::Time(end) => vec![times(groups, end, &fields[0])?],
            Self::At(of, end) => {
                let bits = field(of.at).map(|field| field.ends.map(|ends| end.of(ends)));
                let are_there = BooleanArray::from(vec![true; groups.len()]);
                vec![of.values(bits), times(groups, end, &fields[1])?, Arc::new(are_there)]
            }
        })
    }
}

/// Returns the first or the last times of row groups.
fn times(groups: &[KnownGroup], end: End, field: &FieldRef) -> Result<ArrayRef> {
    let times = groups.iter().map(|group| end.of((group.times.min, group.times.max)));
    let DataType::Timestamp(_, zone) = field.data_type() else {
        return Err(Error::internal("times are kept as such").into());
    };
    let times = TimestampNanosecondArray::from_iter_values(times);
    Ok(Arc::new(times.with_timezone_opt(zone.clone())))
}

/// Returns at which end of the times the order of a function begins; `None` where it is another order.
fn begin(function: &AggregateFunctionExpr, scan: &TskvScanExec) -> Option<End> {
    let [order] = function.order_bys() else { return None };
    let column = order.expr.downcast_ref::<Column>()?;
    let first = if order.options.descending { End::High } else { End::Low };
    scan.is_time(column.index()).then_some(first)
}

impl End {
    fn of<T>(self, (low, high): (T, T)) -> T {
        match self {
            Self::Low => low,
            Self::High => high,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Returns the field of numbers that an argument is.
fn number_of(argument: &Arc<dyn PhysicalExpr>, scan: &TskvScanExec) -> Option<Field> {
    field_of(argument, scan).filter(|field| field.of != ValueType::Bool)
}

/// Returns the field that an argument is, unless it has texts.
fn field_of(argument: &Arc<dyn PhysicalExpr>, scan: &TskvScanExec) -> Option<Field> {
    let column = argument.downcast_ref::<Column>()?;
    let (at, of) = scan.field(column.index())?;
    (of != ValueType::Str).then_some(Field { at, of })
}

fn counts(counts: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(counts.map(|count| count as i64)))
}

fn sum_of(field: &KnownField) -> Option<u64> {
    field.numbers.and_then(|numbers| numbers.sum)
}

impl Field {
    fn data_type(self) -> Option<DataType> {
        match self.of {
            ValueType::I64 => Some(DataType::Int64),
            ValueType::U64 => Some(DataType::UInt64),
            ValueType::F64 => Some(DataType::Float64),
            ValueType::Bool => Some(DataType::Boolean),
            ValueType::Str => None,
        }
    }

    fn is_known(self, field: &KnownField) -> bool {
        field.values == 0 || field.numbers.is_some()
    }

    fn as_double(self, bits: u64) -> f64 {
        match self.of {
            ValueType::I64 => bits.cast_signed() as f64,
            ValueType::U64 => bits as f64,
            ValueType::F64 | ValueType::Bool | ValueType::Str => f64::from_bits(bits),
        }
    }

    fn sums<'a>(self, fields: impl Iterator<Item = &'a KnownField>) -> ArrayRef {
        let sums = fields.map(sum_of);
        let whole = |number: fn(u64) -> i128, sums: Vec<Option<u64>>| {
            let sums: Decimal128Array = sums.into_iter().map(|sum| sum.map(number)).collect();
            Arc::new(sums.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)))
        };
        match self.of {
            ValueType::I64 => whole(|bits| i128::from(bits.cast_signed()), sums.collect()),
            ValueType::U64 => whole(i128::from, sums.collect()),
            ValueType::F64 | ValueType::Bool | ValueType::Str => self.values(sums),
        }
    }

    fn values(self, bits: impl Iterator<Item = Option<u64>>) -> ArrayRef {
        match self.of {
            ValueType::I64 => {
                Arc::new(bits.map(|bits| bits.map(u64::cast_signed)).collect::<Int64Array>())
            }
            ValueType::U64 => Arc::new(bits.collect::<UInt64Array>()),
            ValueType::Bool => {
                Arc::new(bits.map(|bits| bits.map(|bits| bits > 0)).collect::<BooleanArray>())
            }
            ValueType::F64 | ValueType::Str => {
                Arc::new(bits.map(|bits| bits.map(f64::from_bits)).collect::<Float64Array>())
            }
        }
    }
}
