//! How good the data of a sensor are, between 0 and 1, as Apache IoTDB's data quality functions define it.
//!
//! The usual distance of two points is the median of the distances. Points that are missing, late or
//! redundant are found by walking with a window of ten: a gap of two distances and more misses points,
//! of which those that follow too close together were only late; a point within half a distance of the
//! one before is redundant. Values that are NaN or infinite are special; for `validity` they are filled
//! in linearly, and outliers are further from the median than three deviations, the deviation being
//! 1.4826 times the median distance to the median (the value itself, its steps, its speed, and the steps of
//! the speed).

use std::collections::VecDeque;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};

use super::collected::{Definition, Key, Pairs, Value, number};

const WINDOW: usize = 10;
const DEVIATIONS: f64 = 3.0;

pub(super) static AGGREGATES: [Definition; 4] = [
    quality("completeness", |pairs, _| {
        let (found, count) = (TimeFaults::of(pairs.times), pairs.times.len() as f64);
        let special = pairs.values.iter().filter(|value| !value.is_finite()).count() as f64;
        Ok(number(1.0 - (found.missing + special) / (count + found.missing)))
    }),
    quality("consistency", |pairs, _| {
        Ok(number(1.0 - TimeFaults::of(pairs.times).redundant / pairs.times.len() as f64))
    }),
    quality("timeliness", |pairs, _| {
        Ok(number(1.0 - TimeFaults::of(pairs.times).late / pairs.times.len() as f64))
    }),
    quality("validity", |pairs, _| Ok(number(validity(pairs)))),
];

const fn quality(
    name: &'static str,
    finish: fn(&Pairs<'_>, &[ScalarValue]) -> Result<ScalarValue>,
) -> Definition {
    let (key, value) = (Key::Time, Value::NumberOrNull);
    let (usage, returns) = ("(time, value)", (|| DataType::Float64) as fn() -> DataType);
    Definition { name, key, value, options: (0, 0), usage, returns, finish }
}

/// What is wrong with the times of points.
#[derive(Debug, Default, PartialEq)]
struct TimeFaults {
    missing: f64,
    late: f64,
    redundant: f64,
}

impl TimeFaults {
    fn of(times: &[i64]) -> Self {
        let mut faults = Self::default();
        let steps: Vec<f64> =
            times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64).collect();
        let base = median(&steps);
        if base <= 0.0 {
            return faults;
        }
        let distance = |from: i64, to: i64| to.saturating_sub(from) as f64 / base;
        let mut rest = times.iter().copied();
        let mut window: VecDeque<i64> = rest.by_ref().take(WINDOW).collect();
        while window.len() > 1 {
            let gap = distance(window[0], window[1]);
            if gap <= 0.5 {
                window.remove(1);
                faults.redundant += 1.0;
            } else {
                if gap >= 2.0 {
                    let missed = (gap - 1.0).round();
                    let late = take_late(&mut window, missed, distance);
                    faults.late += late;
                    faults.missing += missed - late;
                }
                window.pop_front();
            }
            window.extend(rest.by_ref().take(WINDOW - window.len()));
        }
        faults
    }
}

/// Takes the points out of a window that came late to a gap of `missed`; returns how many.
fn take_late(window: &mut VecDeque<i64>, missed: f64, distance: impl Fn(i64, i64) -> f64) -> f64 {
    let (mut late, mut at) = (0.0, 2);
    while at < window.len() && late < missed {
        let gap = distance(window[at - 1], window[at]);
        if gap >= 2.0 {
            break;
        }
        if gap <= 0.5 {
            window.remove(at);
            late += 1.0;
        } else {
            at += 1;
        }
    }
    late
}

fn validity(pairs: &Pairs<'_>) -> f64 {
    let values = filled(pairs);
    let steps = differences(&values);
    let seconds = pairs.times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 / 1e9);
    let speeds: Vec<f64> = steps
        .iter()
        .zip(seconds)
        .filter(|(_, seconds)| *seconds > 0.0)
        .map(|(step, seconds)| step / seconds)
        .collect();
    let violations = [&values, &steps, &speeds, &differences(&speeds)];
    let violations: usize = violations.into_iter().map(|values| outliers(values)).sum();
    1.0 - 0.25 * violations as f64 / pairs.times.len() as f64
}

/// Returns the values, those that are no numbers put between their neighbours.
fn filled(pairs: &Pairs<'_>) -> Vec<f64> {
    let known: Vec<usize> =
        (0..pairs.values.len()).filter(|at| pairs.values[*at].is_finite()).collect();
    let one = |at: usize| {
        let next = known.partition_point(|known| *known < at);
        match (next.checked_sub(1).map(|before| known[before]), known.get(next)) {
            (_, Some(next)) if *next == at => pairs.values[at],
            (Some(before), Some(next)) => {
                let span = pairs.times[*next].saturating_sub(pairs.times[before]) as f64;
                let share =
                    pairs.times[at].saturating_sub(pairs.times[before]) as f64 / span.max(1.0);
                pairs.values[before] + share * (pairs.values[*next] - pairs.values[before])
            }
            (Some(near), None) => pairs.values[near],
            (None, Some(near)) => pairs.values[*near],
            (None, None) => 0.0,
        }
    };
    (0..pairs.values.len()).map(one).collect()
}

fn differences(values: &[f64]) -> Vec<f64> {
    values.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Returns the median; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Returns the median distance to the median, scaled to a deviation of normally spread values.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let middle = median(values);
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    1.4826 * median(&distances)
}

fn outliers(values: &[f64]) -> usize {
    let (middle, bound) = (median(values), DEVIATIONS * deviation(values));
    values.iter().filter(|value| (*value - middle).abs() > bound).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_times_are_counted() {
        let perfect: Vec<i64> = (0..20).map(|at| at * 10).collect();
        assert_eq!(TimeFaults::of(&perfect), TimeFaults::default());
        let mut two_missing = perfect.clone();
        two_missing.drain(7..9);
        assert_eq!(TimeFaults::of(&two_missing).missing, 2.0);
        let mut doubled = perfect.clone();
        doubled.insert(5, 41);
        assert_eq!(TimeFaults::of(&doubled).redundant, 1.0);
        // The point of 50 came at 61, next to that of 60.
        let mut late = perfect;
        late.remove(5);
        late.insert(6, 61);
        assert_eq!(TimeFaults::of(&late), TimeFaults { late: 1.0, ..TimeFaults::default() });
    }
}
