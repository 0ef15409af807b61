//! `stats_agg(y, x)`: sums of two columns up to the fourth power, from which their statistics are read.
//!
//! The sums of powers are of the distances to the mean, and two groups' are joined without
//! cancellation: P. Pébay, "Formulas for Robust, One-Pass Parallel Computation of Covariances and
//! Arbitrary-Order Statistical Moments", SAND2008-6212. Skewness and kurtosis are the third and the fourth
//! moment over the power of the variance, not reduced by 3.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StructArray};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ScalarUDF, Signature, Volatility,
};

use super::accessors::{self, Accessor, computed, field};
use super::collected::{number, structure, structure_type};
use super::{as_number, no_such_call, state_fields};

const SUMS: [&str; 9] = ["sx", "sx2", "sx3", "sx4", "sy", "sy2", "sy3", "sy4", "sxy"];

pub(super) fn aggregate() -> AggregateUDF {
    AggregateUDF::from(StatsAgg { signature: Signature::user_defined(Volatility::Immutable) })
}

fn stats_type() -> DataType {
    let mut fields = vec![("n", DataType::UInt64)];
    fields.extend(SUMS.map(|name| (name, DataType::Float64)));
    structure_type(&fields)
}

pub(super) fn accessors() -> impl Iterator<Item = Arc<ScalarUDF>> {
    ACCESSORS.iter().map(accessors::scalar)
}

static ACCESSORS: [Accessor; 31] = [
    Accessor {
        name: "num_vals",
        of: ("stats_agg", stats_type),
        returns: || DataType::UInt64,
        read: |one| field(one, "n"),
    },
    of("average_x", |one| read(one, &["sx"], |n, s| ratio(s[0], n))),
    of("average_y", |one| read(one, &["sy"], |n, s| ratio(s[0], n))),
    of("sum_x", |one| read(one, &["sx"], |_, s| Some(s[0]))),
    of("sum_y", |one| read(one, &["sy"], |_, s| Some(s[0]))),
    of("var_samp_x", |one| read(one, &["sx2"], |n, s| ratio(s[0], n - 1.0))),
    of("var_samp_y", |one| read(one, &["sy2"], |n, s| ratio(s[0], n - 1.0))),
    of("var_pop_x", |one| read(one, &["sx2"], |n, s| ratio(s[0], n))),
    of("var_pop_y", |one| read(one, &["sy2"], |n, s| ratio(s[0], n))),
    of("stddev_samp_x", |one| read(one, &["sx2"], |n, s| ratio(s[0], n - 1.0).map(f64::sqrt))),
    of("stddev_samp_y", |one| read(one, &["sy2"], |n, s| ratio(s[0], n - 1.0).map(f64::sqrt))),
    of("stddev_pop_x", |one| read(one, &["sx2"], |n, s| ratio(s[0], n).map(f64::sqrt))),
    of("stddev_pop_y", |one| read(one, &["sy2"], |n, s| ratio(s[0], n).map(f64::sqrt))),
    of("skewness_samp_x", |one| read(one, &["sx3", "sx2"], |n, s| skewness(s, n - 1.0))),
    of("skewness_samp_y", |one| read(one, &["sy3", "sy2"], |n, s| skewness(s, n - 1.0))),
    of("skewness_pop_x", |one| read(one, &["sx3", "sx2"], |n, s| skewness(s, n))),
    of("skewness_pop_y", |one| read(one, &["sy3", "sy2"], |n, s| skewness(s, n))),
    of("kurtosis_samp_x", |one| read(one, &["sx4", "sx2"], |n, s| kurtosis(s, n - 1.0))),
    of("kurtosis_samp_y", |one| read(one, &["sy4", "sy2"], |n, s| kurtosis(s, n - 1.0))),
    of("kurtosis_pop_x", |one| read(one, &["sx4", "sx2"], |n, s| kurtosis(s, n))),
    of("kurtosis_pop_y", |one| read(one, &["sy4", "sy2"], |n, s| kurtosis(s, n))),
    of("correlation", |one| {
        read(one, &["sxy", "sx2", "sy2"], |_, s| ratio(s[0], (s[1] * s[2]).sqrt()))
    }),
    of("covariance_samp", |one| read(one, &["sxy"], |n, s| ratio(s[0], n - 1.0))),
    of("covariance_pop", |one| read(one, &["sxy"], |n, s| ratio(s[0], n))),
    of("determination_coeff", |one| {
        read(one, &["sxy", "sx2", "sy2"], |_, s| ratio(s[0] * s[0], s[1] * s[2]))
    }),
    of("slope", |one| read(one, &["sxy", "sx2"], |_, s| ratio(s[0], s[1]))),
    of("intercept", |one| read(one, &LINE, |n, s| Some(line(n, s)?.1))),
    of("x_intercept", |one| {
        read(one, &LINE, |n, s| {
            let (slope, intercept) = line(n, s)?;
            ratio(-intercept, slope)
        })
    }),
    of("variance_x", |one| read(one, &["sx2"], |n, s| ratio(s[0], n - 1.0))),
    of("variance_y", |one| read(one, &["sy2"], |n, s| ratio(s[0], n - 1.0))),
    of("covariance", |one| read(one, &["sxy"], |n, s| ratio(s[0], n - 1.0))),
];

const LINE: [&str; 4] = ["sxy", "sx2", "sx", "sy"];

const fn of(name: &'static str, read: fn(&StructArray) -> Result<ArrayRef>) -> Accessor {
    Accessor { name, of: ("stats_agg", stats_type), returns: || DataType::Float64, read }
}

