//! How long something was in which state.
//!
//! A state holds from its time until the next one's; the last one has no duration yet. `state_agg`
//! keeps every period, `compact_state_agg` the sum of each state.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, StringArray, StructArray,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{
    DataType, Field, IntervalMonthDayNanoType, TimestampNanosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use model::schema::TIME_ZONE;

use super::collected::{
    Definition, Key, Pairs, Value, interval, interval_type, list, structure_type,
};
use super::{as_time, no_such_call, scalar_if, time_type};
use crate::error::Error;

pub(super) static AGGREGATES: [Definition; 2] = [
    Definition {
        name: "state_agg",
        key: Key::Time,
        value: Value::Text,
        options: (0, 0),
        usage: "(time, state)",
        returns: || list_type(period_type()),
        finish: |pairs, _| Ok(periods(pairs)),
    },
    Definition {
        name: "compact_state_agg",
        key: Key::Time,
        value: Value::Text,
        options: (0, 0),
        usage: "(time, state)",
        returns: || list_type(total_type()),
        finish: |pairs, _| Ok(totals(pairs)),
    },
];

pub(super) fn accessors() -> Vec<Arc<ScalarUDF>> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    vec![
        Arc::new(ScalarUDF::from(DurationIn { signature: signature() })),
        Arc::new(ScalarUDF::from(StateAt { signature: signature() })),
    ]
}

fn list_type(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn period_type() -> DataType {
    structure_type(&[("state", DataType::Utf8), ("start", time_type()), ("end", time_type())])
}

fn total_type() -> DataType {
    structure_type(&[("state", DataType::Utf8), ("duration", interval_type())])
}

fn structs(data_type: DataType, columns: Vec<ArrayRef>) -> ScalarValue {
    let DataType::Struct(fields) = data_type else { unreachable!("both types are structs") };
    list(Arc::new(StructArray::new(fields, columns, None)))
}

/// Returns the periods: neighbours of one state are one period.
fn periods(pairs: &Pairs<'_>) -> ScalarValue {
    let (mut states, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (time, value)) in pairs.times.iter().zip(pairs.values).enumerate() {
        if at > 0 && pairs.values[at - 1] == *value {
            continue;
        }
        if at > 0 {
            ends.push(*time);
        }
        states.push(pairs.texts[*value as usize].as_str());
        starts.push(*time);
    }
    ends.push(pairs.times[pairs.times.len() - 1]);
    let instants = |times: Vec<i64>| {
        Arc::new(TimestampNanosecondArray::from(times).with_timezone(TIME_ZONE)) as ArrayRef
    };
    let states = Arc::new(StringArray::from(states));
    structs(period_type(), vec![states, instants(starts), instants(ends)])
}

fn totals(pairs: &Pairs<'_>) -> ScalarValue {
    let mut totals = vec![0_i64; pairs.texts.len()];
    for (times, value) in pairs.times.windows(2).zip(pairs.values) {
        let total = &mut totals[*value as usize];
        *total = total.saturating_add(times[1].saturating_sub(times[0]));
    }
    let states = Arc::new(StringArray::from_iter_values(pairs.texts));
    let totals: IntervalMonthDayNanoArray = totals.into_iter().map(interval).map(Some).collect();
    structs(total_type(), vec![states, Arc::new(totals)])
}

/// Returns the item type of a list of periods or of totals.
fn made_by(found: &DataType, item: &DataType) -> bool {
    matches!(found, DataType::List(field) if field.data_type().equals_datatype(item))
}

/// `duration_in(agg, state [, begin [, interval]])`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DurationIn {
    signature: Signature,
}

