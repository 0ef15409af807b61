//! `extract(epoch FROM x)`: the seconds since 1970 of an instant, those of a span. As in PostgreSQL a year of a
//! span has 365.25 days, a month beyond its years 30.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
    TimestampNanosecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::collected::interval_type;
use super::{no_such_call, scalar_if};

/// What `extract(epoch FROM x)` is planned as.
pub(crate) const EPOCH_OF: &str = "__epoch_of";
const DAY_SECONDS: f64 = 86_400.0;
const NANOSECONDS: f64 = 1e9;

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(EpochOf(Signature::user_defined(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct EpochOf(Signature);

impl ScalarUDFImpl for EpochOf {
    fn name(&self) -> &'static str {
        EPOCH_OF
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let wall = DataType::Timestamp(TimeUnit::Nanosecond, None);
        Ok(vec![match found {
            [DataType::Interval(_) | DataType::Duration(_)] => interval_type(),
            // An instant is counted from 1970 in UTC, a wall time as if it were there.
            [DataType::Timestamp(_, zone)] => {
                DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())
            }
            [DataType::Time32(_) | DataType::Time64(_)] => DataType::Time64(TimeUnit::Nanosecond),
            [DataType::Date32 | DataType::Date64] => DataType::Date32,
            [DataType::Null] => wall,
            _ => return no_such_call("extract", found, "(epoch FROM time or interval)"),
        }])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let found: Float64Array = match arrays[0].data_type() {
            DataType::Interval(_) => {
                let spans = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
                spans.iter().map(|span| span.map(seconds)).collect()
            }
            DataType::Date32 => {
                let days = arrays[0].as_primitive::<Date32Type>().iter();
                days.map(|day| day.map(|day| f64::from(day) * DAY_SECONDS)).collect()
            }
            _ => {
                let wall = DataType::Timestamp(TimeUnit::Nanosecond, None);
                let times = match arrays[0].data_type() {
                    DataType::Time64(_) => cast(&cast(&arrays[0], &DataType::Int64)?, &wall)?,
                    _ => Arc::clone(&arrays[0]),
                };
                let times = times.as_primitive::<TimestampNanosecondType>().iter();
                // Whole seconds first: a double holds them exactly.
                let seconds = |ns: i64| {
                    let (whole, part) =
                        (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
                    whole as f64 + part as f64 / NANOSECONDS
                };
                times.map(|ns| ns.map(seconds)).collect()
            }
        };
        scalar_if(&args.args, Arc::new(found) as ArrayRef)
    }
}

fn seconds(span: IntervalMonthDayNano) -> f64 {
    let (years, months) = (span.months / 12, span.months % 12);
    let days = f64::from(years) * 365.25 + f64::from(months) * 30.0 + f64::from(span.days);
    days * DAY_SECONDS + span.nanoseconds as f64 / NANOSECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_of_a_span_has_a_quarter_of_a_day_more() {
        let span =
            |months, days, nanoseconds| seconds(IntervalMonthDayNano { months, days, nanoseconds });
        assert_eq!(span(12, 0, 0), 31_557_600.0);
        assert_eq!(span(1, 0, 0), 2_592_000.0);
        assert_eq!(span(-13, 1, 500_000_000), -31_557_600.0 - 2_592_000.0 + 86_400.5);
    }
}
