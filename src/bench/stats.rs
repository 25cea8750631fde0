//! Statistics of measurements: percentiles, and how sure a ratio of two medians is.

use serde_json::{Value, json};

use super::make::mix;

/// Of a set of measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many there are.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The 5th percentile.
    pub p5: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of these measurements; none of none. Values that are not finite are left out.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Summary {
            n: sorted.len(),
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            min: *sorted.first()?,
            p5: percentile(&sorted, 5.0)?,
            p50: percentile(&sorted, 50.0)?,
            p90: percentile(&sorted, 90.0)?,
            p99: percentile(&sorted, 99.0)?,
            max: *sorted.last()?,
        })
    }

    /// As an object with a key for each part, rounded to 6 digits.
    pub fn json(&self) -> Value {
        json!({
            "p5": rounded(self.p5),
            "p50": rounded(self.p50),
            "p90": rounded(self.p90),
            "p99": rounded(self.p99),
            "mean": rounded(self.mean),
            "min": rounded(self.min),
            "max": rounded(self.max),
            "n": self.n,
        })
    }
}

/// To 6 significant digits, so that a row can be read.
pub fn rounded(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let scale = 10f64.powi(5 - x.abs().log10().floor() as i32);
    match scale.is_finite() && scale > 0.0 {
        true => (x * scale).round() / scale,
        false => x,
    }
}

/// The value below which `percent` of the sorted values lie, linearly between neighbours as NumPy
/// has it; none of none.
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = (percent / 100.0).clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let (a, b) = (sorted.get(below)?, sorted.get((below + 1).min(last))?);
    Some(a + (b - a) * (place - below as f64))
}

/// The median; none of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 50.0)
}

/// A ratio of medians, and the range in which it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The medians' ratio.
    pub value: f64,
    /// The 2.5th percentile of resampled ratios.
    pub low: f64,
    /// The 97.5th percentile of resampled ratios.
    pub high: f64,
}

/// How often measurements are drawn anew for a range.
const RESAMPLES: u64 = 2000;

impl Ratio {
    /// The median of `ours` over that of `theirs`, with a 95% range by the bootstrap (Efron, 1979):
    /// both sets are drawn anew, with replacement, many times. The draws are the same each time.
    /// None if a set is empty or its median is 0.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
        let quotient = |a: f64, b: f64| Some(a / b).filter(|ratio| ratio.is_finite());
        let value = quotient(median(ours)?, median(theirs)?)?;
        let mut state = 0u64;
        let mut drawn = |values: &[f64]| -> Vec<f64> {
            let draw = |_| {
                state = state.wrapping_add(1);
                let place = (mix(state.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32) as usize;
                values[(place * values.len()) >> 32]
            };
            (0..values.len()).map(draw).collect()
        };
        let mut ratios: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| quotient(median(&drawn(ours))?, median(&drawn(theirs))?))
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio {
            value,
            low: percentile(&ratios, 2.5)?,
            high: percentile(&ratios, 97.5)?,
        })
    }

    /// As an object.
    pub fn json(&self) -> Value {
        json!({
            "ratio": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        let sorted = [1.0, 2.0, 4.0, 8.0, 16.0];
        // numpy.percentile(sorted, [0, 5, 50, 90, 99, 100])
        for (percent, expected) in [
            (0.0, 1.0),
            (5.0, 1.2),
            (50.0, 4.0),
            (90.0, 12.8),
            (99.0, 15.68),
            (100.0, 16.0),
        ] {
            let found = percentile(&sorted, percent).unwrap();
            assert!((found - expected).abs() < 1e-9, "{percent}: {found}");
        }
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&[3.0], 99.0), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_summary_takes_values_in_any_order_and_leaves_out_what_is_no_number() {
        let summary = Summary::of(&[16.0, 1.0, f64::NAN, 8.0, 2.0, 4.0]).unwrap();
        assert_eq!((summary.n, summary.min, summary.max), (5, 1.0, 16.0));
        assert_eq!((summary.p50, summary.mean), (4.0, 6.2));
        assert_eq!(Summary::of(&[f64::INFINITY]), None);
        assert_eq!(summary.json()["p50"], 4.0);
    }

    #[test]
    fn numbers_are_rounded_to_six_digits() {
        for (x, expected) in [
            (1234567.8, 1234570.0),
            (0.00012345678, 0.000123457),
            (-2.0, -2.0),
            (0.0, 0.0),
        ] {
            assert!(
                (rounded(x) - expected).abs() <= expected.abs() * 1e-12,
                "{x}"
            );
        }
    }

    #[test]
    fn a_ratio_lies_in_its_range_and_the_range_narrows_with_agreement() {
        let noisy = |spread: f64| -> Vec<f64> {
            (0..15)
                .map(|i| 100.0 + spread * f64::from(i % 5 - 2))
                .collect()
        };
        let theirs = vec![50.0; 15];
        let (wide, narrow) = (
            Ratio::of(&noisy(10.0), &theirs).unwrap(),
            Ratio::of(&noisy(1.0), &theirs).unwrap(),
        );
        for ratio in [wide, narrow] {
            assert_eq!(ratio.value, 2.0);
            assert!(ratio.low <= 2.0 && 2.0 <= ratio.high, "{ratio:?}");
        }
        assert!(wide.high - wide.low > 5.0 * (narrow.high - narrow.low));
        assert_eq!(Ratio::of(&[], &theirs), None);
        assert_eq!(Ratio::of(&theirs, &[0.0]), None);
    }
}
