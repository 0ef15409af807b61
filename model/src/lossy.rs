//! Lossy codecs: values that may deviate are made easy to compress before they are written.
//!
//! They are applied once, to the batch that is about to be logged, so that all replicas hold the same
//! values and no compaction adds to the deviation. What is the first value of a series in its batch has
//! nothing before it: larger batches compress better.
//!
//! SDT is swinging door trending (Bristol, "Swinging door trending: adaptive trend recording?", ISA
//! National Conference, 1990): the longest line from a kept value whose slope lies within the doors of
//! all values since. The lines' values are rounded to a grid, which costs an eighth of the deviation
//! and makes their differences few numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};

use crate::codec::Codec;
use crate::points::Points;

/// The share of the deviation that lines may use; rounding to the grid uses the rest.
const DOOR: f64 = 0.875;
/// The grid, as a share of the deviation: rounding errs by half of it.
const GRID: f64 = 0.25;
/// Integers beyond this are not exact as doubles: they are kept as they are.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Applies the codec of a column, by its place among the batch's fields.
pub fn reduce(points: &mut Points, field: usize, codec: Codec) {
    if !codec.is_lossy() {
        return;
    }
    let order = by_series(points);
    let Some(column) = points.fields.get_mut(field) else { return };
    let rows = Rows { times: &points.times, order: &order, codec };
    column.values = reduced(&column.values, &rows);
}

/// Returns the rows of each series, in order of time.
fn by_series(points: &Points) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); points.series.len()];
    for (row, series) in points.row_series.iter().enumerate() {
        if let Some(rows) = rows.get_mut(*series as usize) {
            rows.push(row as u32);
        }
    }
    for rows in &mut rows {
        // Stable: of two rows with one time the later stays the later.
        rows.sort_by_key(|row| points.times.get(*row as usize));
    }
    rows
}

/// The rows of a batch: their times, those of each series in order, and what is done to them.
#[derive(Clone, Copy)]
struct Rows<'a> {
    times: &'a [i64],
    order: &'a [Vec<u32>],
    codec: Codec,
}

fn reduced(values: &ArrayRef, rows: &Rows<'_>) -> ArrayRef {
    let codec = rows.codec;
    let exact = |value: f64| value.abs() < EXACT_MAX;
    if let Some(values) = values.as_primitive_opt::<Float64Type>() {
        let mut numbers = values.values().to_vec();
        each_series(&mut numbers, values, rows, f64::is_finite, |before, after| {
            if (before - after).abs() <= bound(codec, before) { after } else { before }
        });
        return Arc::new(Float64Array::new(numbers.into(), values.nulls().cloned()));
    }
    // A line's value is rounded to a whole number: half of one is lost, or none with a small deviation.
    if let Some(values) = values.as_primitive_opt::<Int64Type>() {
        let mut numbers: Vec<f64> = values.values().iter().map(|value| *value as f64).collect();
        each_series(&mut numbers, values, rows, exact, |_, after| after.round());
        let kept = values.values().iter().zip(&numbers).map(|(old, new)| {
            let new = *new as i64;
            if old.abs_diff(new) as f64 <= bound(codec, 0.0) { new } else { *old }
        });
        return Arc::new(Int64Array::new(kept.collect(), values.nulls().cloned()));
    }
    if let Some(values) = values.as_primitive_opt::<UInt64Type>() {
        let mut numbers: Vec<f64> = values.values().iter().map(|value| *value as f64).collect();
        each_series(&mut numbers, values, rows, exact, |_, after| after.round());
        let kept = values.values().iter().zip(&numbers).map(|(old, new)| {
            let new = *new as u64;
            if old.abs_diff(new) as f64 <= bound(codec, 0.0) { new } else { *old }
        });
        return Arc::new(UInt64Array::new(kept.collect(), values.nulls().cloned()));
    }
    Arc::clone(values)
}

