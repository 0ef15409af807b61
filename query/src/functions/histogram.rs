//! `histogram_quantile(le, count, q)`: a quantile from the cumulative buckets of a histogram.
//!
//! As Prometheus computes it: counts of one bound are summed; within a bucket values are taken as evenly
//! spread; in the last, unbounded one the answer is its lower bound; the first begins at zero where
//! its bound is above zero.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};

use super::collected::{Definition, Key, Pairs, Value, key_number};
use crate::error::Error;

pub(super) static AGGREGATES: [Definition; 1] = [Definition {
    name: "histogram_quantile",
    key: Key::Number,
    value: Value::Number,
    options: (1, 1),
    usage: "(le, count, q)",
    returns: || DataType::Float64,
    finish: |pairs, options| {
        let q = match options[0].cast_to(&DataType::Float64)? {
            ScalarValue::Float64(Some(q)) if (0.0..=1.0).contains(&q) => q,
            _ => return Err(Error::new("22023", "a quantile is between 0 and 1").into()),
        };
        quantile(pairs, q)
    },
}];

fn quantile(pairs: &Pairs<'_>, q: f64) -> Result<ScalarValue> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (key, count) in pairs.times.iter().zip(pairs.values) {
        let bound = key_number(*key);
        match buckets.last_mut() {
            Some(last) if last.0 == bound => last.1 += count,
            _ => buckets.push((bound, *count)),
        }
    }
    Ok(ScalarValue::Float64(of_buckets(&buckets, q)))
}

fn of_buckets(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let (last_bound, total) = *buckets.last()?;
    if buckets.len() < 2 || last_bound != f64::INFINITY || total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    if at + 1 == buckets.len() {
        return Some(buckets[at - 1].0);
    }
    let (bound, count) = buckets[at];
    if at == 0 {
        return Some(if bound <= 0.0 { bound } else { bound * rank / count });
    }
    let (start, before) = buckets[at - 1];
    Some(start + (bound - start) * (rank - before) / (count - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = [(0.1, 10.0), (0.5, 30.0), (1.0, 40.0), (f64::INFINITY, 50.0)];
        assert_eq!(of_buckets(&buckets, 0.5), Some(0.1 + 0.4 * 15.0 / 20.0));
        assert_eq!(of_buckets(&buckets, 0.1), Some(0.05));
        assert_eq!(of_buckets(&buckets, 0.99), Some(1.0));
        assert_eq!(of_buckets(&buckets[..3], 0.5), None, "without +Inf nobody knows the total");
    }
}
