//! Values chosen among those of a group: the most frequent, some at random.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;
use ring::rand::{SecureRandom, SystemRandom};

use super::collected::list;
use super::no_such_call;
use crate::error::Error;

/// The most values `sample` returns.
const SAMPLE_MAX: usize = 10_000;

pub(super) fn mode() -> AggregateUDF {
    AggregateUDF::from(Mode { signature: Signature::any(1, Volatility::Immutable) })
}

pub(super) fn sample() -> AggregateUDF {
    AggregateUDF::from(Sample { signature: Signature::user_defined(Volatility::Volatile) })
}

fn list_state(name: &str, part: &str, item: DataType) -> FieldRef {
    let item = Field::new_list_field(item, true);
    Arc::new(Field::new_list(format!("{name}[{part}]"), item, true))
}

/// `mode(value)`: the most frequent value; of several the least.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mode {
    signature: Signature,
}

impl AggregateUDFImpl for Mode {
    fn name(&self) -> &'static str {
        "mode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            list_state(args.name, "values", args.return_type().clone()),
            list_state(args.name, "counts", DataType::UInt64),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        Ok(Box::new(Frequencies { data_type, counts: HashMap::new() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Frequencies {
    data_type: DataType,
    counts: HashMap<ScalarValue, u64>,
}

impl Accumulator for Frequencies {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in (0..values[0].len()).filter(|row| values[0].is_valid(*row)) {
            let value = ScalarValue::try_from_array(&values[0], row)?;
            *self.counts.entry(value).or_default() += 1;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let (values, counts) = (values.value(row), counts.value(row));
            for (at, count) in counts.as_primitive::<UInt64Type>().values().iter().enumerate() {
                let value = ScalarValue::try_from_array(&values, at)?;
                *self.counts.entry(value).or_default() += count;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<_>, Vec<_>) = self.counts.drain().unzip();
        let values = ScalarValue::new_list(&values, &self.data_type, true);
        Ok(vec![ScalarValue::List(values), list(Arc::new(UInt64Array::from(counts)))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let better = |one: &(&ScalarValue, &u64), other: &(&ScalarValue, &u64)| {
            one.1
                .cmp(other.1)
                .then_with(|| other.0.partial_cmp(one.0).unwrap_or(std::cmp::Ordering::Equal))
        };
        match self.counts.iter().max_by(better) {
            Some((value, _)) => Ok(value.clone()),
            None => ScalarValue::try_from(&self.data_type),
        }
    }

    fn size(&self) -> usize {
        let values: usize = self.counts.keys().map(ScalarValue::size).sum();
        size_of::<Self>() + values + self.counts.capacity() * 16
    }
}

/// `sample(value, n)`: n values at random, each set of n as likely as another.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sample {
    signature: Signature,
}

impl AggregateUDFImpl for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [value, count] if count.is_integer() => Ok(vec![value.clone(), DataType::Int64]),
            _ => no_such_call(self.name(), found, "(value, count)"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let item = arguments.first().cloned().unwrap_or(DataType::Null);
        Ok(DataType::List(Arc::new(Field::new_list_field(item, true))))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(
                format!("{}[values]", args.name),
                args.return_type().clone(),
                true,
            )),
            list_state(args.name, "keys", DataType::UInt64),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let count = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
        let count = match count.map(Literal::value) {
            Some(ScalarValue::Int64(Some(count))) => usize::try_from(*count).ok(),
            _ => None,
        };
        let Some(count) = count.filter(|count| (1..=SAMPLE_MAX).contains(count)) else {
            let message = format!("sample takes a constant count between 1 and {SAMPLE_MAX}");
            return Err(Error::new("22023", message).into());
        };
        let mut seed = [0; 8];
        let random = SystemRandom::new().fill(&mut seed);
        random.map_err(|_| Error::internal("no random numbers"))?;
        let data_type = args.expr_fields[0].data_type().clone();
        let seed = u64::from_le_bytes(seed);
        Ok(Box::new(Reservoir { data_type, count, seed, kept: BTreeMap::new() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Each value gets a random key; those with the least keys stay. Joining two keeps that.
#[derive(Debug)]
struct Reservoir {
    data_type: DataType,
    count: usize,
    seed: u64,
    kept: BTreeMap<u64, ScalarValue>,
}

impl Reservoir {
    /// Sebastiano Vigna's splitmix64.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn offer(&mut self, key: u64, value: impl FnOnce() -> Result<ScalarValue>) -> Result<()> {
        let full = self.kept.len() >= self.count;
        if full && self.kept.last_key_value().is_some_and(|(last, _)| key >= *last) {
            return Ok(());
        }
        self.kept.insert(key, value()?);
        if self.kept.len() > self.count {
            self.kept.pop_last();
        }
        Ok(())
    }
}

impl Accumulator for Reservoir {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in (0..values[0].len()).filter(|row| values[0].is_valid(*row)) {
            let key = self.random();
            self.offer(key, || ScalarValue::try_from_array(&values[0], row))?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, keys) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let (values, keys) = (values.value(row), keys.value(row));
            for (at, key) in keys.as_primitive::<UInt64Type>().values().iter().enumerate() {
                self.offer(*key, || ScalarValue::try_from_array(&values, at))?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let keys: Vec<u64> = self.kept.keys().copied().collect();
        Ok(vec![self.evaluate()?, list(Arc::new(UInt64Array::from(keys)))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.kept.is_empty() {
            let item = Field::new_list_field(self.data_type.clone(), true);
            return ScalarValue::try_from(&DataType::List(Arc::new(item)));
        }
        let values: Vec<ScalarValue> = self.kept.values().cloned().collect();
        Ok(ScalarValue::List(ScalarValue::new_list(&values, &self.data_type, true)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.kept.values().map(|value| value.size() + 32).sum::<usize>()
    }
}
