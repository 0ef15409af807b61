//! `date_trunc(unit, t)` of many instants: DataFusion's, which asks the zone about each of them.
//!
//! In UTC no zone need be asked, and neighbours mostly fall into one window. Elsewhere instants that ascend are
//! cut in stretches: where the first and the last of a stretch are cut to the same, so are all between, for
//! cutting keeps the order.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, PrimitiveArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampNanosecondType};
use datafusion::common::Result;
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use crate::error::Error;
use crate::zones::is_utc;

/// A stretch that is not longer is not looked at as a whole.
const STRETCH_MIN: usize = 8;
/// Of a second.
const NANOSECONDS: i64 = 1_000_000_000;

/// Returns the function.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(DateTrunc { one_by_one: DateTruncFunc::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    one_by_one: DateTruncFunc,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.one_by_one.name()
    }

    fn aliases(&self) -> &[String] {
        self.one_by_one.aliases()
    }

    fn signature(&self) -> &Signature {
        self.one_by_one.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.one_by_one.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.one_by_one.return_field_from_args(args)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.one_by_one.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.one_by_one.documentation()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let width = width_of(args.args.first());
        let Some(ColumnarValue::Array(instants)) = args.args.get_mut(1) else {
            return self.one_by_one.invoke_with_args(args);
        };
        let DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) = instants.data_type() else {
            return self.one_by_one.invoke_with_args(args);
        };
        let zone = Arc::clone(zone);
        let given = instants.as_primitive::<TimestampNanosecondType>();
        if is_utc(&zone) {
            if let Some(cut) = width.and_then(|width| cut_by(given, width)) {
                return Ok(ColumnarValue::Array(Arc::new(cut.with_timezone(zone))));
            }
            *instants = Arc::new(given.clone().with_timezone_opt(None::<Arc<str>>));
            let cut = self.one_by_one.invoke_with_args(args)?.into_array(1)?;
            let cut = cut.as_primitive::<TimestampNanosecondType>().clone();
            return Ok(ColumnarValue::Array(Arc::new(cut.with_timezone(zone))));
        }
        if given.null_count() > 0 || !given.values().is_sorted() {
            return self.one_by_one.invoke_with_args(args);
        }
        let given = given.values().clone();
        let mut cut = Vec::with_capacity(given.len());
        self.cut_ascending(&args, &zone, &given, &mut cut)?;
        let cut = TimestampNanosecondArray::from(cut).with_timezone(zone);
        Ok(ColumnarValue::Array(Arc::new(cut)))
    }
}

/// Returns how many nanoseconds lie between two cuts, where that is always the same.
fn width_of(unit: Option<&ColumnarValue>) -> Option<i64> {
    let Some(ColumnarValue::Scalar(unit)) = unit else { return None };
    let seconds = match unit.try_as_str()??.to_ascii_lowercase().as_str() {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return None,
    };
    Some(seconds * NANOSECONDS)
}

/// Cuts instants in UTC; `None` where one is too early for it.
fn cut_by(
    instants: &PrimitiveArray<TimestampNanosecondType>,
    width: i64,
) -> Option<PrimitiveArray<TimestampNanosecondType>> {
    let mut cut = 0_i64;
    let cuts = instants.values().iter().map(|instant| {
        let is_within = |since: i64| (0..width).contains(&since);
        if !instant.checked_sub(cut).is_some_and(is_within) {
            cut = instant.checked_sub(instant.rem_euclid(width))?;
        }
        Some(cut)
    });
    let cuts = cuts.collect::<Option<Vec<i64>>>()?;
    Some(PrimitiveArray::new(cuts.into(), instants.nulls().cloned()))
}

impl DateTrunc {
    /// Cuts instants that ascend.
    fn cut_ascending(
        &self,
        args: &ScalarFunctionArgs,
        zone: &Arc<str>,
        instants: &[i64],
        out: &mut Vec<i64>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (instants.first(), instants.last()) else { return Ok(()) };
        if instants.len() <= STRETCH_MIN {
            out.extend(self.cut_each(args, zone, instants.to_vec())?);
            return Ok(());
        }
        if let [one, other] = self.cut_each(args, zone, vec![*first, *last])?[..]
            && one == other
        {
            out.resize(out.len() + instants.len(), one);
            return Ok(());
        }
        let (earlier, later) = instants.split_at(instants.len() / 2);
        self.cut_ascending(args, zone, earlier, out)?;
        self.cut_ascending(args, zone, later, out)
    }

    fn cut_each(
        &self,
        args: &ScalarFunctionArgs,
        zone: &Arc<str>,
        instants: Vec<i64>,
    ) -> Result<Vec<i64>> {
        let rows = instants.len();
        let instants = TimestampNanosecondArray::from(instants).with_timezone(Arc::clone(zone));
        let mut args = args.clone();
        args.number_rows = rows;
        let unit = args.args.first().cloned();
        let unit = unit.ok_or_else(|| Error::internal("date_trunc has a unit"))?;
        args.args = vec![unit, ColumnarValue::Array(Arc::new(instants) as ArrayRef)];
        let cut = self.one_by_one.invoke_with_args(args)?.into_array(rows)?;
        Ok(cut.as_primitive::<TimestampNanosecondType>().values().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::Field;
    use datafusion::common::ScalarValue;
    use datafusion::common::config::ConfigOptions;

    fn args(unit: &str, zone: &str, instants: Vec<Option<i64>>) -> ScalarFunctionArgs {
        let instants = TimestampNanosecondArray::from(instants).with_timezone(zone);
        let shown = |name: &str, found: DataType| Arc::new(Field::new(name, found, true));
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some(zone.into()));
        ScalarFunctionArgs {
            number_rows: instants.len(),
            arg_fields: vec![shown("unit", DataType::Utf8), shown("time", time.clone())],
            return_field: shown("cut", time),
            config_options: Arc::new(ConfigOptions::default()),
            args: vec![
                ColumnarValue::Scalar(ScalarValue::from(unit)),
                ColumnarValue::Array(Arc::new(instants)),
            ],
        }
    }

    #[test]
    fn instants_are_cut_in_stretches_as_one_by_one() {
        const HOUR: i64 = 3_600_000_000_000;
        let function = DateTrunc { one_by_one: DateTruncFunc::new() };
        let zones = ["UTC", "+00:00", "Europe/Berlin", "Australia/Lord_Howe", "+05:30"];
        // Around both changes of clocks of 2024 in Berlin, and years apart.
        let around =
            |start: i64, step: i64| (0..500).map(move |at| Some(start + at * step)).collect();
        let stretches: [Vec<Option<i64>>; 6] = [
            around(1_711_839_600_000_000_000, HOUR / 7),
            around(1_729_983_600_000_000_000, HOUR / 11),
            around(-1_000_000_007, 90 * 24 * HOUR),
            vec![Some(5), None, Some(3 * HOUR)],
            vec![Some(7 * HOUR), Some(-HOUR), Some(HOUR)],
            vec![Some(i64::MAX - HOUR), Some(i64::MIN + 400 * 24 * HOUR)],
        ];
        for zone in zones {
            for unit in ["second", "minute", "hour", "day", "week", "month", "quarter", "year"] {
                for instants in &stretches {
                    let asked = || args(unit, zone, instants.clone());
                    let cut = function.invoke_with_args(asked()).unwrap().into_array(1).unwrap();
                    let each = function.one_by_one.invoke_with_args(asked()).unwrap();
                    assert_eq!(&cut, &each.into_array(1).unwrap(), "{unit} in {zone}");
                }
            }
        }
    }
}
