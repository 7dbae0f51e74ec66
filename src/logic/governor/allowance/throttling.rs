//! Notices that the line carries far less than it did although peers wait and the allowance is there,
//! as when a provider punishes uploads: stop, and try again after waits that grow. Judges only what we
//! tried to send; a quiet device learns nothing and accuses nobody.

use std::time::Duration;

use crate::logic::{choke::SLOTS_MIN, now::Monotonic};

/// One slow reader is no throttled line; so many at once point at what they share. No more than the
/// choker has slots at the lowest allowance, or a slow line would never be judged.
pub const PEERS_WAITING_MIN: u32 = SLOTS_MIN;
/// Demand is judged by the minute: TCP needs several seconds to find its pace.
const SAMPLE: Duration = Duration::from_secs(60);
/// Counters that come later than this (a machine that slept) prove nothing.
const LATENESS_MAX: Duration = Duration::from_secs(5);
/// Below a quarter of what the line has shown, and of what was allowed, a minute counts as collapsed.
const COLLAPSE: u64 = 4;
/// A line that never carried 64 KiB/s has nowhere to collapse from.
const ACHIEVABLE_MIN: u64 = 64 * 1024;
/// So many collapsed minutes in a row are sustained; a bad evening of Wi-Fi is shorter.
const COLLAPSED_MINUTES: u32 = 10;
/// After a wait, three tell.
const COLLAPSED_MINUTES_TRYING: u32 = 3;
/// So many good minutes in a row, and the next stop is a short one again.
const GOOD_MINUTES: u32 = 10;
const WAIT_FIRST: Duration = Duration::from_secs(15 * 60);
const WAIT_LONGEST: Duration = Duration::from_secs(6 * 3600);
/// What the line can do is forgotten by this part a minute of demand: half of it in twelve hours, so
/// that a cheaper contract is not taken for a punishment for ever.
const FORGET: u64 = 1024;

/// What was seen since the last time.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub egress_bytes: u64,
    /// Peers that have asked for blocks which they do not have yet.
    pub peers_waiting: u32,
    /// In bytes per second, of everything but this detector.
    pub allowed: u64,
}

#[derive(Clone, Debug)]
pub struct Throttling {
    seen_at: Option<Monotonic>,
    sample: Sample,
    /// Bytes per second, in a minute of demand: the most, slowly forgotten.
    achievable: u64,
    collapsed: u32,
    good: u32,
    stopped_until: Option<Monotonic>,
    /// The next stop's length.
    wait: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    time: Duration,
    egress_bytes: u64,
    /// Byte-microseconds per second.
    allowed: u128,
}

impl Throttling {
    pub fn new() -> Throttling {
        Throttling {
            seen_at: None,
            sample: Sample::default(),
            achievable: 0,
            collapsed: 0,
            good: 0,
            stopped_until: None,
            wait: WAIT_FIRST,
        }
    }

    pub fn handle_seen(&mut self, seen: Seen, now: Monotonic) {
        let since = self.seen_at.replace(now).map(|then| now.saturating_since(then));
        let Some(elapsed) = since.filter(|elapsed| *elapsed <= LATENESS_MAX) else { return };
        let demand = seen.peers_waiting >= PEERS_WAITING_MIN && seen.allowed > 0;
        if self.is_stopped() || !demand {
            return;
        }
        self.sample.time += elapsed;
        self.sample.egress_bytes = self.sample.egress_bytes.saturating_add(seen.egress_bytes);
        self.sample.allowed += u128::from(seen.allowed) * elapsed.as_micros();
        if self.sample.time >= SAMPLE {
            self.judge(now);
        }
    }

    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.stopped_until.is_some_and(|until| until <= now) {
            self.stopped_until = None;
        }
    }

    pub fn poll_timeout(&self) -> Option<Monotonic> {
        self.stopped_until
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped_until.is_some()
    }

    fn judge(&mut self, now: Monotonic) {
        let sample = std::mem::take(&mut self.sample);
        let micros = sample.time.as_micros().max(1);
        let rate = u128::from(sample.egress_bytes) * 1_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let allowed = u64::try_from(sample.allowed / micros).unwrap_or(u64::MAX);
        let expected = self.achievable.min(allowed);
        if self.achievable >= ACHIEVABLE_MIN && rate < expected / COLLAPSE {
            self.good = 0;
            self.collapsed += 1;
            let trying = self.wait > WAIT_FIRST;
            let enough = if trying { COLLAPSED_MINUTES_TRYING } else { COLLAPSED_MINUTES };
            if self.collapsed >= enough {
                self.stopped_until = Some(now + self.wait);
                self.wait = (self.wait * 2).min(WAIT_LONGEST);
                self.collapsed = 0;
            }
            return;
        }
        self.collapsed = 0;
        self.good += 1;
        if self.good >= GOOD_MINUTES {
            self.wait = WAIT_FIRST;
        }
        self.achievable = (self.achievable - self.achievable / FORGET).max(rate);
    }
}

