//! Candlesticks: what a price did within a time, and the volume traded.
//! Two groups' candlesticks make one of all their rows, so that nothing but four prices is kept.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float64Type, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ScalarUDF, Signature, Volatility,
};

use super::accessors::{self, Accessor, computed, field};
use super::collected::{instant, number, structure, structure_type};
use super::{as_number, as_time, no_such_call, state_fields, time_type};

pub(super) fn aggregate() -> AggregateUDF {
    AggregateUDF::from(Candlestick { signature: Signature::user_defined(Volatility::Immutable) })
}

fn candlestick_type() -> DataType {
    structure_type(&[
        ("open", DataType::Float64),
        ("open_time", time_type()),
        ("high", DataType::Float64),
        ("high_time", time_type()),
        ("low", DataType::Float64),
        ("low_time", time_type()),
        ("close", DataType::Float64),
        ("close_time", time_type()),
        ("volume", DataType::Float64),
        ("turnover", DataType::Float64),
    ])
}

static ACCESSORS: [Accessor; 10] = [
    of("open", || DataType::Float64, |one| field(one, "open")),
    of("open_time", time_type, |one| field(one, "open_time")),
    of("high", || DataType::Float64, |one| field(one, "high")),
    of("high_time", time_type, |one| field(one, "high_time")),
    of("low", || DataType::Float64, |one| field(one, "low")),
    of("low_time", time_type, |one| field(one, "low_time")),
    of("close", || DataType::Float64, |one| field(one, "close")),
    of("close_time", time_type, |one| field(one, "close_time")),
    of("volume", || DataType::Float64, |one| field(one, "volume")),
    of(
        "vwap",
        || DataType::Float64,
        // Volume-weighted average price.
        |one| computed(one, &["turnover", "volume"], |v| (v[1] != 0.0).then(|| v[0] / v[1])),
    ),
];

pub(super) fn accessors() -> impl Iterator<Item = Arc<ScalarUDF>> {
    ACCESSORS.iter().map(accessors::scalar)
}

const fn of(
    name: &'static str,
    returns: fn() -> DataType,
    read: fn(&datafusion::arrow::array::StructArray) -> Result<ArrayRef>,
) -> Accessor {
    Accessor { name, of: ("candlestick_agg", candlestick_type), returns, read }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Candlestick {
    signature: Signature,
}

impl AggregateUDFImpl for Candlestick {
    fn name(&self) -> &'static str {
        "candlestick_agg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        if let [time, price, volume] = found
            && let (Some(time), Some(price), Some(volume)) =
                (as_time(time), as_number(price), as_number(volume))
        {
            return Ok(vec![time, price, volume]);
        }
        no_such_call(self.name(), found, "(time, price, volume)")
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(candlestick_type())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name, candlestick_type()))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Candle::default()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// A price and when it was.
type Price = (f64, i64);

#[derive(Clone, Copy, Debug)]
struct Prices {
    open: Price,
    high: Price,
    low: Price,
    close: Price,
}

#[derive(Debug, Default)]
struct Candle {
    prices: Option<Prices>,
    volume: f64,
    /// Sum of price times volume.
    turnover: f64,
}

impl Candle {
    fn join(&mut self, other: Prices) {
        let Some(own) = &mut self.prices else {
            self.prices = Some(other);
            return;
        };
        // Of equal prices the first counts, and of equal times what came first.
        if other.open.1 < own.open.1 {
            own.open = other.open;
        }
        if other.close.1 >= own.close.1 {
            own.close = other.close;
        }
        let earlier = |one: Price, than: Price| one.0 == than.0 && one.1 < than.1;
        if other.high.0 > own.high.0 || earlier(other.high, own.high) {
            own.high = other.high;
        }
        if other.low.0 < own.low.0 || earlier(other.low, own.low) {
            own.low = other.low;
        }
    }
}

impl Accumulator for Candle {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = values[0].as_primitive::<TimestampNanosecondType>();
        let prices = values[1].as_primitive::<Float64Type>();
        let volumes = values[2].as_primitive::<Float64Type>();
        for row in 0..times.len() {
            if times.is_null(row) || prices.is_null(row) {
                continue;
            }
            let price = (prices.value(row), times.value(row));
            self.join(Prices { open: price, high: price, low: price, close: price });
            let volume = if volumes.is_null(row) { 0.0 } else { volumes.value(row) };
            self.volume += volume;
            self.turnover += price.0 * volume;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let number = |at: usize, row: usize| states[at].as_primitive::<Float64Type>().value(row);
        let time =
            |at: usize, row: usize| states[at].as_primitive::<TimestampNanosecondType>().value(row);
        let price = |at: usize, row: usize| (number(at, row), time(at + 1, row));
        for row in 0..states[0].len() {
            if states[0].is_null(row) {
                continue;
            }
            let (open, high) = (price(0, row), price(2, row));
            self.join(Prices { open, high, low: price(4, row), close: price(6, row) });
            self.volume += number(8, row);
            self.turnover += number(9, row);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let Some(Prices { open, high, low, close }) = self.prices else {
            let DataType::Struct(fields) = candlestick_type() else { return Ok(Vec::new()) };
            return fields.iter().map(|field| ScalarValue::try_from(field.data_type())).collect();
        };
        let price = |one: Price| [number(one.0), instant(one.1)];
        let mut state: Vec<ScalarValue> =
            [open, high, low, close].into_iter().flat_map(price).collect();
        state.extend([number(self.volume), number(self.turnover)]);
        Ok(state)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let DataType::Struct(fields) = candlestick_type() else {
            return Err(crate::error::Error::internal("a struct").into());
        };
        if self.prices.is_none() {
            return ScalarValue::try_from(&candlestick_type());
        }
        let state = self.state()?;
        let named: Vec<(&str, ScalarValue)> =
            fields.iter().map(|field| field.name().as_str()).zip(state).collect();
        structure(&named)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}