/// Reads the count and some sums, and computes a number of them.
fn read(
    stats: &StructArray,
    names: &[&str],
    compute: fn(f64, &[f64]) -> Option<f64>,
) -> Result<ArrayRef> {
    let mut all = vec!["n"];
    all.extend(names);
    computed(stats, &all, |values| compute(values[0], &values[1..]))
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to != 0.0).then(|| of / to)
}

fn skewness(sums: &[f64], n: f64) -> Option<f64> {
    ratio(ratio(sums[0], n)?, ratio(sums[1], n)?.powf(1.5))
}

fn kurtosis(sums: &[f64], n: f64) -> Option<f64> {
    ratio(ratio(sums[0], n)?, ratio(sums[1], n)?.powi(2))
}

/// Returns slope and intercept of the line of least squares.
fn line(n: f64, sums: &[f64]) -> Option<(f64, f64)> {
    let slope = ratio(sums[0], sums[1])?;
    Some((slope, (sums[3] - slope * sums[2]) / n))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StatsAgg {
    signature: Signature,
}

impl AggregateUDFImpl for StatsAgg {
    fn name(&self) -> &'static str {
        "stats_agg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [y, x] if as_number(y).is_some() && as_number(x).is_some() => {
                Ok(vec![DataType::Float64; 2])
            }
            _ => no_such_call(self.name(), found, "(y, x)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(stats_type())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name, stats_type()))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Moments::default()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// A mean, and sums of the second to the fourth power of the distances to it.
#[derive(Clone, Copy, Debug, Default)]
struct Powers {
    mean: f64,
    sums: [f64; 3],
}

#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: f64,
    x: Powers,
    y: Powers,
    sxy: f64,
}

impl Powers {
    fn joined(self, own: f64, other: Self, others: f64) -> Self {
        let n = own + others;
        let delta = other.mean - self.mean;
        let ([a2, a3, a4], [b2, b3, b4]) = (self.sums, other.sums);
        let product = own * others;
        let second = a2 + b2 + delta.powi(2) * product / n;
        let third = a3
            + b3
            + delta.powi(3) * product * (own - others) / n.powi(2)
            + 3.0 * delta * (own * b2 - others * a2) / n;
        let fourth = a4
            + b4
            + delta.powi(4) * product * (own * own - product + others * others) / n.powi(3)
            + 6.0 * delta.powi(2) * (own * own * b2 + others * others * a2) / n.powi(2)
            + 4.0 * delta * (own * b3 - others * a3) / n;
        Self { mean: self.mean + delta * others / n, sums: [second, third, fourth] }
    }
}

impl Moments {
    fn join(&mut self, other: Self) {
        if self.n == 0.0 {
            *self = other;
            return;
        }
        let n = self.n + other.n;
        let (dx, dy) = (other.x.mean - self.x.mean, other.y.mean - self.y.mean);
        self.sxy += other.sxy + dx * dy * self.n * other.n / n;
        self.x = self.x.joined(self.n, other.x, other.n);
        self.y = self.y.joined(self.n, other.y, other.n);
        self.n = n;
    }
}

impl Accumulator for Moments {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (ys, xs) =
            (values[0].as_primitive::<Float64Type>(), values[1].as_primitive::<Float64Type>());
        for (y, x) in ys.iter().zip(xs) {
            if let (Some(y), Some(x)) = (y, x) {
                let point = |mean| Powers { mean, sums: [0.0; 3] };
                self.join(Self { n: 1.0, x: point(x), y: point(y), sxy: 0.0 });
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[0].as_primitive::<UInt64Type>();
        for row in 0..counts.len() {
            if counts.is_null(row) || counts.value(row) == 0 {
                continue;
            }
            let n = counts.value(row) as f64;
            let sum = |at: usize| states[at + 1].as_primitive::<Float64Type>().value(row);
            let powers = |at: usize| Powers {
                mean: sum(at) / n,
                sums: [sum(at + 1), sum(at + 2), sum(at + 3)],
            };
            self.join(Self { n, x: powers(0), y: powers(4), sxy: sum(8) });
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let Self { n, x, y, sxy } = *self;
        let mut state = vec![ScalarValue::UInt64(Some(n as u64))];
        for powers in [x, y] {
            state.push(number(powers.mean * n));
            state.extend(powers.sums.map(number));
        }
        state.push(number(sxy));
        Ok(state)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.n == 0.0 {
            return ScalarValue::try_from(&stats_type());
        }
        let names = std::iter::once("n").chain(SUMS);
        let named: Vec<(&str, ScalarValue)> = names.zip(self.state()?).collect();
        structure(&named)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_joined_are_the_moments_of_all() {
        let values: Vec<f64> = (0..40_u32).map(|at| f64::from(at * at % 17) - 3.5).collect();
        let point = |mean| Powers { mean, sums: [0.0; 3] };
        let of = |values: &[f64]| {
            let mut all = Moments::default();
            for x in values {
                all.join(Moments { n: 1.0, x: point(*x), y: point(x * 2.0), sxy: 0.0 });
            }
            all
        };
        let mut joined = of(&values[..13]);
        joined.join(of(&values[13..]));
        let mean = values.iter().sum::<f64>() / 40.0;
        for (power, sum) in [2, 3, 4].into_iter().zip(joined.x.sums) {
            let direct: f64 = values.iter().map(|x| (x - mean).powi(power)).sum();
            assert!((sum - direct).abs() < 1e-9 * direct.abs().max(1.0), "{power}: {sum}");
        }
        assert!((joined.sxy - 2.0 * joined.x.sums[0]).abs() < 1e-9);
    }
}
