//! Aggregates over pairs of time and value that must look at them in order of time.
//!
//! A table says what each is called, takes and gives; one skeleton keeps the pairs of a group, passes
//! them between the stages of a plan and sorts them at the end. Pairs in which one is NULL do not
//! count. Memory is that of the pairs, 16 bytes each, and accounted.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, IntervalMonthDayNano, IntervalUnit,
    TimestampNanosecondType,
};
use datafusion::common::scalar::ScalarStructBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::PhysicalExpr;
use model::schema::TIME_ZONE;

use super::{as_number, as_time, no_such_call, time_type};
use crate::error::Error;

/// An aggregate of pairs of time and value.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) key: Key,
    pub(super) value: Value,
    /// How many literals follow: at least, at most.
    pub(super) options: (usize, usize),
    /// How it is called, for people.
    pub(super) usage: &'static str,
    pub(super) returns: fn() -> DataType,
    /// Computes the result of a group; not called for one without pairs.
    pub(super) finish: fn(&Pairs<'_>, &[ScalarValue]) -> Result<ScalarValue>,
}

/// What the pairs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An instant.
    Time,
    /// A number, kept as its bits in the order of numbers.
    Number,
}

/// What the second of a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number,
    /// A number; NULL counts, as NaN.
    NumberOrNull,
    /// Anything that has a text.
    Text,
}

/// The pairs of a group, in order of time.
#[derive(Debug)]
pub(super) struct Pairs<'a> {
    /// Nanoseconds since the epoch; where the key is a number, what [`key_number`] reads.
    pub(super) times: &'a [i64],
    /// Numbers; of texts their places in `texts`.
    pub(super) values: &'a [f64],
    /// The distinct texts.
    pub(super) texts: &'a [String],
}

