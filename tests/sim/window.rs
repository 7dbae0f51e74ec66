//! Holds what left against what was allowed to leave. Knows nothing of how the governor does it: a
//! bucket that leaks at the allowance and must never hold more than its bound holds the bound for
//! every window at once.

use std::time::Duration;

use larder::logic::{governor::Tempo, now::Monotonic};

/// A block of 16 KiB with its header, over IPv6 in segments of 512 bytes: the largest permit.
const BLOCK_WIRE_BYTES: u64 = 16 * 1024 + 13 + 33 * 72;
const NANOS: u128 = 1_000_000_000;

#[derive(Debug)]
pub struct Window {
    allowance: u64,
    /// The most so far that an allowance brings in its slack: credited under it, it may leave after it.
    ahead: u128,
    /// Bytes × 10⁹.
    level: u128,
    at: Monotonic,
    pub total: u64,
    /// Bytes that would have been allowed to leave.
    area: u128,
}

impl Window {
    pub fn new(allowance: u64) -> Window {
        let at = Monotonic::START;
        Window { allowance, ahead: ahead(allowance), level: 0, at, total: 0, area: 0 }
    }

    pub fn set_allowance(&mut self, allowance: u64, now: Monotonic) {
        self.leak(now);
        self.allowance = allowance;
        self.ahead = self.ahead.max(ahead(allowance));
    }

    /// Panics if it is more than may leave in any window that ends now.
    pub fn sent(&mut self, wire_bytes: u64, now: Monotonic) {
        self.leak(now);
        self.total += wire_bytes;
        self.level += u128::from(wire_bytes) * NANOS;
        let bound = self.ahead + u128::from(BLOCK_WIRE_BYTES) * NANOS;
        assert!(
            self.level <= bound,
            "{} bytes above the allowance of {} at {:?}",
            (self.level - bound) / NANOS,
            self.allowance,
            now.0
        );
    }

    /// The share of what was allowed that was used.
    pub fn used(&mut self, now: Monotonic) -> f64 {
        self.leak(now);
        (u128::from(self.total) * NANOS) as f64 / self.area as f64
    }

    fn leak(&mut self, now: Monotonic) {
        let elapsed: Duration = now.saturating_since(self.at);
        self.at = now;
        let leaked = elapsed.as_nanos() * u128::from(self.allowance);
        self.area += leaked;
        self.level = self.level.saturating_sub(leaked);
    }
}

fn ahead(allowance: u64) -> u128 {
    u128::from(allowance) * Tempo::at(allowance).slack().as_nanos()
}

#[test]
#[should_panic(expected = "above the allowance")]
fn a_burst_above_the_bound_is_seen() {
    let mut window = Window::new(1_000_000);
    for _ in 0..5 {
        window.sent(16_384, Monotonic::START);
    }
}

#[test]
#[should_panic(expected = "above the allowance")]
fn a_rate_one_percent_above_is_seen_in_the_end() {
    let mut window = Window::new(1_000_000);
    for ms in 0..10_000 {
        window.sent(1_010, Monotonic(Duration::from_millis(ms)));
    }
}
