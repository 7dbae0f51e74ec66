//! Divides an allowance among the connections that send at the moment, so that the kernel can pace
//! each by itself (`SO_MAX_PACING_RATE`) and nothing leaves in bursts. Max-min fair: who sends less
//! than its share keeps what it sends, and the others divide the rest evenly. Shares are for
//! smoothness only: that the allowance holds is the pacer's affair.

use std::time::Duration;

/// Shares are looked at again no sooner: a few round trips, so that TCP can follow.
const INTERVAL_SHORTEST: Duration = Duration::from_millis(250);
/// Nor before an even share carried this much, or the blocks' own size would blur what is seen.
const INTERVAL_BYTES: u64 = 256 * 1024;
/// Between what bounds the part of the allowance moves that is shared out, in parts of a thousand.
const PART_MIN: u64 = 970;
const PART_MAX: u64 = 1000;
const PART_AT_START: u64 = 980;
/// How it moves, from one look to the next.
const PART_FALL: u64 = 3;
const PART_RISE: u64 = 1;
/// Who sent this much of its share could use a larger one. Parts of a thousand.
const HUNGRY: u64 = 700;
/// Who sends little may send this many times as much at once, until the next look.
const GROWTH: u64 = 2;
/// Whoever sent nothing keeps an even share's part of so many: it may start at any moment.
const RESERVE: u64 = 4;

/// How a connection did since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its share in bytes per second; `None` if it had none yet.
    pub share: Option<u64>,
    pub sent_bytes: u64,
    /// It has something to send and would send it if it were let.
    pub wants_more: bool,
}

/// How much of the allowance to share out: just so much that the kernel holds the connections back,
/// evenly, and not the pacer, in bursts.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    permille: u64,
}

impl Default for Part {
    fn default() -> Self {
        Part { permille: PART_AT_START }
    }
}

impl Part {
    /// At each look: whether the pacer has made somebody wait since the last one.
    pub fn handle_look(&mut self, pacer_held_back: bool) {
        self.permille = match pacer_held_back {
            true => self.permille.saturating_sub(PART_FALL).max(PART_MIN),
            false => (self.permille + PART_RISE).min(PART_MAX),
        };
    }

    pub fn of(self, bytes_per_second: u64) -> u64 {
        permille(bytes_per_second, self.permille)
    }
}

/// When to look again.
pub fn interval(bytes_per_second: u64, connections: usize) -> Duration {
    let even = (bytes_per_second / (connections as u64).max(1)).max(1);
    INTERVAL_SHORTEST.max(Duration::from_millis(INTERVAL_BYTES * 1000 / even))
}

/// The shares, in order, after `elapsed` since the last look.
pub fn allot(whole: u64, elapsed: Duration, progress: &[Progress]) -> Vec<u64> {
    let even = whole / (progress.len() as u64).max(1);
    let rates: Vec<u64> = progress.iter().map(|p| rate(p.sent_bytes, elapsed)).collect();
    let is_hungry: Vec<bool> = progress
        .iter()
        .zip(&rates)
        .map(|(p, rate)| {
            p.share.is_none_or(|share| p.wants_more && *rate >= permille(share, HUNGRY))
        })
        .collect();
    let hungry = is_hungry.iter().filter(|is_hungry| **is_hungry).count() as u64;
    let taken: u64 = rates.iter().zip(&is_hungry).filter(|(_, h)| !**h).map(|(rate, _)| rate).sum();
    let left = whole.saturating_sub(taken);
    let share = |(rate, is_hungry): (&u64, &bool)| match is_hungry {
        true => left / hungry,
        false => (rate.saturating_mul(GROWTH)).clamp(even / RESERVE, whole),
    };
    rates.iter().zip(&is_hungry).map(share).map(|share| share.max(1)).collect()
}

/// The shares between two looks, when the allowance or the connections have changed: those that have
/// one keep their proportions, a new one gets an even share.
pub fn rescale(whole: u64, shares: &[Option<u64>]) -> Vec<u64> {
    let even = whole / (shares.len() as u64).max(1);
    let new = shares.iter().filter(|share| share.is_none()).count() as u64;
    let for_old = u128::from(whole - even * new);
    let sum = shares.iter().flatten().map(|share| u128::from(*share)).sum::<u128>().max(1);
    let scaled = |old: u64| u64::try_from(u128::from(old) * for_old / sum).unwrap_or(u64::MAX);
    shares.iter().map(|share| share.map_or(even, scaled).max(1)).collect()
}

fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let per_second = u128::from(bytes) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

fn permille(rate: u64, part: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(part) / 1000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Peers that could take so many bytes a second each, over a number of looks.
    fn settle(allowance: u64, capacities: &[u64], looks: u32) -> Vec<u64> {
        let mut shares = vec![None; capacities.len()];
        let mut sent = vec![0; capacities.len()];
        for _ in 0..looks {
            let progress: Vec<Progress> = shares
                .iter()
                .zip(&sent)
                .map(|(share, sent_bytes)| Progress {
                    share: *share,
                    sent_bytes: *sent_bytes,
                    wants_more: true,
                })
                .collect();
            let allotted = allot(allowance, Duration::from_secs(1), &progress);
            let of_pacer = allowance.min(
                allotted.iter().zip(capacities).map(|(share, capacity)| share.min(capacity)).sum(),
            );
            assert!(of_pacer <= allowance);
            sent = allotted.iter().zip(capacities).map(|(s, c)| *s.min(c)).collect();
            shares = allotted.into_iter().map(Some).collect();
        }
        sent
    }

    #[test]
    fn divides_evenly_among_equals_and_stays_under_the_allowance() {
        let sent = settle(1_000_000, &[u64::MAX; 8], 20);
        assert_eq!(sent, vec![125_000; 8]);
    }

    #[test]
    fn leaves_to_the_fast_what_the_slow_do_not_take() {
        let sent = settle(1_000_000, &[5_000, 20_000, u64::MAX, u64::MAX], 20);
        assert_eq!(sent, [5_000, 20_000, 487_500, 487_500]);
    }

    #[test]
    fn one_that_wakes_up_has_an_even_share_soon() {
        let asleep = Progress { share: Some(60_000), sent_bytes: 0, wants_more: false };
        let busy = Progress { share: Some(900_000), sent_bytes: 900_000, wants_more: true };
        let second = Duration::from_secs(1);
        assert_eq!(allot(1_000_000, second, &[asleep, busy]), [125_000, 1_000_000]);
        let awake = Progress { share: Some(125_000), sent_bytes: 125_000, wants_more: true };
        assert_eq!(allot(1_000_000, second, &[awake, busy]), [500_000; 2]);
    }

    #[test]
    fn keeps_proportions_when_the_allowance_moves_between_looks() {
        assert_eq!(rescale(500_000, &[Some(100_000), Some(300_000)]), [125_000, 375_000]);
        assert_eq!(rescale(400_000, &[Some(300_000), None]), [200_000; 2]);
        assert_eq!(rescale(0, &[Some(0), None]), [1, 1]);
        assert!(rescale(0, &[]).is_empty() && allot(0, Duration::ZERO, &[]).is_empty());
    }

    #[test]
    fn shares_out_what_the_pacer_does_not_hold_back() {
        let mut part = Part::default();
        (0..100).for_each(|_| part.handle_look(false));
        assert_eq!(part.of(1_000_000), 1_000_000);
        part.handle_look(true);
        assert_eq!(part.of(1_000_000), 997_000);
        (0..100).for_each(|_| part.handle_look(true));
        assert_eq!(part.of(1_000_000), 970_000);
    }

    #[test]
    fn looks_less_often_where_blocks_are_rare() {
        assert_eq!(interval(100 << 20, 20), INTERVAL_SHORTEST);
        assert_eq!(interval(64 * 1024, 4), Duration::from_secs(16));
    }

    proptest! {
        /// Whatever the peers can take, the line is used as far as they can, and nobody who wants
        /// more ends up with less than an even share of what there is.
        #[test]
        fn is_max_min_fair(
            capacities in prop::collection::vec(1_000u64..10_000_000, 1..40),
        ) {
            const ALLOWANCE: u64 = 2_500_000;
            let sent = settle(ALLOWANCE, &capacities, 60);
            let total: u64 = sent.iter().sum();
            let possible = ALLOWANCE.min(capacities.iter().sum());
            prop_assert!(total <= ALLOWANCE * 102 / 100, "{total}");
            prop_assert!(total * 100 >= possible * 80, "{total} of {possible}");
            let even = ALLOWANCE / capacities.len() as u64;
            for (sent, capacity) in sent.iter().zip(&capacities) {
                prop_assert!(*sent * 100 >= even.min(*capacity) * 80, "{sent} of {capacity}");
            }
        }
    }
}