/// Returns how far a value may be moved.
fn bound(codec: Codec, value: f64) -> f64 {
    match codec {
        Codec::Sdt(deviation) | Codec::Deadband(deviation) => deviation.bound(),
        Codec::Quantize(bits) => value.abs() * 2.0_f64.powi(-i32::from(bits) - 1),
        _ => 0.0,
    }
}

/// Reduces the values of each series; NULLs and what `can` refuses are passed over, `settle` has the
/// last word over each value.
fn each_series(
    numbers: &mut [f64],
    array: &dyn Array,
    rows: &Rows<'_>,
    can: impl Fn(f64) -> bool,
    settle: impl Fn(f64, f64) -> f64,
) {
    let Rows { times, order, codec } = *rows;
    for rows in order {
        let rows = rows.iter().map(|row| *row as usize);
        let rows: Vec<usize> =
            rows.filter(|row| array.is_valid(*row) && can(numbers[*row])).collect();
        let before: Vec<f64> = rows.iter().map(|row| numbers[*row]).collect();
        let at: Vec<i64> = rows.iter().map(|row| times[*row]).collect();
        let mut after = before.clone();
        match codec {
            Codec::Sdt(deviation) => swinging_door(&at, &before, deviation.bound(), &mut after),
            Codec::Deadband(deviation) => dead_band(deviation.bound(), &mut after),
            Codec::Quantize(bits) => {
                after.iter_mut().for_each(|value| *value = quantized(*value, bits))
            }
            _ => {}
        }
        for (place, row) in rows.iter().enumerate() {
            numbers[*row] = settle(before[place], after[place]);
        }
    }
}

fn dead_band(deviation: f64, values: &mut [f64]) {
    let Some(mut kept) = values.first().copied() else { return };
    for value in values {
        if (*value - kept).abs() <= deviation {
            *value = kept;
        } else {
            kept = *value;
        }
    }
}

/// Keeps the upper `bits` of the mantissa, rounded to nearest.
fn quantized(value: f64, bits: u8) -> f64 {
    let dropped = 52_u32.saturating_sub(u32::from(bits));
    if dropped == 0 {
        return value;
    }
    let half = 1_u64 << (dropped - 1);
    let mask = !((1_u64 << dropped) - 1);
    let rounded = f64::from_bits(value.to_bits().saturating_add(half) & mask);
    // The greatest values would round to infinity.
    if rounded.is_finite() { rounded } else { value }
}

fn swinging_door(times: &[i64], values: &[f64], deviation: f64, out: &mut [f64]) {
    let (door, grid) = (deviation * DOOR, deviation * GRID);
    let mut start = 0;
    while start < values.len() {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut end = start + 1;
        while end < values.len() {
            let elapsed = times[end].saturating_sub(times[start]) as f64;
            // Of rows with one time the later replaces the earlier: they lie on no line.
            if elapsed <= 0.0 {
                break;
            }
            let rise = values[end] - values[start];
            low = low.max((rise - door) / elapsed);
            high = high.min((rise + door) / elapsed);
            if low > high {
                break;
            }
            end += 1;
        }
        let slope = line_slope(times, values, (start, end), door);
        for row in start..end {
            let elapsed = times[row].saturating_sub(times[start]) as f64;
            out[row] = ((values[start] + slope * elapsed) / grid).round() * grid;
        }
        start = end;
    }
}

