//! One of the node's recurring duties: when it is due, and how long to wait after a failure. Does
//! nothing itself.

use std::time::Duration;

use rand::Rng;

use crate::logic::{
    backoff::{anywhere_in, later_half_of},
    now::Monotonic,
};

/// Something done again and again: due at a time, or running.
#[derive(Debug)]
pub(super) struct Task {
    pub due: Option<Monotonic>,
    failures: u32,
}

impl Task {
    pub fn due_at(due: Monotonic) -> Task {
        Task { due: Some(due), failures: 0 }
    }

    /// True once, when it is time.
    pub fn take_due(&mut self, now: Monotonic) -> bool {
        let due = self.due.is_some_and(|at| at <= now);
        if due {
            self.due = None;
        }
        due
    }

    pub fn succeeded(&mut self, next: Monotonic) {
        self.failures = 0;
        self.due = Some(next);
    }

    /// `interval` is the one that holds when all is well.
    pub fn failed(&mut self, now: Monotonic, interval: Duration, rng: &mut impl Rng) {
        self.due = Some(now + wait_after(self.failures, interval, rng));
        self.failures = self.failures.saturating_add(1);
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// How long to wait after a failure that came after so many others. Those who failed together are drawn
/// apart at once, over the whole interval, and from then on ask hardly more often than when all is well:
/// a fleet that lost its hub is no burden when the hub comes back, and still hears of news in time.
pub(super) fn wait_after(failures: u32, interval: Duration, rng: &mut impl Rng) -> Duration {
    match failures {
        0 => anywhere_in(interval, rng),
        _ => later_half_of(interval, rng),
    }
}
