//! Series with their faults repaired, as pairs of time and value.
//!
//! `timestamp_repair` puts the points on even times, `value_fill` fills in values that are NULL or NaN,
//! `value_repair` corrects values that cannot be. In a select list they stand alone and make rows (see
//! `sugar`). Options are a text of `key=value`, joined by `&`.

use std::collections::BTreeMap;

use datafusion::common::{Result, ScalarValue};

use super::collected::{Definition, Key, Pairs, Value};
use super::downsample::{points, points_type};
use super::quality::{deviation, median};
use crate::error::Error;

/// The most cells of the table that times are aligned in.
const CELLS_MAX: usize = 25_000_000;
/// The most values that a correction looks at, all in all.
const STEPS_MAX: usize = 200_000_000;
/// Values on each side that a moving average looks at.
const NEIGHBOURS: usize = 5;

pub(super) static AGGREGATES: [Definition; 3] = [
    repair("timestamp_repair", Value::Number, |pairs, options| {
        Ok(points(&even_times(
            pairs,
            &Options::of(options, &["method", "interval", "start_mode"])?,
        )?))
    }),
    repair("value_fill", Value::NumberOrNull, |pairs, options| {
        let options = Options::of(options, &["method"])?;
        Ok(points(&fill(pairs, options.text("method").unwrap_or("linear"))?))
    }),
    repair("value_repair", Value::Number, |pairs, options| {
        let known = ["method", "min_speed", "max_speed", "center", "sigma"];
        let options = Options::of(options, &known)?;
        // What is no number can neither be corrected nor be compared with.
        let sound: Vec<(i64, f64)> = pairs
            .times
            .iter()
            .copied()
            .zip(pairs.values.iter().copied())
            .filter(|(_, value)| value.is_finite())
            .collect();
        let (times, values): (Vec<i64>, Vec<f64>) = sound.into_iter().unzip();
        let pairs = &Pairs { times: &times, values: &values, texts: &[] };
        let values = match options.text("method").unwrap_or("screen") {
            "screen" => screen(pairs, &options)?,
            "lsgreedy" => least_changes(pairs, &options)?,
            other => return Err(unknown("method", other, "screen or lsgreedy")),
        };
        Ok(points(&pairs.times.iter().copied().zip(values).collect::<Vec<_>>()))
    }),
];