/// Returns a number as an integer of the same order, and back.
fn number_key(number: f64) -> i64 {
    let bits = number.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// Returns the number of a key.
pub(super) fn key_number(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// Makes the aggregate of a definition.
pub(super) fn aggregate(definition: &'static Definition) -> Arc<AggregateUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::from(Collected { definition, signature }))
}

#[derive(Debug)]
struct Collected {
    definition: &'static Definition,
    signature: Signature,
}

impl PartialEq for Collected {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for Collected {}

impl Hash for Collected {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl AggregateUDFImpl for Collected {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let definition = self.definition;
        let (least, most) = definition.options;
        let coerced = match found {
            [time, value, options @ ..] if (least..=most).contains(&options.len()) => {
                let time = match definition.key {
                    Key::Time => as_time(time),
                    Key::Number => as_number(time),
                };
                let value = match definition.value {
                    Value::Number | Value::NumberOrNull => as_number(value),
                    Value::Text => Some(DataType::Utf8),
                };
                time.zip(value).map(|(time, value)| {
                    let mut all = vec![time, value];
                    all.extend_from_slice(options);
                    all
                })
            }
            _ => None,
        };
        match coerced {
            Some(coerced) => Ok(coerced),
            None => no_such_call(definition.name, found, definition.usage),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok((self.definition.returns)())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |part: &str, item: DataType| {
            let item = Field::new_list_field(item, true);
            Arc::new(Field::new_list(format!("{}[{part}]", args.name), item, true))
        };
        Ok(vec![
            list("times", time_type()),
            list("values", DataType::Float64),
            list("texts", DataType::Utf8),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let options = args.exprs.iter().skip(2).map(|expr| literal(self.name(), expr));
        Ok(Box::new(Collector {
            definition: self.definition,
            options: options.collect::<Result<_>>()?,
            times: Vec::new(),
            values: Vec::new(),
            texts: Vec::new(),
            places: HashMap::new(),
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        // It sorts by itself.
        AggregateOrderSensitivity::Insensitive
    }
}

/// Returns the value of an argument that must be a constant.
fn literal(name: &str, expr: &Arc<dyn PhysicalExpr>) -> Result<ScalarValue> {
    let literal = expr.downcast_ref::<Literal>().map(|literal| literal.value().clone());
    literal.ok_or_else(|| {
        Error::new("42601", format!("the last arguments of {name} must be constants")).into()
    })
}

/// The pairs of one group.
#[derive(Debug)]
struct Collector {
    definition: &'static Definition,
    options: Vec<ScalarValue>,
    times: Vec<i64>,
    values: Vec<f64>,
    texts: Vec<String>,
    places: HashMap<String, usize>,
}

impl Collector {
    fn collect(&mut self, times: &ArrayRef, values: &ArrayRef) {
        let keys: Vec<i64> = match times.data_type() {
            DataType::Float64 => {
                let numbers = times.as_primitive::<Float64Type>();
                numbers.values().iter().map(|number| number_key(*number)).collect()
            }
            _ => times.as_primitive::<TimestampNanosecondType>().values().to_vec(),
        };
        for (row, key) in keys.into_iter().enumerate() {
            let counts = self.definition.value == Value::NumberOrNull || values.is_valid(row);
            if times.is_null(row) || !counts {
                continue;
            }
            let value = match self.definition.value {
                Value::NumberOrNull if values.is_null(row) => f64::NAN,
                Value::Number | Value::NumberOrNull => {
                    values.as_primitive::<Float64Type>().value(row)
                }
                Value::Text => self.place(values.as_string::<i32>().value(row)),
            };
            self.times.push(key);
            self.values.push(value);
        }
    }

    fn place(&mut self, text: &str) -> f64 {
        if let Some(place) = self.places.get(text) {
            return *place as f64;
        }
        let place = self.texts.len();
        self.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place as f64
    }

    fn sort(&mut self) {
        if self.times.is_sorted() {
            return;
        }
        let mut order: Vec<usize> = (0..self.times.len()).collect();
        order.sort_by_key(|at| self.times[*at]);
        self.times = order.iter().map(|at| self.times[*at]).collect();
        self.values = order.iter().map(|at| self.values[*at]).collect();
    }
}

impl Accumulator for Collector {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.collect(&values[0], &values[1]);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (times, values) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        let texts = states[2].as_list::<i32>();
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            let texts = texts.value(row);
            // Their places here, which may be others.
            let places: Vec<f64> =
                texts.as_string::<i32>().iter().flatten().map(|text| self.place(text)).collect();
            let (times, values) = (times.value(row), values.value(row));
            self.times.extend(times.as_primitive::<TimestampNanosecondType>().values());
            let values = values.as_primitive::<Float64Type>().values();
            self.values.extend(values.iter().map(|value| match self.definition.value {
                Value::Text => places[*value as usize],
                Value::Number | Value::NumberOrNull => *value,
            }));
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let times: ArrayRef = Arc::new(
            TimestampNanosecondArray::from(std::mem::take(&mut self.times))
                .with_timezone(TIME_ZONE),
        );
        let values = Float64Array::from(std::mem::take(&mut self.values));
        let texts = StringArray::from_iter_values(&self.texts);
        Ok(vec![list(times), list(Arc::new(values)), list(Arc::new(texts))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.times.is_empty() {
            return ScalarValue::try_from(&(self.definition.returns)());
        }
        self.sort();
        let pairs = Pairs { times: &self.times, values: &self.values, texts: &self.texts };
        (self.definition.finish)(&pairs, &self.options)
    }

    fn size(&self) -> usize {
        let texts = self.texts.iter().map(|text| 2 * text.len() + 64).sum::<usize>();
        size_of::<Self>() + (self.times.capacity() + self.values.capacity()) * 8 + texts
    }
}

/// Makes a value of a list.
pub(super) fn list(items: ArrayRef) -> ScalarValue {
    let offsets = OffsetBuffer::from_lengths([items.len()]);
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    ScalarValue::List(Arc::new(ListArray::new(field, offsets, items, None)))
}

/// Makes a struct of its fields.
pub(super) fn structure(fields: &[(&str, ScalarValue)]) -> Result<ScalarValue> {
    let mut builder = ScalarStructBuilder::new();
    for (name, value) in fields {
        builder = builder.with_scalar(Field::new(*name, value.data_type(), true), value.clone());
    }
    builder.build()
}

/// Returns the type of a struct.
pub(super) fn structure_type(fields: &[(&str, DataType)]) -> DataType {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    DataType::Struct(fields.iter().map(field).collect())
}

/// Makes an instant.
pub(super) fn instant(ns: i64) -> ScalarValue {
    ScalarValue::TimestampNanosecond(Some(ns), Some(TIME_ZONE.into()))
}

/// Makes a number.
pub(super) fn number(value: f64) -> ScalarValue {
    ScalarValue::Float64(Some(value))
}

/// Makes a span of time of whole days and a rest, as PostgreSQL subtracts instants.
pub(crate) fn interval(ns: i64) -> IntervalMonthDayNano {
    const DAY_NS: i64 = 86_400_000_000_000;
    IntervalMonthDayNano::new(0, (ns / DAY_NS) as i32, ns % DAY_NS)
}

/// Returns the type of spans of time.
pub(super) fn interval_type() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_their_keys_have_one_order() {
        let numbers = [f64::NEG_INFINITY, -2.5, -0.0, 0.0, 1e-300, 7.0, f64::INFINITY];
        let keys: Vec<i64> = numbers.iter().map(|number| number_key(*number)).collect();
        assert!(keys.is_sorted());
        let back: Vec<f64> = keys.into_iter().map(key_number).collect();
        assert_eq!(back, numbers);
    }
}
