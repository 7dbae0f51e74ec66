//! What the household leaves of the line: on its router, the WAN interface counts what comes in, and
//! what of that is not ours is the household's. A fill takes no more than the rest of nine tenths of
//! what the line was seen to carry, and backs away at once where the two press against each other.

use std::{collections::VecDeque, time::Duration};

use crate::logic::now::Monotonic;

/// A fill never stops altogether: connections stay open, and a line that is always busy fills at last.
pub const RATE_MIN_BYTES_PER_SECOND: u64 = 32 * 1024;
/// Over which rates are taken: shorter, and a burst is taken for a download.
const WINDOW: Duration = Duration::from_secs(1);
/// Less than this is chatter (and headers and acknowledgements of our own that we estimate).
const CHATTER_BYTES_PER_SECOND: f64 = 64.0 * 1024.0;
const CHATTER_PART: f64 = 0.03;
/// What of the line both may use together while the household downloads.
const SHARED_PART: f64 = 0.9;
/// From here on the line counts as full.
const FULL_PART: f64 = 0.85;
/// The household has been quiet for so long before a fill dares more.
const QUIET_FOR: Duration = Duration::from_secs(3);
/// And then it takes this part of the line, and grows by this a second.
const FIRST_PART: f64 = 0.125;
const GROWTH_A_SECOND: f64 = 2.0;
/// While the household downloads, what a second makes of the fill's rate: on a full line, and on one
/// that has room.
const RETREAT_A_SECOND: f64 = 0.2;
const ADVANCE_A_SECOND: f64 = 1.3;
/// What the line was seen to carry is believed for a while: half of it is forgotten in so long.
const HALF_LIFE_SECONDS: f64 = 600.0;

/// Totals in bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// By the WAN interface, whoever's they are.
    pub line_bytes_total: u64,
    pub own_bytes_total: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Yielding {
    window: VecDeque<(Monotonic, Received)>,
    /// The most that the line was seen to carry.
    line_bytes_per_second: f64,
    household_bytes_per_second: f64,
    /// `None` is as fast as it comes.
    allowed: Option<f64>,
    household_at: Option<Monotonic>,
}

impl Yielding {
    /// A few times a second, while a fill runs.
    pub fn handle_counts(&mut self, counts: Received, now: Monotonic) {
        let Some(since) = self.slide(counts, now) else { return };
        let (then, before) = since;
        let seconds = now.saturating_since(then).as_secs_f64();
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let line = per_second(counts.line_bytes_total, before.line_bytes_total);
        let own = per_second(counts.own_bytes_total, before.own_bytes_total);
        let step = self
            .window
            .iter()
            .nth_back(1)
            .map_or(0.0, |(at, _)| now.saturating_since(*at).as_secs_f64());
        let kept = 0.5f64.powf(step / HALF_LIFE_SECONDS);
        self.line_bytes_per_second = (self.line_bytes_per_second * kept).max(line);
        self.household_bytes_per_second = (line - own).max(0.0);
        let chatter = CHATTER_BYTES_PER_SECOND.max(self.line_bytes_per_second * CHATTER_PART);
        if self.household_bytes_per_second > chatter {
            self.household_at = Some(now);
            self.give_way(line, own, step);
        } else if self.household_at.is_none_or(|at| now.saturating_since(at) >= QUIET_FOR) {
            self.grow(step);
        }
    }