const fn repair(
    name: &'static str,
    value: Value,
    finish: fn(&Pairs<'_>, &[ScalarValue]) -> Result<ScalarValue>,
) -> Definition {
    Definition {
        name,
        key: Key::Time,
        value,
        options: (0, 1),
        usage: "(time, value [, 'key=value&...'])",
        returns: points_type,
        finish,
    }
}

fn invalid(message: String) -> datafusion::error::DataFusionError {
    Error::new("22023", message).into()
}

fn too_long() -> datafusion::error::DataFusionError {
    let error = Error::new("54000", "the correction of these values takes too long");
    error.hint("repair a shorter time at once, or bound less narrowly").into()
}

fn unknown(key: &str, found: &str, wanted: &str) -> datafusion::error::DataFusionError {
    invalid(format!("{key} is {wanted}, not {found}"))
}

/// Options as people write them.
struct Options(BTreeMap<String, String>);

impl Options {
    fn of(literals: &[ScalarValue], known: &[&str]) -> Result<Self> {
        let text = match literals.first().map(|one| one.try_as_str()) {
            Some(Some(Some(text))) => text,
            _ => "",
        };
        let mut options = BTreeMap::new();
        for option in text.split('&').map(str::trim).filter(|option| !option.is_empty()) {
            let pair = option.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            match pair.filter(|(key, _)| known.contains(key)) {
                Some((key, value)) => options.insert(key.to_owned(), value.to_owned()),
                None => {
                    let message = format!("\"{option}\" is none of {}", known.join("=, "));
                    return Err(invalid(message));
                }
            };
        }
        Ok(Self(options))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let number = self.text(key).map(|text| {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(|| invalid(format!("{key} is a number, not {text}")))
        });
        number.transpose()
    }
}

/// Aligns points with even times so that the sum of shifts, insertions and deletions is least; an
/// insertion or a deletion costs a distance. What is inserted has no value.
fn even_times(pairs: &Pairs<'_>, options: &Options) -> Result<Vec<(i64, f64)>> {
    let steps: Vec<f64> =
        pairs.times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64).collect();
    let distance = match options.number("interval")? {
        Some(ms) if ms <= 0.0 => return Err(invalid("interval is above zero".to_owned())),
        Some(ms) => ms * 1e6,
        None => match options.text("method").unwrap_or("median") {
            "median" => median(&steps),
            "mode" => most_frequent(&steps),
            "cluster" => center_of_largest(&steps),
            other => return Err(unknown("method", other, "median, mode or cluster")),
        },
    };
    if steps.is_empty() || distance < 1.0 {
        return Ok(pairs.times.iter().copied().zip(pairs.values.iter().copied()).collect());
    }
    let distance = distance.round() as i64;
    // The cost of a way through the table is at most that of deleting and inserting all points.
    let costs = i128::from(distance) * (2 * pairs.times.len() as i128 + CELLS_MAX as i128);
    if costs > i128::from(i64::MAX) / 4 {
        return Err(invalid("the points are too far apart".to_owned()));
    }
    let start = match options.text("start_mode").unwrap_or("mode") {
        "mode" => {
            let rests: Vec<f64> =
                pairs.times.iter().map(|time| time.rem_euclid(distance) as f64).collect();
            let rest = most_frequent(&rests) as i64;
            pairs.times[0] - (pairs.times[0] - rest).rem_euclid(distance)
        }
        // The line of least squares through the times at a fixed slope.
        "linear" => {
            let off =
                |(at, time): (usize, &i64)| (time - pairs.times[0] - at as i64 * distance) as f64;
            let mean =
                pairs.times.iter().enumerate().map(off).sum::<f64>() / pairs.times.len() as f64;
            pairs.times[0] + mean.round() as i64
        }
        other => return Err(unknown("start_mode", other, "mode or linear")),
    };
    let last = pairs.times[pairs.times.len() - 1];
    let count = ((last - start) as f64 / distance as f64).round().max(0.0) as usize + 1;
    let cells = count.saturating_mul(pairs.times.len());
    if cells > CELLS_MAX {
        let message = format!("timestamp_repair of {} points to {count}", pairs.times.len());
        return Err(Error::new("54000", message).hint("repair a shorter time at once").into());
    }
    Ok(align(pairs, start, distance, count))
}

fn align(pairs: &Pairs<'_>, start: i64, distance: i64, count: usize) -> Vec<(i64, f64)> {
    let points = pairs.times.len();
    let time = |at: usize| start + at as i64 * distance;
    let width = count + 1;
    let mut cost = vec![0_i64; (points + 1) * width];
    for at in 0..=points {
        for to in 0..=count {
            cost[at * width + to] = match (at, to) {
                (0, to) => to as i64 * distance,
                (at, 0) => at as i64 * distance,
                (at, to) => {
                    let shift = (pairs.times[at - 1] - time(to - 1)).abs();
                    let moved = cost[(at - 1) * width + to - 1] + shift;
                    let deleted = cost[(at - 1) * width + to] + distance;
                    let inserted = cost[at * width + to - 1] + distance;
                    moved.min(deleted).min(inserted)
                }
            };
        }
    }
    let (mut at, mut to) = (points, count);
    let mut repaired = Vec::with_capacity(count);
    while to > 0 {
        let here = cost[at * width + to];
        if at > 0 {
            let shift = (pairs.times[at - 1] - time(to - 1)).abs();
            if here == cost[(at - 1) * width + to - 1] + shift {
                repaired.push((time(to - 1), pairs.values[at - 1]));
                (at, to) = (at - 1, to - 1);
                continue;
            }
            if here == cost[(at - 1) * width + to] + distance {
                at -= 1;
                continue;
            }
        }
        repaired.push((time(to - 1), f64::NAN));
        to -= 1;
    }
    repaired.reverse();
    repaired
}

fn most_frequent(values: &[f64]) -> f64 {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(*value as i64).or_default() += 1;
    }
    let best = counts.into_iter().max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value)));
    best.map_or(0.0, |(value, _)| value as f64)
}

/// Returns the mean of the largest run of distances that grow by less than a fifth each.
fn center_of_largest(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let runs = sorted.chunk_by(|one, next| *next <= one * 1.2);
    let largest = runs.max_by_key(|run| run.len());
    largest.map_or(0.0, |run| run.iter().sum::<f64>() / run.len() as f64)
}

