//! When the node asks the operator's side for something again, so that no two devices of a fleet do it in
//! step: 100,000 that come back at once ask no more than twice as often as they always do (tests/sim plays
//! it), and a revocation is heard of within a minute all the same. Decides when, never what.

use std::time::Duration;

use rand::Rng;

use super::{Monotonic, Node, Policy, task::wait_after};
use crate::logic::{
    backoff::{anywhere_in, later_half_of, spread},
    infohash::Infohash,
    node::Phase,
};

/// Until a policy says otherwise.
const LIST_INTERVAL: Duration = Duration::from_secs(50);
const REPORT_INTERVAL: Duration = Duration::from_secs(900);
/// A server that holds the question is asked again almost at once: it has just waited.
const AFTER_HOLDING: Duration = Duration::from_secs(2);
/// It had news. A list that changes every second is not fetched every second.
const AFTER_NEWS: Duration = Duration::from_secs(10);
/// After a start, what is served already is announced within so many looks at the list: 20 minutes by
/// default, so that trackers are asked no more often than ever. They remember us for an hour.
const LOOKS_UNTIL_ANNOUNCED: u32 = 24;
/// First and longest wait after a failed enrolment, which somebody may have to do something about.
const ENROL_RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1800));
/// A tracker that answers nonsense is not asked more often than this.
const ANNOUNCE_INTERVAL_MIN: Duration = Duration::from_secs(5);
const ANNOUNCE_INTERVAL_MAX: Duration = Duration::from_secs(3600);

impl<R: Rng> Node<R> {
    /// A device that worked before the restart may be one of many that restart together: power is
    /// back in a region, or an update went round. One that is new is alone, and its owner watches.
    pub(super) fn begin_among_many(&mut self, start: Monotonic) {
        self.list_is_held = Some(false);
        let (list, report) = (self.list_interval(), self.report_interval());
        let tasks = [(&mut self.enrol, list), (&mut self.fetch, list), (&mut self.report, report)];
        for (task, interval) in tasks {
            if task.due.is_some() {
                task.due = Some(start + anywhere_in(interval, &mut self.rng));
            }
        }
    }

    /// There was a list. A new device asks again soon, to find out whether its questions are held.
    pub(super) fn look_after_news(&mut self, at: Monotonic) {
        let interval = self.list_interval();
        let wait = if self.list_is_held == Some(false) { interval } else { AFTER_NEWS };
        let wait = later_half_of(wait.min(interval), &mut self.rng);
        self.fetch.succeeded(at + wait);
    }

    pub(super) fn look_again(&mut self, at: Monotonic) {
        let interval = self.list_interval();
        let wait = match self.list_is_held {
            Some(true) => anywhere_in(AFTER_HOLDING.min(interval), &mut self.rng),
            _ => later_half_of(interval, &mut self.rng),
        };
        self.fetch.succeeded(at + wait);
    }

    pub(super) fn list_failed(&mut self, at: Monotonic) {
        let interval = self.list_interval();
        self.fetch.failed(at, interval, &mut self.rng);
    }

    pub(super) fn enrol_failed(&mut self, at: Monotonic) {
        let doubled = ENROL_RETRY.0.saturating_mul(1 << self.enrol.failures().min(16));
        self.enrol.failed(at, doubled.min(ENROL_RETRY.1), &mut self.rng);
    }

    /// The hub does not know us any more, and perhaps nobody else either.
    pub(super) fn forgotten(&mut self, at: Monotonic) {
        self.enrolled = false;
        let wait = anywhere_in(self.report_interval(), &mut self.rng);
        self.enrol.succeeded(at + wait);
    }

    pub(super) fn reported(&mut self, delivered: bool, at: Monotonic) {
        let interval = self.report_interval();
        match delivered {
            true => self.report.succeeded(at + spread(interval, &mut self.rng)),
            false => self.report.failed(at, interval, &mut self.rng),
        }
    }

    /// When to announce what was served before the restart.
    pub(super) fn first_announce(&mut self, at: Monotonic) -> Monotonic {
        at + anywhere_in(self.list_interval() * LOOKS_UNTIL_ANNOUNCED, &mut self.rng)
    }

    pub(super) fn announced(&mut self, infohash: Infohash, interval: Duration, at: Monotonic) {
        let interval = interval.clamp(ANNOUNCE_INTERVAL_MIN, ANNOUNCE_INTERVAL_MAX);
        let wait = spread(interval, &mut self.rng);
        if let Some(content) = self.contents.get_mut(&infohash)
            && content.phase == Phase::Serving
        {
            content.announced_before = true;
            content.announce_interval = Some(interval);
            content.announce_failures = 0;
            content.announce_at = Some(at + wait);
        }
    }

    pub(super) fn announce_failed(&mut self, infohash: Infohash, at: Monotonic) {
        let first = self.list_interval() * LOOKS_UNTIL_ANNOUNCED;
        if let Some(content) = self.contents.get_mut(&infohash)
            && content.phase == Phase::Serving
        {
            let interval = content.announce_interval.unwrap_or(first);
            let wait = wait_after(content.announce_failures, interval, &mut self.rng);
            content.announce_failures = content.announce_failures.saturating_add(1);
            content.announce_at = Some(at + wait);
        }
    }

    fn list_interval(&self) -> Duration {
        self.interval(LIST_INTERVAL, |p| p.list_interval_seconds)
    }

    fn report_interval(&self) -> Duration {
        self.interval(REPORT_INTERVAL, |p| p.report_interval_seconds)
    }

    fn interval(&self, default: Duration, field: impl Fn(&Policy) -> u32) -> Duration {
        let seconds = self.policy.as_ref().map(|p| u64::from(field(p)));
        seconds.map_or(default, Duration::from_secs)
    }
}
