//! Turns an allowance into permits: how many wire bytes may leave now, or when to ask again.
//! Must never let more out, in any window of time, than `allowance × (window + slack) + one block`.
//!
//! It is a token bucket in exact integers. Its depth is one block, so that a block can leave whole,
//! and as much again as the allowance brings in the slack of its `Tempo`, so that the serving thread
//! can sleep for most of that and wake up late without loss of rate. What a burst of that size would do
//! to the household, the kernel keeps from happening: it paces each connection.

use std::time::Duration;

use super::{Allowance, MIN_SEGMENT_PAYLOAD_BYTES, Tempo};
use crate::logic::now::Monotonic;

/// A permit covers at most one block of 16 KiB with its 13-byte header; a larger request goes out in
/// several permits.
pub const MAX_GRANT_STREAM_BYTES: u32 = 16 * 1024 + 13;
/// The same over IPv6 in the smallest segments, headers included.
const MAX_GRANT_WIRE_BYTES: u64 = MAX_GRANT_STREAM_BYTES as u64
    + (MAX_GRANT_STREAM_BYTES.div_ceil(MIN_SEGMENT_PAYLOAD_BYTES) * 72) as u64;
/// Debts beyond this are forgiven: a figure of the kernel's that is wrong must not stop us for ever.
const DEBT_MAX: Duration = Duration::from_secs(1);

const NANOS: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The bytes are taken from the allowance; give back what did not leave.
    Granted,
    /// Ask again at this moment, not before.
    WaitUntil(Monotonic),
    /// Nothing may leave until the allowance changes.
    Paused,
}

#[derive(Clone, Debug)]
pub struct Pacer {
    allowance: Allowance,
    /// Byte-nanoseconds-per-second: bytes × 10^9, so that no rounding accumulates. Below zero is a debt.
    credit: i128,
    credited_at: Monotonic,
    spent_bytes: u64,
}

impl Pacer {
    /// Starts with a full bucket: the first block leaves at once.
    pub fn new(allowance: Allowance, now: Monotonic) -> Pacer {
        let mut pacer = Pacer { allowance, credit: 0, credited_at: now, spent_bytes: 0 };
        pacer.credit = pacer.depth();
        pacer
    }

    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Acts at once, in both directions. What a lower allowance's bucket cannot hold is forfeited.
    pub fn set_allowance(&mut self, allowance: Allowance, now: Monotonic) {
        self.refill(now);
        self.allowance = allowance;
        self.credit = self.credit.min(self.depth());
    }