fn fill(pairs: &Pairs<'_>, method: &str) -> Result<Vec<(i64, f64)>> {
    let known: Vec<usize> =
        (0..pairs.values.len()).filter(|at| !pairs.values[*at].is_nan()).collect();
    let values: Vec<f64> = known.iter().map(|at| pairs.values[*at]).collect();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let slope = autocorrelation(&values, mean);
    let mut filled: Vec<f64> = Vec::with_capacity(pairs.values.len());
    for (at, value) in pairs.values.iter().enumerate() {
        let next = known.partition_point(|known| *known < at);
        let before = next.checked_sub(1).map(|before| known[before]);
        filled.push(if !value.is_nan() {
            *value
        } else {
            match method {
                "previous" => before.map_or(f64::NAN, |before| pairs.values[before]),
                "mean" if values.is_empty() => f64::NAN,
                "mean" => mean,
                "linear" => between(pairs, at, before, known.get(next).copied()),
                // The next value of a process that forgets: the mean, and a share of the last distance to it.
                "ar" => match filled.last() {
                    Some(last) if !last.is_nan() => mean + slope * (last - mean),
                    _ => mean,
                },
                "ma" => {
                    let from = next.saturating_sub(NEIGHBOURS);
                    let near = &values[from..(next + NEIGHBOURS).min(values.len())];
                    near.iter().sum::<f64>() / near.len() as f64
                }
                other => {
                    return Err(unknown("method", other, "linear, mean, previous, ar or ma"));
                }
            }
        });
    }
    Ok(pairs.times.iter().copied().zip(filled).collect())
}

/// Returns the value on the line between two neighbours; that of the only one at an end.
fn between(pairs: &Pairs<'_>, at: usize, before: Option<usize>, after: Option<usize>) -> f64 {
    match (before, after) {
        (Some(before), Some(after)) => {
            let span = pairs.times[after].saturating_sub(pairs.times[before]).max(1) as f64;
            let share = pairs.times[at].saturating_sub(pairs.times[before]) as f64 / span;
            pairs.values[before] + share * (pairs.values[after] - pairs.values[before])
        }
        (Some(near), None) | (None, Some(near)) => pairs.values[near],
        (None, None) => f64::NAN,
    }
}

fn autocorrelation(values: &[f64], mean: f64) -> f64 {
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let product = |pair: &[f64]| (pair[0] - mean) * (pair[1] - mean);
    if variance == 0.0 { 0.0 } else { values.windows(2).map(product).sum::<f64>() / variance }
}

fn speeds(pairs: &Pairs<'_>) -> Vec<f64> {
    let speed = |at: usize| {
        let seconds = pairs.times[at + 1].saturating_sub(pairs.times[at]) as f64 / 1e9;
        (pairs.values[at + 1] - pairs.values[at]) / seconds
    };
    (0..pairs.times.len().saturating_sub(1)).map(speed).filter(|one| one.is_finite()).collect()
}

/// SCREEN: S. Song et al., "SCREEN: Stream Data Cleaning under Speed Constraints", SIGMOD 2015. Each value
/// becomes the median of what the values of the window after it allow, within what the value before
/// allows. Speeds are per second; without bounds they are the median speed and three deviations.
fn screen(pairs: &Pairs<'_>, options: &Options) -> Result<Vec<f64>> {
    let speeds = speeds(pairs);
    let (middle, spread) = (median(&speeds), 3.0 * deviation(&speeds));
    let least = options.number("min_speed")?.unwrap_or(middle - spread);
    let most = options.number("max_speed")?.unwrap_or(middle + spread);
    if least > most {
        return Err(invalid("min_speed is above max_speed".to_owned()));
    }
    let seconds =
        |from: usize, to: usize| pairs.times[to].saturating_sub(pairs.times[from]) as f64 / 1e9;
    let steps: Vec<f64> = (1..pairs.times.len()).map(|at| seconds(at - 1, at)).collect();
    let window = 5.0 * median(&steps);
    let (mut values, mut steps_left) = (pairs.values.to_vec(), STEPS_MAX);
    for at in 0..values.len() {
        steps_left = steps_left.checked_sub(1).ok_or_else(too_long)?;
        let mut candidates = vec![values[at]];
        let mut later = at + 1;
        while later < values.len() && seconds(at, later) <= window {
            let ahead = seconds(at, later);
            candidates.extend([values[later] - least * ahead, values[later] - most * ahead]);
            later += 1;
            steps_left = steps_left.checked_sub(1).ok_or_else(too_long)?;
        }
        let wanted = median(&candidates);
        values[at] = match at.checked_sub(1) {
            Some(before) => {
                let since = seconds(before, at);
                let (low, high) = (values[before] + least * since, values[before] + most * since);
                wanted.max(low).min(high)
            }
            None => wanted,
        };
    }
    Ok(values)
}