impl Default for Throttling {
    fn default() -> Self {
        Throttling::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u64 = 2_000_000;

    struct Line {
        throttling: Throttling,
        now: Monotonic,
    }

    impl Line {
        fn new() -> Line {
            Line { throttling: Throttling::new(), now: Monotonic::START }
        }

        /// A minute at a time; true when it ended stopped.
        fn minutes(&mut self, minutes: u32, egress_bytes: u64, peers_waiting: u32) -> bool {
            for _ in 0..minutes * 60 {
                self.now = self.now + Duration::from_secs(1);
                self.throttling.handle_timeout(self.now);
                let seen = Seen { egress_bytes, peers_waiting, allowed: ALLOWED };
                self.throttling.handle_seen(seen, self.now);
            }
            self.throttling.is_stopped()
        }

        /// Lets a stop pass, and says how long it was.
        fn wait(&mut self) -> Duration {
            let until = self.throttling.poll_timeout().expect("it is stopped");
            let wait = until.saturating_since(self.now);
            self.now = until;
            self.throttling.handle_timeout(until);
            assert!(!self.throttling.is_stopped());
            // The first counters after a stop are late and prove nothing.
            wait
        }
    }

    #[test]
    fn stops_after_a_sustained_collapse_and_waits_longer_each_time() {
        let mut line = Line::new();
        assert!(!line.minutes(20, ALLOWED, 8));
        assert!(!line.minutes(9, 100_000, 8));
        assert!(line.minutes(2, 100_000, 8));
        let mut waits = vec![line.wait()];
        for _ in 0..6 {
            while !line.minutes(1, 100_000, 8) {}
            waits.push(line.wait());
        }
        let minutes: Vec<u64> = waits.iter().map(|w| w.as_secs() / 60 + 1).collect();
        assert_eq!(minutes, [15, 30, 60, 120, 240, 360, 360]);
    }

    #[test]
    fn is_quick_to_trust_a_line_that_recovered() {
        let mut line = Line::new();
        line.minutes(20, ALLOWED, 8);
        assert!(line.minutes(11, 100_000, 8));
        line.wait();
        assert!(!line.minutes(15, ALLOWED, 8));
        assert!(!line.minutes(9, 100_000, 8), "as patient as at first");
        assert!(line.minutes(2, 100_000, 8));
        assert!(line.wait() <= WAIT_FIRST);
    }

    #[test]
    fn accuses_nobody_without_demand_or_with_a_few_slow_readers() {
        let mut line = Line::new();
        line.minutes(20, ALLOWED, 8);
        assert!(!line.minutes(120, 0, 0));
        assert!(!line.minutes(120, 1000, PEERS_WAITING_MIN - 1));
    }

    #[test]
    fn a_slow_line_or_a_low_allowance_is_no_collapse() {
        let mut slow = Line::new();
        assert!(!slow.minutes(60, 20_000, 8));
        let mut lowered = Line::new();
        lowered.minutes(20, ALLOWED, 8);
        for _ in 0..3600 {
            lowered.now = lowered.now + Duration::from_secs(1);
            let seen = Seen { egress_bytes: 50_000, peers_waiting: 8, allowed: 50_000 };
            lowered.throttling.handle_seen(seen, lowered.now);
        }
        assert!(!lowered.throttling.is_stopped());
    }
}