/// Returns the slope in the middle of the doors of a stretch.
fn line_slope(times: &[i64], values: &[f64], (start, end): (usize, usize), door: f64) -> f64 {
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    for row in start + 1..end {
        let elapsed = times[row].saturating_sub(times[start]) as f64;
        let rise = values[row] - values[start];
        low = low.max((rise - door) / elapsed);
        high = high.min((rise + door) / elapsed);
    }
    if low.is_finite() && high.is_finite() { low / 2.0 + high / 2.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ColumnId, TableId};
    use crate::points::PointsColumn;
    use crate::schema::ValueType;

    fn batch(values: ArrayRef, value_type: ValueType) -> Points {
        let rows = values.len();
        Points {
            table: TableId(1),
            series: vec![vec![1].into(), vec![2].into()],
            row_series: (0..rows as u32).map(|row| row % 2).collect(),
            times: (0..rows as i64).map(|row| row / 2 * 1_000_000_000).collect(),
            fields: vec![PointsColumn { id: ColumnId(1), value_type, values }],
        }
    }

    fn reduce_floats(values: &[f64], codec: Codec) -> Vec<f64> {
        let array = Arc::new(Float64Array::from(values.to_vec()));
        let mut points = batch(array, ValueType::F64);
        reduce(&mut points, 0, codec);
        points.fields[0].values.as_primitive::<Float64Type>().values().to_vec()
    }

    /// Two waves with some noise, the same at every call.
    fn waves(rows: usize) -> Vec<f64> {
        let mut noise = 1_u64;
        let mut next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 40) as f64 / (1 << 24) as f64 - 0.5
        };
        (0..rows).map(|row| (row as f64 / 300.0).sin() * 50.0 + next() * 0.05).collect()
    }

    #[test]
    fn no_value_moves_further_than_its_codec_allows() {
        let mut values = waves(10_000);
        values[7] = f64::NAN;
        values[8] = f64::INFINITY;
        values[9] = 1e300;
        values[10] = f64::MAX;
        for deviation in [1e-9, 0.01, 0.1, 5.0, 1e9] {
            for name in ["SDT", "DEADBAND"] {
                let kept = reduce_floats(&values, Codec::named(name, Some(deviation)).unwrap());
                for (before, after) in values.iter().zip(&kept) {
                    let same = before.to_bits() == after.to_bits();
                    assert!(same || (before - after).abs() <= deviation, "{name} {before} {after}");
                }
            }
        }
        for bits in [1, 8, 23, 52] {
            let kept = reduce_floats(&values, Codec::Quantize(bits));
            for (before, after) in values.iter().zip(&kept) {
                let same = before.to_bits() == after.to_bits();
                let bound = before.abs() * 2.0_f64.powi(-i32::from(bits) - 1);
                assert!(same || (before - after).abs() <= bound, "{bits} bits: {before} {after}");
            }
        }
    }

    #[test]
    fn few_different_steps_are_left() {
        let steps = |values: &[f64]| {
            let of_one: Vec<f64> = values.iter().copied().step_by(2).collect();
            let mut steps: Vec<u64> =
                of_one.windows(2).map(|pair| (pair[1] - pair[0]).to_bits()).collect();
            steps.sort_unstable();
            steps.dedup();
            steps.len()
        };
        let values = waves(10_000);
        assert!(steps(&values) > 4_000);
        let banded = reduce_floats(&values, Codec::named("DEADBAND", Some(1.0)).unwrap());
        assert!(steps(&banded) < 2_000, "{}", steps(&banded));
        let mut doors = reduce_floats(&values, Codec::named("SDT", Some(1.0)).unwrap());
        doors.iter_mut().for_each(|value| *value = (*value * 4.0).round());
        assert!(steps(&doors) < 20, "{}", steps(&doors));
    }

    #[test]
    fn integers_stay_whole_and_within_the_deviation() {
        let values: Vec<Option<i64>> = (0..1_000)
            .map(|row| (row % 13 != 0).then_some(row * 3 + row % 5))
            .chain([Some(i64::MAX), Some(i64::MIN), Some(0)])
            .collect();
        for (name, deviation) in [("SDT", 4.0), ("DEADBAND", 4.0), ("SDT", 0.3), ("DEADBAND", 0.3)]
        {
            let array = Int64Array::from(values.clone());
            let mut points = batch(Arc::new(array), ValueType::I64);
            reduce(&mut points, 0, Codec::named(name, Some(deviation)).unwrap());
            let kept = points.fields[0].values.as_primitive::<Int64Type>();
            assert_eq!(kept.null_count(), values.iter().filter(|value| value.is_none()).count());
            for (before, after) in values.iter().zip(kept) {
                let Some((before, after)) = before.zip(after) else { continue };
                assert!(before.abs_diff(after) as f64 <= deviation, "{name}: {before} {after}");
            }
        }
    }
}