/// Corrects the value whose change of speed is least likely, again and again, until none is further from
/// the center than three sigma: A. Zhang, S. Song, J. Wang, "Sequential Data Cleaning: A Statistical
/// Approach", SIGMOD 2016.
fn least_changes(pairs: &Pairs<'_>, options: &Options) -> Result<Vec<f64>> {
    let mut values = pairs.values.to_vec();
    let seconds =
        |at: usize| pairs.times[at + 1].saturating_sub(pairs.times[at]).max(1) as f64 / 1e9;
    let change = |values: &[f64], at: usize| {
        (values[at + 1] - values[at]) / seconds(at)
            - (values[at] - values[at - 1]) / seconds(at - 1)
    };
    let inner = 1..values.len().saturating_sub(1).max(1);
    let changes: Vec<f64> = inner.clone().map(|at| change(&values, at)).collect();
    let center = options.number("center")?.unwrap_or(0.0);
    let sigma = options.number("sigma")?.unwrap_or_else(|| deviation(&changes));
    if sigma < 0.0 {
        return Err(invalid("sigma is not below zero".to_owned()));
    }
    let mut steps_left = STEPS_MAX;
    for _ in 0..changes.len() {
        steps_left = steps_left.checked_sub(values.len()).ok_or_else(too_long)?;
        let worst = inner
            .clone()
            .map(|at| (at, change(&values, at) - center))
            .max_by(|one, other| one.1.abs().total_cmp(&other.1.abs()));
        let Some((at, off)) = worst.filter(|(_, off)| off.abs() > 3.0 * sigma) else { break };
        values[at] += off / (1.0 / seconds(at) + 1.0 / seconds(at - 1));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<'a>(times: &'a [i64], values: &'a [f64]) -> Pairs<'a> {
        Pairs { times, values, texts: &[] }
    }

    #[test]
    fn times_become_even_and_gaps_have_no_value() {
        let times = [0, 100, 199, 400, 500];
        let repaired =
            even_times(&pairs(&times, &[1.0, 2.0, 3.0, 5.0, 6.0]), &Options::of(&[], &[]).unwrap());
        let repaired = repaired.unwrap();
        assert_eq!(
            repaired.iter().map(|one| one.0).collect::<Vec<_>>(),
            [0, 100, 200, 300, 400, 500]
        );
        assert!(repaired[3].1.is_nan());
        assert_eq!(repaired[4].1, 5.0);
    }

    #[test]
    fn values_are_filled_by_each_method() {
        let times = [0, 10, 20, 30];
        let holes = [1.0, f64::NAN, f64::NAN, 4.0];
        let filled = |method| fill(&pairs(&times, &holes), method).unwrap()[2].1;
        assert_eq!(filled("linear"), 3.0);
        assert_eq!(filled("previous"), 1.0);
        assert_eq!(filled("mean"), 2.5);
        assert_eq!(filled("ma"), 2.5);
        assert!(fill(&pairs(&times, &holes), "magic").is_err());
    }

    #[test]
    fn a_spike_is_brought_back() {
        let times: Vec<i64> = (0..20).map(|at| at * 1_000_000_000).collect();
        let mut values: Vec<f64> = (0..20).map(f64::from).collect();
        values[10] = 90.0;
        for repaired in [
            screen(
                &pairs(&times, &values),
                &Options(BTreeMap::from([
                    ("min_speed".to_owned(), "-2".to_owned()),
                    ("max_speed".to_owned(), "2".to_owned()),
                ])),
            )
            .unwrap(),
            least_changes(&pairs(&times, &values), &Options(BTreeMap::new())).unwrap(),
        ] {
            assert!((repaired[10] - 10.0).abs() < 5.0, "{repaired:?}");
        }
    }
}
