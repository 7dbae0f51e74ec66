//! Billing rules: what bytes are worth. The only place where money is rounded, and always down,
//! once per line, so that the device and the hub get the same sum from the same lines.

use super::units::{GB, Micros};

/// Price per decimal gigabyte, in micros.
pub fn per_gb(bytes: u64, price: Micros) -> Micros {
    let amount = u128::from(bytes) * u128::from(price.0) / u128::from(GB);
    Micros(u64::try_from(amount).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pays_per_gigabyte_rounding_down() {
        assert_eq!(per_gb(GB, Micros(100_000)), Micros(100_000));
        assert_eq!(per_gb(64 * 1024 * 1024, Micros(100_000)), Micros(6_710));
        assert_eq!(per_gb(9_999, Micros(100_000)), Micros(0));
        assert_eq!(per_gb(u64::MAX, Micros(u64::MAX)), Micros(u64::MAX));
    }
}
