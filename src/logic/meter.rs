//! A rate limit in the space of one moment: so many at once after a quiet time, so many a second for
//! ever. It counts whatever the caller counts, and reads no clock.

use std::time::Duration;

use super::now::Monotonic;

/// What a meter allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub at_once: u32,
    /// Never zero.
    pub per_second: u32,
}

impl Rate {
    /// How long `n` occupy the meter.
    fn time_of(self, n: u32) -> Duration {
        Duration::from_secs(u64::from(n)) / self.per_second.max(1)
    }
}

/// Starts quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// When everything taken so far is paid off at the rate, in nanoseconds: one for each connection
    /// and address, so it is kept small.
    booked_until: u64,
}

impl Meter {
    /// Takes all `n`, or nothing if they are too many.
    pub fn take(&mut self, n: u32, rate: Rate, now: Monotonic) -> bool {
        let booked = self.quiet_at().max(now) + rate.time_of(n);
        let fits = booked.saturating_since(now) <= rate.time_of(rate.at_once);
        if fits {
            self.book_until(booked);
        }
        fits
    }

    /// Takes as many of `n` as there is room for, and says how many.
    pub fn take_some(&mut self, n: u32, rate: Rate, now: Monotonic) -> u32 {
        let booked = self.quiet_at().saturating_since(now);
        let room = rate.time_of(rate.at_once).saturating_sub(booked);
        let whole = room.as_nanos() * u128::from(rate.per_second.max(1)) / 1_000_000_000;
        let taken = n.min(u32::try_from(whole).unwrap_or(u32::MAX));
        self.book_until(self.quiet_at().max(now) + rate.time_of(taken));
        taken
    }

    /// Makes room again for `n`, beyond what time brings.
    pub fn give_back(&mut self, n: u32, rate: Rate) {
        self.book_until(self.quiet_at() - rate.time_of(n));
    }

    /// From then on there is nothing to remember of it.
    pub fn quiet_at(&self) -> Monotonic {
        Monotonic(Duration::from_nanos(self.booked_until))
    }

    fn book_until(&mut self, at: Monotonic) {
        // Five hundred years of them fit.
        self.booked_until = u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { at_once: 5, per_second: 2 };

    fn at(millis: u64) -> Monotonic {
        Monotonic(Duration::from_millis(millis))
    }

    #[test]
    fn allows_a_burst_and_then_the_rate() {
        let mut meter = Meter::default();
        assert_eq!((0..9).filter(|_| meter.take(1, RATE, at(0))).count(), 5);
        assert!(!meter.take(1, RATE, at(499)));
        assert!(meter.take(1, RATE, at(500)));
        assert!(!meter.take(2, RATE, at(1_000)), "all or nothing");
        assert_eq!(meter.take_some(2, RATE, at(1_000)), 1);
        meter.give_back(3, RATE);
        assert_eq!(meter.take_some(9, RATE, at(1_000)), 3);
        assert_eq!(meter.quiet_at(), at(3_500));
    }

    proptest! {
        #[test]
        fn never_lets_more_through_in_any_window(
            steps in prop::collection::vec((0u64..2_000, 1u32..9, any::<bool>()), 1..200),
        ) {
            let (mut meter, mut now, mut taken) = (Meter::default(), 0, vec![]);
            for (wait, n, some) in steps {
                now += wait;
                let n = match some {
                    true => meter.take_some(n, RATE, at(now)),
                    false => if meter.take(n, RATE, at(now)) { n } else { 0 },
                };
                taken.push((now, u64::from(n)));
                for (i, (since, _)) in taken.iter().enumerate() {
                    let sum: u64 = taken[i..].iter().map(|(_, n)| n).sum();
                    prop_assert!(sum * 1000 <= 5_000 + 2 * (now - since));
                }
            }
        }
    }
}
