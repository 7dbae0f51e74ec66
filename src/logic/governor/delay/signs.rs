//! What round trips and counts are signs of: a line that was full for a while and so told its rate, and a
//! way that has become longer for good. Changes no rate.

use std::time::Duration;

use crate::logic::now::Monotonic;

/// A shorter busy period tells no rate: a block more or less at its ends would move it by a tenth.
const BUSY_MIN: Duration = Duration::from_millis(60);
/// A queue that stays for longer than this though we make room is the household's.
const BUSY_OURS: Duration = Duration::from_secs(1);
/// So many quiet echoes between two busy ones are jitter.
const BUSY_QUIET: u32 = 1;
/// More than come in that time.
const BUSY_ECHOES_MAX: usize = 100;
/// The second half of a busy period delivers at least this part of what the first does.
const BUSY_EVEN: u64 = 850;
/// Round trips that differ by no more than this for so long, while we send next to nothing, are those
/// of another path.
const STEADY: Duration = Duration::from_millis(4);
const STEADY_TIME: Duration = Duration::from_secs(60);

/// A stretch in which every round trip saw a queue.
#[derive(Clone, Debug, Default)]
pub(super) struct BusyPeriod {
    acknowledged: Vec<(Monotonic, u64)>,
    /// Echoes since the last that saw it.
    quiet: u32,
    rate: Option<u64>,
}

impl BusyPeriod {
    /// It begins with a queue that is none of our noise, and goes on while there is one.
    pub fn handle(&mut self, full: bool, acknowledged: (Monotonic, u64)) {
        if full {
            self.acknowledged.push(acknowledged);
            self.acknowledged.truncate(BUSY_ECHOES_MAX);
            self.quiet = 0;
            return;
        }
        self.quiet += 1;
        if self.quiet > BUSY_QUIET {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let (Some(first), Some(last)) = (acknowledged.first(), acknowledged.last()) else { return };
        let length = last.0.saturating_since(first.0);
        if !(BUSY_MIN..=BUSY_OURS).contains(&length) || acknowledged.len() == BUSY_ECHOES_MAX {
            return;
        }
        // While a line is full with nobody's packets but ours, it delivers evenly, whatever we send. Who
        // gets less and less of it shares it.
        let middle = acknowledged[acknowledged.len() / 2];
        let halves = rate_between(*first, middle).zip(rate_between(middle, *last));
        if halves.is_some_and(|(early, late)| late >= permille(early, BUSY_EVEN)) {
            self.rate = rate_between(*first, *last);
        }
    }

    /// What the last busy period told, once; one that is not over yet ends here.
    pub fn take_rate(&mut self) -> Option<u64> {
        self.finish();
        self.rate.take()
    }
}

/// Notices that round trips have become longer for good. A household's upload swings by tens of
/// milliseconds as its window does; a longer way to the same place is steady.
#[derive(Clone, Debug, Default)]
pub(super) struct OtherPath {
    /// Since when we send next to nothing, and the shortest and longest round trip from then on.
    steady: Option<(Monotonic, Duration, Duration)>,
}

impl OtherPath {
    /// The new base, when there is one.
    pub fn handle(&mut self, silent: bool, rtt: Duration, now: Monotonic) -> Option<Duration> {
        let (since, shortest, longest) = self.steady.filter(|_| silent).unwrap_or((now, rtt, rtt));
        let (shortest, longest) = (shortest.min(rtt), longest.max(rtt));
        let is_steady = silent && longest - shortest <= STEADY;
        self.steady = is_steady.then_some((since, shortest, longest));
        (is_steady && now.saturating_since(since) >= STEADY_TIME).then_some(shortest)
    }
}

pub(super) fn rate_between(first: (Monotonic, u64), last: (Monotonic, u64)) -> Option<u64> {
    let micros = last.0.saturating_since(first.0).as_micros();
    let bytes = u128::from(last.1.saturating_sub(first.1));
    (bytes * 1_000_000).checked_div(micros).map(|rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

pub(super) fn permille(rate: u64, part: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(part) / 1000).unwrap_or(u64::MAX)
}
