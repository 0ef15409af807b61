//! Fewer points that look the same: LTTB and ASAP.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, StructArray, TimestampNanosecondArray};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};
use model::schema::TIME_ZONE;

use super::collected::{Definition, Key, Pairs, Value, list, structure, structure_type};
use super::time_type;
use crate::error::Error;

/// The most points that are asked for.
const POINTS_MAX: i64 = 10_000;

pub(super) static AGGREGATES: [Definition; 2] = [
    Definition {
        name: "lttb",
        key: Key::Time,
        value: Value::Number,
        options: (1, 1),
        usage: "(time, value, points)",
        returns: points_type,
        finish: |pairs, options| Ok(points(&lttb(pairs, points_wanted("lttb", options, 3)?))),
    },
    Definition {
        name: "asap_smooth",
        key: Key::Time,
        value: Value::Number,
        options: (1, 1),
        usage: "(time, value, resolution)",
        returns: || {
            let lists = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
            structure_type(&[("time", lists(time_type())), ("value", lists(DataType::Float64))])
        },
        finish: |pairs, options| {
            let (times, values) = asap(pairs, points_wanted("asap_smooth", options, 1)?);
            structure(&[("time", list(instants(times))), ("value", list(numbers(values)))])
        },
    },
];

fn points_wanted(name: &str, options: &[ScalarValue], least: i64) -> Result<usize> {
    match options[0].cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(points)) if (least..=POINTS_MAX).contains(&points) => {
            Ok(points as usize)
        }
        _ => {
            let message = format!("{name} makes between {least} and {POINTS_MAX} points");
            Err(Error::new("22023", message).into())
        }
    }
}

/// Returns the type of a list of pairs of time and value.
pub(super) fn points_type() -> DataType {
    let item = structure_type(&[("time", time_type()), ("value", DataType::Float64)]);
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// Makes a list of pairs of time and value; NaN stands for NULL.
pub(super) fn points(pairs: &[(i64, f64)]) -> ScalarValue {
    let (times, values): (Vec<i64>, Vec<f64>) = pairs.iter().copied().unzip();
    let DataType::List(item) = points_type() else { unreachable!("a list") };
    let DataType::Struct(fields) = item.data_type() else { unreachable!("of structs") };
    let values: Float64Array =
        values.into_iter().map(|value| (!value.is_nan()).then_some(value)).collect();
    let columns = vec![instants(times), Arc::new(values)];
    list(Arc::new(StructArray::new(fields.clone(), columns, None)))
}

fn instants(times: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(times).with_timezone(TIME_ZONE))
}

fn numbers(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

/// Largest triangle three buckets: S. Steinarsson, "Downsampling Time Series for Visual
/// Representation", University of Iceland, 2013. First and last point stay; of each bucket between
/// them that point stays which makes the largest triangle with the one before and the mean of the
/// next bucket.
fn lttb(pairs: &Pairs<'_>, wanted: usize) -> Vec<(i64, f64)> {
    let count = pairs.times.len();
    let point = |at: usize| (pairs.times[at], pairs.values[at]);
    if count <= wanted {
        return (0..count).map(point).collect();
    }
    let mut chosen = vec![point(0)];
    let edge = |bucket: usize| 1 + bucket * (count - 2) / (wanted - 2);
    let mut before = 0;
    for bucket in 0..wanted - 2 {
        let (start, end) = (edge(bucket), edge(bucket + 1));
        let after = if bucket + 3 == wanted { end..end + 1 } else { end..edge(bucket + 2) };
        let length = after.len() as f64;
        // Times are taken from the first, so that they are exact as numbers.
        let x = |at: usize| pairs.times[at].saturating_sub(pairs.times[0]) as f64;
        let mean_x = after.clone().map(x).sum::<f64>() / length;
        let mean_y = after.map(|at| pairs.values[at]).sum::<f64>() / length;
        let area = |at: usize| {
            let (ax, ay) = (x(before), pairs.values[before]);
            ((ax - mean_x) * (pairs.values[at] - ay) - (ax - x(at)) * (mean_y - ay)).abs()
        };
        let best = (start..end).fold((start, f64::NEG_INFINITY), |best, at| {
            let area = area(at);
            if area > best.1 { (at, area) } else { best }
        });
        before = best.0;
        chosen.push(point(before));
    }
    chosen.push(point(count - 1));
    chosen
}

/// Automatic smoothing for attention prioritization: K. Rong, P. Bailis, "ASAP: Prioritizing Attention
/// via Time Series Smoothing", VLDB 2017. The points are first averaged down to the resolution; then
/// that moving average is taken which is least rough while outliers stay as visible as they were, by
/// their kurtosis. All windows up to a tenth are tried.
fn asap(pairs: &Pairs<'_>, resolution: usize) -> (Vec<i64>, Vec<f64>) {
    let count = pairs.times.len();
    let per = count.div_ceil(resolution).max(1);
    let times: Vec<i64> = pairs.times.chunks(per).map(|chunk| chunk[0]).collect();
    let mean = |chunk: &[f64]| chunk.iter().sum::<f64>() / chunk.len() as f64;
    let values: Vec<f64> = pairs.values.chunks(per).map(mean).collect();
    let (wanted, mut best) = (kurtosis(&values), (roughness(&values), 1));
    for window in 2..=(values.len() / 10).max(1) {
        let smoothed = moving_average(&values, window);
        let rough = roughness(&smoothed);
        if rough < best.0 && kurtosis(&smoothed) >= wanted {
            best = (rough, window);
        }
    }
    let smoothed = moving_average(&values, best.1);
    (times[..smoothed.len()].to_vec(), smoothed)
}

fn moving_average(values: &[f64], window: usize) -> Vec<f64> {
    let mut sum: f64 = values[..window.min(values.len())].iter().sum();
    let mut averages = vec![sum / window as f64];
    for at in window..values.len() {
        sum += values[at] - values[at - window];
        averages.push(sum / window as f64);
    }
    averages
}

/// Returns the standard deviation of the differences of neighbours.
fn roughness(values: &[f64]) -> f64 {
    let steps: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    moment(&steps, 2).sqrt()
}

fn kurtosis(values: &[f64]) -> f64 {
    let variance = moment(values, 2);
    if variance == 0.0 { 0.0 } else { moment(values, 4) / (variance * variance) }
}

fn moment(values: &[f64], power: i32) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|value| (value - mean).powi(power)).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<'a>(times: &'a [i64], values: &'a [f64]) -> Pairs<'a> {
        Pairs { times, values, texts: &[] }
    }

    #[test]
    fn lttb_keeps_the_ends_and_the_peak() {
        let times: Vec<i64> = (0..100).collect();
        let mut values = vec![0.0; 100];
        values[57] = 9.0;
        let kept = lttb(&pairs(&times, &values), 10);
        assert_eq!(kept.len(), 10);
        assert_eq!((kept[0].0, kept[9].0), (0, 99));
        assert!(kept.contains(&(57, 9.0)));
    }

    #[test]
    fn asap_smooths_what_repeats() {
        let times: Vec<i64> = (0..400).collect();
        let bump = |at: i32| if (200..240).contains(&at) { 20.0 } else { 0.0 };
        let values: Vec<f64> = (0..400).map(|at| f64::from(at % 8) + bump(at)).collect();
        let (_, smoothed) = asap(&pairs(&times, &values), 400);
        assert!(roughness(&smoothed) < roughness(&values) / 5.0);
    }
}