impl ScalarUDFImpl for DurationIn {
    fn name(&self) -> &'static str {
        "duration_in"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let usage = "(state_agg(...) or compact_state_agg(...), state [, begin [, interval]]); \
                     only state_agg knows when";
        let Some(agg) = found.first() else { return no_such_call(self.name(), found, usage) };
        let periods = made_by(agg, &period_type());
        let known = periods || made_by(agg, &total_type());
        let most = if periods { 4 } else { 2 };
        let mut wanted = vec![agg.clone(), DataType::Utf8];
        wanted.extend(found.get(2).and_then(as_time));
        wanted.extend(found.get(3).map(|_| interval_type()));
        if !known || found.len() < 2 || found.len() > most || wanted.len() != found.len() {
            return no_such_call(self.name(), found, usage);
        }
        Ok(wanted)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(interval_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (lists, states) = (arrays[0].as_list::<i32>(), arrays[1].as_string::<i32>());
        let begins = arrays.get(2).map(|one| one.as_primitive::<TimestampNanosecondType>());
        let spans = arrays.get(3).map(|one| one.as_primitive::<IntervalMonthDayNanoType>());
        let mut found = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            if arrays.iter().any(|array| array.is_null(row)) {
                found.push(None);
                continue;
            }
            let from = begins.map(|one| one.value(row));
            let span = spans.map(|one| one.value(row));
            let to = match (from, span) {
                (Some(from), Some(span)) => Some(from.saturating_add(fixed_ns(span)?)),
                _ => None,
            };
            let items = lists.value(row);
            let window = (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX));
            found.push(Some(interval(duration(items.as_struct(), states.value(row), window))));
        }
        let array: ArrayRef = Arc::new(found.into_iter().collect::<IntervalMonthDayNanoArray>());
        scalar_if(&args.args, array)
    }
}

fn fixed_ns(span: datafusion::arrow::datatypes::IntervalMonthDayNano) -> Result<i64> {
    if span.months != 0 {
        return Err(Error::new("22023", "an interval of months has no fixed length").into());
    }
    Ok((i64::from(span.days) * 86_400_000_000_000).saturating_add(span.nanoseconds))
}

fn duration(items: &StructArray, state: &str, (from, to): (i64, i64)) -> i64 {
    let states = items.column(0).as_string::<i32>();
    let matches = (0..items.len()).filter(|at| states.value(*at) == state);
    if items.num_columns() == 2 {
        let totals = items.column(1).as_primitive::<IntervalMonthDayNanoType>();
        return matches.filter_map(|at| fixed_ns(totals.value(at)).ok()).sum();
    }
    let starts = items.column(1).as_primitive::<TimestampNanosecondType>();
    let ends = items.column(2).as_primitive::<TimestampNanosecondType>();
    matches.map(|at| ends.value(at).min(to).saturating_sub(starts.value(at).max(from)).max(0)).sum()
}

/// `state_at(agg, time)`: the state that held at an instant; NULL before the first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StateAt {
    signature: Signature,
}

impl ScalarUDFImpl for StateAt {
    fn name(&self) -> &'static str {
        "state_at"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [agg, time] if made_by(agg, &period_type()) && as_time(time).is_some() => {
                Ok(vec![agg.clone(), time_type()])
            }
            [agg, DataType::Utf8] if made_by(agg, &period_type()) => {
                Ok(vec![agg.clone(), time_type()])
            }
            _ => no_such_call(self.name(), found, "(state_agg(...), time)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let lists = arrays[0].as_list::<i32>();
        let times = arrays[1].as_primitive::<TimestampNanosecondType>();
        let state = |row: usize| {
            if lists.is_null(row) || times.is_null(row) {
                return None;
            }
            let items = lists.value(row);
            let items = items.as_struct();
            let starts = items.column(1).as_primitive::<TimestampNanosecondType>();
            let time = times.value(row);
            let last = starts.values().partition_point(|start| *start <= time);
            let end = items.column(2).as_primitive::<TimestampNanosecondType>();
            let at = last.checked_sub(1)?;
            // After the last pair nobody knows.
            let known = at + 1 < items.len() || time <= end.value(at);
            known.then(|| items.column(0).as_string::<i32>().value(at).to_owned())
        };
        let array: ArrayRef = Arc::new((0..lists.len()).map(state).collect::<StringArray>());
        scalar_if(&args.args, array)
    }
}
