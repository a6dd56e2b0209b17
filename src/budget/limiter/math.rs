//! Powers and logarithms without the system's mathematics library, which would cost every program
//! half a megabyte of memory. The results are exact to eleven digits.

use std::f64::consts::{LN_2, LOG2_E};

/// Returns e to the power of `x`.
pub(super) fn exp(x: f64) -> f64 {
    exp2(x * LOG2_E)
}

/// Returns 2 to the power of `x`.
pub(super) fn exp2(x: f64) -> f64 {
    // The rest beside the nearest integer, by the series of the hyperbolic cosine and sine.
    let nearest = (x + 0.5f64.copysign(x)) as i32;
    let rest = (x - f64::from(nearest)) * LN_2;
    let square = rest * rest;
    let sum = |series: &[f64]| series.iter().rev().fold(0.0, |sum, c| sum * square + c);
    let power = sum(&COSINE) + rest * sum(&SINE);
    match nearest {
        0 => power,
        _ => power * 2f64.powi(nearest),
    }
}

/// Returns the natural logarithm of 1 + `x`, for an `x` of at least 0.
pub(super) fn ln_1p(x: f64) -> f64 {
    // 1 + `x` is halved until it is below 2; the rest, by the series of the area tangent.
    let (mut x, mut halvings) = (x, 0);
    while x >= 1.0 && halvings < MAX_EXPONENT {
        x = (x - 1.0) / 2.0;
        halvings += 1;
    }
    let z = x / (2.0 + x);
    let series = (0..AREA_TANGENT_TERMS)
        .rev()
        .fold(0.0, |sum, n| sum * z * z + 1.0 / f64::from(2 * n + 1));
    2.0 * z * series + f64::from(halvings) * LN_2
}

/// Seconds per minute, the unit of all limits.
pub(super) const SECONDS_PER_MINUTE: f64 = 60.0;

/// No `f64` can be halved more often before it is below 2.
const MAX_EXPONENT: u32 = 1_024;

/// Terms of the series of the area tangent; the next one is below 1e-11.
const AREA_TANGENT_TERMS: u32 = 11;

/// The series of the hyperbolic cosine: one by the factorials of 0, 2, 4 and so on.
const COSINE: [f64; 6] = [
    1.0,
    1.0 / 2.0,
    1.0 / 24.0,
    1.0 / 720.0,
    1.0 / 40_320.0,
    1.0 / 3_628_800.0,
];

/// The series of the hyperbolic sine: one by the factorials of 1, 3, 5 and so on.
const SINE: [f64; 5] = [1.0, 1.0 / 6.0, 1.0 / 120.0, 1.0 / 5_040.0, 1.0 / 362_880.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(x: f64, ours: f64, system: f64) {
        let far = (ours - system).abs() / system.abs().max(f64::MIN_POSITIVE);
        assert!(far < 1e-11 || ours == system, "{x}: {ours} is not {system}");
    }

    #[test]
    fn functions_match_the_system_library() {
        for i in -4_000..=4_000 {
            let x = f64::from(i) * 0.017;
            close(x, exp(x), x.exp());
            close(x, exp2(x), x.exp2());
            close(x.abs(), ln_1p(x.abs()), x.abs().ln_1p());
        }
        for x in [1e-9, 1e-3, 0.999_999, 1.0, 1e6, 1e300] {
            close(x, ln_1p(x), x.ln_1p());
        }
    }

    #[test]
    fn extreme_arguments_give_limits() {
        assert_eq!(exp2(0.0), 1.0);
        assert_eq!(exp2(1e12), f64::INFINITY);
        assert_eq!(exp(-1e12), 0.0);
        assert_eq!(exp2(-2_000.0), 0.0);
        assert_eq!(ln_1p(0.0), 0.0);
        assert!(ln_1p(f64::MAX) > 700.0);
    }
}