    /// May `wire_bytes` leave now? More than a permit's maximum is never granted under a limit.
    pub fn take(&mut self, wire_bytes: u64, now: Monotonic) -> Permit {
        let rate = match self.allowance {
            Allowance::Unlimited => {
                self.spent_bytes += wire_bytes;
                return Permit::Granted;
            }
            Allowance::Paused | Allowance::BytesPerSecond(0) => return Permit::Paused,
            Allowance::BytesPerSecond(rate) => rate,
        };
        debug_assert!(wire_bytes <= MAX_GRANT_WIRE_BYTES, "permits are for single blocks");
        self.refill(now);
        let wanted = i128::from(wire_bytes) * NANOS;
        if self.credit >= wanted {
            self.credit -= wanted;
            self.spent_bytes += wire_bytes;
            return Permit::Granted;
        }
        let missing = wanted.max(self.batch(rate)) - self.credit;
        let nanos = missing.unsigned_abs().div_ceil(u128::from(rate));
        Permit::WaitUntil(now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Part of a permit that the socket had no room for: others may have it.
    pub fn give_back(&mut self, wire_bytes: u64) {
        self.spent_bytes = self.spent_bytes.saturating_sub(wire_bytes);
        self.credit = (self.credit + i128::from(wire_bytes) * NANOS).min(self.depth());
    }

    /// For what leaves without a permit, as the kernel's retransmissions do: it counts, and what
    /// follows waits for it.
    pub fn spend(&mut self, wire_bytes: u64) {
        self.spent_bytes += wire_bytes;
        let Allowance::BytesPerSecond(rate) = self.allowance else { return };
        let debt_max = -in_nanos(rate, DEBT_MAX);
        self.credit = (self.credit - i128::from(wire_bytes) * NANOS).max(debt_max);
    }

    /// Wire bytes that have left since the start.
    pub fn spent_bytes(&self) -> u64 {
        self.spent_bytes
    }

    fn refill(&mut self, now: Monotonic) {
        let elapsed = now.saturating_since(self.credited_at);
        self.credited_at = self.credited_at.max(now);
        if let Allowance::BytesPerSecond(rate) = self.allowance {
            let credit = self.credit.saturating_add(in_nanos(rate, elapsed));
            self.credit = credit.min(self.depth());
        }
    }

    /// What is worth waking for: as many whole blocks as fit when the wake-up is late.
    fn batch(&self, rate: u64) -> i128 {
        let block = i128::from(MAX_GRANT_WIRE_BYTES) * NANOS;
        ((self.depth() - in_nanos(rate, Tempo::at(rate).lateness())) / block).max(1) * block
    }

    fn depth(&self) -> i128 {
        let slack = match self.allowance {
            Allowance::BytesPerSecond(rate) => in_nanos(rate, Tempo::at(rate).slack()),
            Allowance::Paused | Allowance::Unlimited => 0,
        };
        i128::from(MAX_GRANT_WIRE_BYTES) * NANOS + slack
    }
}

/// What a rate brings in a time, in the unit of the credit.
fn in_nanos(rate: u64, time: Duration) -> i128 {
    let nanos = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
    i128::from(rate).saturating_mul(nanos)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = MAX_GRANT_WIRE_BYTES;

    fn at(micros: u64) -> Monotonic {
        Monotonic(Duration::from_micros(micros))
    }

    /// Sends whatever is allowed in steps that are up to `late` late; returns (when, bytes).
    fn send_all(rate: u64, until: Monotonic, late: Duration, size: u64) -> Vec<(Monotonic, u64)> {
        let mut now = Monotonic::START;
        let mut pacer = Pacer::new(Allowance::BytesPerSecond(rate), now);
        let mut sent = vec![];
        while now < until {
            match pacer.take(size, now) {
                Permit::Granted => sent.push((now, size)),
                Permit::WaitUntil(t) => {
                    assert!(t > now, "a wait is in the future");
                    now = t + late;
                }
                Permit::Paused => unreachable!("never paused"),
            }
        }
        sent
    }

    fn bound(rate: u64, window: Duration) -> u128 {
        let slack = Tempo::at(rate).slack();
        (u128::from(rate) * (window + slack).as_nanos()).div_ceil(1_000_000_000) + u128::from(BLOCK)
    }

    #[test]
    fn reaches_the_limit_though_timers_are_late() {
        for rate in [100_000, 1_250_000, 4_000_000, 10 << 20, 100_000_000] {
            let seconds = 20;
            let late = Tempo::at(rate).lateness() * 9 / 10;
            let sent = send_all(rate, at(seconds * 1_000_000), late, BLOCK);
            let total: u64 = sent.iter().map(|s| s.1).sum();
            let share = total as f64 / (rate * seconds) as f64;
            assert!((0.99..1.015).contains(&share), "{rate}: {share}");
        }
    }

    #[test]
    fn on_a_slow_line_no_two_blocks_leave_together() {
        for rate in [20_000, 1_000_000, 4_000_000] {
            let sent = send_all(rate, at(5_000_000), Duration::from_micros(900), BLOCK);
            let block = Duration::from_micros(BLOCK * 1_000_000 / rate);
            let closest = sent.windows(2).map(|w| w[1].0.saturating_since(w[0].0)).min();
            assert!(closest.expect("two were sent") + Tempo::Turns.slack() >= block, "{rate}");
        }
    }

    #[test]
    fn pauses_and_resumes_at_once() {
        let mut pacer = Pacer::new(Allowance::BytesPerSecond(1000), at(0));
        assert_eq!(pacer.take(BLOCK, at(0)), Permit::Granted);
        pacer.set_allowance(Allowance::Paused, at(10));
        assert_eq!(pacer.take(1, at(1_000_000_000)), Permit::Paused);
        pacer.set_allowance(Allowance::BytesPerSecond(0), at(1_000_000_000));
        assert_eq!(pacer.take(1, at(1_000_000_000)), Permit::Paused);
        pacer.set_allowance(Allowance::BytesPerSecond(1_000_000), at(1_000_000_000));
        assert!(matches!(pacer.take(1000, at(1_000_000_000)), Permit::WaitUntil(_)));
        assert_eq!(pacer.take(1000, at(1_000_001_000)), Permit::Granted);
        pacer.set_allowance(Allowance::Unlimited, at(1_000_001_000));
        assert_eq!(pacer.take(1 << 40, at(1_000_001_000)), Permit::Granted);
        pacer.give_back((1 << 40) - 7);
        pacer.spend(3);
        assert_eq!(pacer.spent_bytes(), BLOCK + 1000 + 7 + 3);
    }

    #[test]
    fn what_left_without_a_permit_is_paid_back_first() {
        let mut pacer = Pacer::new(Allowance::BytesPerSecond(100_000), at(0));
        pacer.spend(2 * BLOCK);
        let Permit::WaitUntil(then) = pacer.take(1000, at(0)) else { panic!("in debt") };
        assert_eq!(pacer.take(1000, then), Permit::Granted);
        assert!(then >= at((BLOCK - 3000) * 10), "{then:?}");
        // But not for ever.
        pacer.spend(u64::MAX / 2);
        assert_eq!(pacer.take(1000, then + Duration::from_millis(1_020)), Permit::Granted);
    }

    #[test]
    fn a_higher_allowance_shortens_the_wait_that_was_told_before() {
        let mut pacer = Pacer::new(Allowance::BytesPerSecond(10_000), at(0));
        while pacer.take(BLOCK, at(0)) == Permit::Granted {}
        let Permit::WaitUntil(before) = pacer.take(BLOCK, at(0)) else { panic!("empty") };
        pacer.set_allowance(Allowance::BytesPerSecond(10_000_000), at(0));
        let Permit::WaitUntil(after) = pacer.take(BLOCK, at(0)) else { panic!("still empty") };
        assert!(after < at(50_000) && before > at(1_000_000));
        assert_eq!(pacer.take(BLOCK, after), Permit::Granted);
    }

    proptest! {
        #[test]
        fn never_exceeds_the_allowance_in_any_window(
            rate in 1u64..200_000_000,
            steps in prop::collection::vec((0u64..30_000, 1u64..=BLOCK, 0u64..=100), 1..120),
        ) {
            let mut now = Monotonic::START;
            let mut pacer = Pacer::new(Allowance::BytesPerSecond(rate), now);
            let mut sent: Vec<(Monotonic, u64)> = vec![];
            for (micros, wanted, back_percent) in steps {
                now = now + Duration::from_micros(micros);
                while sent.len() < 300 && pacer.take(wanted, now) == Permit::Granted {
                    let back = wanted * back_percent / 100;
                    pacer.give_back(back);
                    sent.push((now, wanted - back));
                    if back == wanted { break; }
                }
            }
            for (i, (start, _)) in sent.iter().enumerate() {
                let mut inside = 0u128;
                for (end, bytes) in &sent[i..] {
                    inside += u128::from(*bytes);
                    prop_assert!(inside <= bound(rate, end.saturating_since(*start)));
                }
            }
        }

        /// The window bound holds across changes of the limit, with the area under the limits.
        #[test]
        fn never_exceeds_a_changing_allowance(
            steps in prop::collection::vec((1u64..50_000, 1u64..20_000_000), 1..60),
        ) {
            let mut now = Monotonic::START;
            let mut pacer = Pacer::new(Allowance::BytesPerSecond(steps[0].1), now);
            let (mut sent, mut area, mut peak) = (0u128, 0u128, 0u64);
            for (micros, rate) in steps {
                pacer.set_allowance(Allowance::BytesPerSecond(rate), now);
                peak = peak.max(rate);
                for _ in 0..4 {
                    now = now + Duration::from_micros(micros);
                    area += u128::from(rate) * u128::from(micros) * 1000;
                    while pacer.take(BLOCK, now) == Permit::Granted {
                        sent += u128::from(BLOCK);
                    }
                    prop_assert!(sent <= area.div_ceil(1_000_000_000) + bound(peak, Duration::ZERO));
                }
            }
        }
    }
}
