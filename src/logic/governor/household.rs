//! On a router: what the household itself sends, which is what the WAN interface has sent less what we
//! have. Knows no interface; the counts are told.

use std::{collections::VecDeque, time::Duration};

use crate::logic::now::Monotonic;

/// Short enough to see an upload start, long enough that a burst of packets is none.
const WINDOW: Duration = Duration::from_millis(60);

/// Totals in bytes on the wire; both only grow, unless the interface is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// By the WAN interface, whoever's they are.
    pub line_sent_bytes_total: u64,
    /// By us, to the same interface.
    pub own_sent_bytes_total: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Household {
    last: Option<LineCounts>,
    /// How much less than its highest the difference of the two counts is. What of ours waits before the
    /// interface lowers the difference, and when it leaves it is not the household's.
    below_highest: u64,
    sent_bytes_total: u64,
    window: VecDeque<(Monotonic, u64)>,
    bytes_per_second: u64,
}

impl Household {
    /// Every few milliseconds; a first reading tells nothing yet.
    pub fn handle_counts(&mut self, counts: LineCounts, now: Monotonic) {
        let shrank = |last: &LineCounts| {
            counts.line_sent_bytes_total < last.line_sent_bytes_total
                || counts.own_sent_bytes_total < last.own_sent_bytes_total
        };
        if self.last.is_some_and(|last| shrank(&last)) {
            self.forget();
        }
        let last = self.last.replace(counts).unwrap_or(counts);
        let line = counts.line_sent_bytes_total - last.line_sent_bytes_total;
        let low = self.below_highest + counts.own_sent_bytes_total - last.own_sent_bytes_total;
        self.below_highest = low.saturating_sub(line);
        self.sent_bytes_total += line.saturating_sub(low);
        while self.window.len() > 1 && now.saturating_since(self.window[1].0) >= WINDOW {
            self.window.pop_front();
        }
        self.window.push_back((now, self.sent_bytes_total));
        let (since, before) = self.window[0];
        let micros = now.saturating_since(since).as_micros();
        let bytes = u128::from(self.sent_bytes_total - before);
        let rate = (bytes * 1_000_000).checked_div(micros).unwrap_or(0);
        self.bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
    }

    /// After a gap in the readings.
    pub fn forget(&mut self) {
        self.last = None;
        self.below_highest = 0;
        self.window.clear();
        self.bytes_per_second = 0;
    }

    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    pub fn sent_bytes_total(&self) -> u64 {
        self.sent_bytes_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(line: u64, own: u64) -> LineCounts {
        LineCounts { line_sent_bytes_total: line, own_sent_bytes_total: own }
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic(Duration::from_millis(millis))
    }

    #[test]
    fn is_what_the_line_sent_and_we_did_not() {
        let mut household = Household::default();
        for tick in 0..20 {
            household.handle_counts(counts(tick * 30_000, tick * 20_000), at(tick * 20));
        }
        assert_eq!(household.bytes_per_second(), 500_000);
        assert_eq!(household.sent_bytes_total(), 190_000);
    }

    #[test]
    fn our_own_bytes_in_the_queue_are_not_the_households() {
        let mut household = Household::default();
        household.handle_counts(counts(0, 0), at(0));
        household.handle_counts(counts(10_000, 40_000), at(20));
        assert_eq!(household.bytes_per_second(), 0);
        household.handle_counts(counts(40_000, 40_000), at(40));
        assert_eq!(household.sent_bytes_total(), 0, "they have left now");
        household.handle_counts(counts(45_000, 40_000), at(60));
        assert_eq!(household.sent_bytes_total(), 5_000);
    }

    #[test]
    fn an_interface_that_was_replaced_starts_anew() {
        let mut household = Household::default();
        household.handle_counts(counts(1_000_000, 0), at(0));
        household.handle_counts(counts(500, 0), at(20));
        assert_eq!(household.bytes_per_second(), 0);
        household.handle_counts(counts(1500, 0), at(40));
        assert_eq!(household.bytes_per_second(), 50_000);
    }
}
