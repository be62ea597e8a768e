//! Statistics: percentiles, medians, and the clock of the timestamps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, the clock of all timestamps.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    micros(since)
}

/// Returns a duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Median, 95th and 99th percentile of times, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Spread {
    /// Computes the percentiles of times in microseconds.
    pub(crate) fn from_micros(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |share: f64| percentile(&times, share) / 1000.0;
        Self { count: times.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
fn percentile(sorted: &[u64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (float(last) * share).round() as usize;
    sorted.get(at).map_or(f64::NAN, |&value| float(value))
}

/// Returns the middle value, or the mean of the two middle values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Converts a count to a float.
#[expect(clippy::cast_precision_loss, reason = "counts and microseconds are far below 2^53")]
pub(crate) fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::{Spread, median};

    #[test]
    fn median_and_percentiles_of_unsorted_values_are_exact() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, f64::NAN]) - 2.5).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
        let spread = Spread::from_micros((1..=1000).rev().collect());
        assert_eq!((spread.count, spread.p50, spread.p99), (1000, 0.501, 0.990));
    }
}
