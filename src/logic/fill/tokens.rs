//! A rate, kept by debt: bytes that are asked for are paid off over time, and nobody asks for more
//! before they are. Exact over any stretch longer than a quarter of a second.

use std::time::Duration;

use crate::logic::now::Monotonic;

/// What an idle moment may save up, as a part of a second's bytes.
const SAVED_PART: f64 = 0.25;

#[derive(Clone, Debug)]
pub struct Tokens {
    /// `None` is no limit.
    bytes_per_second: Option<u64>,
    /// Below zero it is a debt.
    bytes: f64,
    at: Monotonic,
}

impl Tokens {
    pub fn new(bytes_per_second: Option<u64>) -> Tokens {
        Tokens { bytes_per_second, bytes: 0.0, at: Monotonic::START }
    }

    pub fn set_rate(&mut self, bytes_per_second: Option<u64>, now: Monotonic) {
        self.refill(now);
        self.bytes_per_second = bytes_per_second;
        if bytes_per_second.is_none() {
            self.bytes = 0.0;
        }
    }

    /// These are asked for.
    pub fn spend(&mut self, bytes: u64, now: Monotonic) {
        self.refill(now);
        if self.bytes_per_second.is_some() {
            self.bytes -= bytes as f64;
        }
    }

    /// These did not come after all.
    pub fn refund(&mut self, bytes: u64) {
        if self.bytes_per_second.is_some() {
            self.bytes += bytes as f64;
        }
    }

    /// How long until nothing is owed.
    pub fn wait(&mut self, now: Monotonic) -> Duration {
        self.refill(now);
        match self.bytes_per_second {
            Some(rate) if self.bytes < 0.0 => {
                Duration::try_from_secs_f64(-self.bytes / rate.max(1) as f64)
                    .unwrap_or(Duration::MAX)
            }
            _ => Duration::ZERO,
        }
    }

    fn refill(&mut self, now: Monotonic) {
        let seconds = now.saturating_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if let Some(rate) = self.bytes_per_second {
            let rate = rate as f64;
            self.bytes = (self.bytes + rate * seconds).min(rate * SAVED_PART);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Monotonic {
        Monotonic(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn no_limit_never_waits() {
        let mut tokens = Tokens::new(None);
        tokens.spend(u64::MAX, at(1.0));
        assert_eq!(tokens.wait(at(1.0)), Duration::ZERO);
    }

    #[test]
    fn a_lower_rate_makes_the_same_debt_last_longer() {
        let mut tokens = Tokens::new(Some(1000));
        tokens.spend(1000, at(0.0));
        assert_eq!(tokens.wait(at(0.0)), Duration::from_secs(1));
        tokens.set_rate(Some(100), at(0.5));
        assert_eq!(tokens.wait(at(0.5)), Duration::from_secs(5));
        tokens.set_rate(None, at(0.5));
        assert_eq!(tokens.wait(at(0.5)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn over_time_the_rate_holds_and_is_used(
            rate in 1000u64..10_000_000, chunks in prop::collection::vec(1u64..65_536, 20..200),
        ) {
            let mut tokens = Tokens::new(Some(rate));
            let (mut now, mut sent) = (Duration::ZERO, 0u64);
            for chunk in chunks {
                tokens.spend(chunk, Monotonic(now));
                now += tokens.wait(Monotonic(now)) + Duration::from_nanos(1);
                sent += chunk;
            }
            let allowed = rate as f64 * now.as_secs_f64();
            prop_assert!(sent as f64 <= allowed * 1.001 + 1.0, "{sent} of {allowed}");
            prop_assert!(sent as f64 >= allowed * 0.999 - 1.0, "{sent} of {allowed}");
        }
    }
}
