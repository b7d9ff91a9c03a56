//! The few statistics that reports use.

use oto_agent::evaluation::mean_return;

/// The arithmetic mean; 0 of nothing.
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}

/// The middle value, or the mean of both middle values.
pub fn median(x: &[f64]) -> f64 {
    quantile(x, 0.5)
}

/// Linear interpolation between order statistics.
pub fn quantile(x: &[f64], q: f64) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// The 95 % percentile bootstrap interval of the mean ([`mean_return`]), the same every time; NaN of nothing.
pub fn bootstrap_mean(x: &[f64]) -> (f64, f64) {
    mean_return(x, 0).map_or((f64::NAN, f64::NAN), |estimate| (estimate.low, estimate.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
        assert_eq!(mean(&[]), 0.0);
    }

    #[test]
    fn the_interval_holds_the_mean_and_narrows() {
        let few = [1.0, 2.0, 3.0, 4.0];
        let many = few.repeat(25);
        let (a, b) = (bootstrap_mean(&few), bootstrap_mean(&many));
        assert!(a.0 < 2.5 && 2.5 < a.1 && b.0 > a.0 && b.1 < a.1);
        assert_eq!(a, bootstrap_mean(&few));
        assert!(bootstrap_mean(&[]).0.is_nan());
    }
}