    /// `None` is as fast as it comes.
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.allowed.map(|allowed| (allowed as u64).max(RATE_MIN_BYTES_PER_SECOND))
    }

    pub fn household_bytes_per_second(&self) -> u64 {
        self.household_bytes_per_second as u64
    }

    /// The oldest reading that counts, if there is one of another moment.
    fn slide(&mut self, counts: Received, now: Monotonic) -> Option<(Monotonic, Received)> {
        let shrank = |last: &Received| {
            counts.line_bytes_total < last.line_bytes_total
                || counts.own_bytes_total < last.own_bytes_total
        };
        if self.window.back().is_some_and(|(_, last)| shrank(last)) {
            self.window.clear();
        }
        while self.window.len() > 1 && now.saturating_since(self.window[1].0) >= WINDOW {
            self.window.pop_front();
        }
        self.window.push_back((now, counts));
        self.window.front().copied().filter(|(then, _)| *then < now)
    }

    fn give_way(&mut self, line: f64, own: f64, seconds: f64) {
        let rest = self.line_bytes_per_second * SHARED_PART - self.household_bytes_per_second;
        let allowed = self.allowed.unwrap_or(own);
        let is_full = line >= self.line_bytes_per_second * FULL_PART;
        let change = if is_full { RETREAT_A_SECOND } else { ADVANCE_A_SECOND };
        let allowed = (allowed * change.powf(seconds)).min(rest);
        self.allowed = Some(allowed.max(RATE_MIN_BYTES_PER_SECOND as f64));
    }

    fn grow(&mut self, seconds: f64) {
        let Some(allowed) = self.allowed else { return };
        let first = self.line_bytes_per_second * FIRST_PART;
        let grown = allowed.max(first) * GROWTH_A_SECOND.powf(seconds);
        // Once it is more than the line, it limits nothing.
        self.allowed = Some(grown).filter(|grown| *grown < self.line_bytes_per_second * 2.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: f64 = 2_500_000.0;
    const STEP: Duration = Duration::from_millis(250);

    /// A line that two flows share as TCP does, about evenly, unless one wants less.
    struct Home {
        yielding: Yielding,
        now: Monotonic,
        counts: Received,
        own: f64,
        household: f64,
    }

    impl Home {
        fn new() -> Home {
            let yielding = Yielding::default();
            Home {
                yielding,
                now: Monotonic::START,
                counts: Received::default(),
                own: 0.0,
                household: 0.0,
            }
        }

        fn run(&mut self, seconds: u64, household_wants: f64) {
            for _ in 0..seconds * 4 {
                let own_wants = self.yielding.bytes_per_second().map_or(LINE, |b| b as f64);
                let half = LINE / 2.0;
                self.household = household_wants.min((LINE - own_wants).max(half));
                self.own = own_wants.min(LINE - self.household);
                self.now = self.now + STEP;
                let bytes = |rate: f64| (rate * STEP.as_secs_f64()) as u64;
                self.counts.own_bytes_total += bytes(self.own);
                self.counts.line_bytes_total += bytes(self.own + self.household);
                self.yielding.handle_counts(self.counts, self.now);
            }
        }
    }

    #[test]
    fn a_download_of_the_household_gets_the_line_and_the_fill_comes_back_after_it() {
        let mut home = Home::new();
        home.run(10, 0.0);
        assert_eq!(home.yielding.bytes_per_second(), None, "nobody is in the way");
        home.run(4, LINE);
        assert!(home.household > 0.95 * LINE, "{} of {LINE}", home.household);
        home.run(60, LINE);
        assert!(home.household > 0.95 * LINE, "and keeps it");
        home.run(15, 0.0);
        assert!(home.own > 0.95 * LINE, "{} of {LINE}", home.own);
    }

    #[test]
    fn a_film_in_the_evening_leaves_room_for_the_fill() {
        let mut home = Home::new();
        home.run(10, 0.0);
        home.run(20, 0.2 * LINE);
        assert!(home.household > 0.199 * LINE, "{}", home.household);
        assert!(home.own > 0.2 * LINE, "{}", home.own);
    }

    #[test]
    fn chatter_slows_nothing_down() {
        let mut home = Home::new();
        home.run(20, 20_000.0);
        assert_eq!(home.yielding.bytes_per_second(), None);
    }

    #[test]
    fn never_stops_altogether_and_survives_an_interface_that_was_replaced() {
        let mut home = Home::new();
        home.run(1, 0.0);
        home.run(300, 100.0 * LINE);
        assert_eq!(home.yielding.bytes_per_second(), Some(RATE_MIN_BYTES_PER_SECOND));
        home.counts = Received::default();
        home.run(1, 0.0);
        assert!(home.yielding.household_bytes_per_second() < 100_000);
    }
}
