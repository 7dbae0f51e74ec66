//! How long to wait before asking again: exponential with full jitter, so that a fleet that lost
//! its hub does not come back in step.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Doubles from `first` to `longest`; each wait is drawn uniformly from [0, bound].
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, failures: 0 }
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts one failure and says how long to wait after it.
    pub fn failed(&mut self, rng: &mut impl Rng) -> Duration {
        let bound = self.first.saturating_mul(1u32 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rng.random::<f64>())
    }
}

/// A regular interval, spread by ±10 % so that devices started together drift apart.
pub fn spread(interval: Duration, rng: &mut impl Rng) -> Duration {
    interval.mul_f64(0.9 + 0.2 * rng.random::<f64>())
}

/// Anywhere within an interval: for many who would otherwise all begin at one moment.
pub fn anywhere_in(interval: Duration, rng: &mut impl Rng) -> Duration {
    interval.mul_f64(rng.random::<f64>())
}

/// Before an interval is over, but not in its first half: for what must be heard of within it. Drawn so
/// widely that two rounds of a fleet that began together never fall on top of each other.
pub fn later_half_of(interval: Duration, rng: &mut impl Rng) -> Duration {
    interval.mul_f64(0.5 + 0.5 * rng.random::<f64>())
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn waits_longer_up_to_the_bound_and_forgets_on_success() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<_> = (0..40).map(|_| backoff.failed(&mut rng)).collect();
        assert!(waits[0] <= Duration::from_secs(1));
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(60)));
        assert!(waits[10..].iter().any(|w| *w > Duration::from_secs(30)));
        backoff.succeeded();
        assert!(backoff.failed(&mut rng) <= Duration::from_secs(1));
    }
}
