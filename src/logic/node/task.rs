//! One of the node's recurring duties: when it is due, and how long to wait after a failure. Does
//! nothing itself.

use rand::Rng;

use super::HUB_RETRY;
use crate::logic::{backoff::Backoff, now::Monotonic};

/// Something done again and again: due at a time, or running.
#[derive(Debug)]
pub(super) struct Task {
    pub due: Option<Monotonic>,
    backoff: Backoff,
}

impl Task {
    pub fn due_at(due: Monotonic) -> Task {
        Task { due: Some(due), backoff: Backoff::new(HUB_RETRY.0, HUB_RETRY.1) }
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
        self.backoff.succeeded();
        self.due = Some(next);
    }

    pub fn failed(&mut self, now: Monotonic, rng: &mut impl Rng) {
        self.due = Some(now + self.backoff.failed(rng));
    }
}
