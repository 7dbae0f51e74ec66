//! Whose turn it is among contents: those who wait, in a queue for each content, and turns dealt out
//! in proportion to the contents' weights (stride scheduling). Knows no slots and no time.
//!
//! Each turn moves its content's mark on by 1/weight, and the next turn goes to the content whose mark
//! is lowest. So a content waits for a turn no longer than the others take to have theirs: nobody
//! starves, however light. When nobody waits any more all marks are equal again: what a content got
//! while slots were free is not held against it.

use std::collections::{BTreeMap, VecDeque};

use super::PeerKey;
use crate::logic::wire::ContentKey;

/// The heaviest content gets so many turns for one of the lightest. More would leave a light one
/// waiting for minutes: at four slots, 16 turns are two minutes.
pub const WEIGHT_MAX: u32 = 16;
/// A pin is the owner's wish and earns nothing: as much as a listed content of half the best score.
pub const PIN_WEIGHT: u32 = WEIGHT_MAX / 2;
/// Divisible by all weights up to 16, so that marks are exact.
const STRIDE: u64 = 720_720;

/// A score has no unit: what counts is how it compares with the best on the list.
pub fn weight_of(score: f64, best: f64) -> u32 {
    let share = if best > 0.0 { score / best } else { 0.0 };
    // A cast of NaN is zero.
    ((share * f64::from(WEIGHT_MAX)).round() as u32).clamp(1, WEIGHT_MAX)
}

#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Those with a weight of their own or someone who waits.
    contents: BTreeMap<ContentKey, Share>,
    waiting: usize,
    /// Where the last turn's mark stood: a content that begins to wait starts there.
    reached: u64,
}

#[derive(Debug)]
struct Share {
    weight: u32,
    mark: u64,
    queue: VecDeque<PeerKey>,
}

impl Shares {
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub fn len(&self) -> usize {
        self.waiting
    }

    pub fn set_weight(&mut self, content: ContentKey, weight: u32) {
        self.share(content).weight = weight.clamp(1, WEIGHT_MAX);
        self.settle();
    }

    pub fn forget(&mut self, content: ContentKey) {
        if let Some(share) = self.contents.remove(&content) {
            self.waiting -= share.queue.len();
        }
    }

    pub fn push_back(&mut self, content: ContentKey, peer: PeerKey) {
        self.join(content).push_back(peer);
    }

    pub fn push_front(&mut self, content: ContentKey, peer: PeerKey) {
        self.join(content).push_front(peer);
    }

    pub fn remove(&mut self, content: ContentKey, peer: PeerKey) {
        let Some(share) = self.contents.get_mut(&content) else { return };
        let before = share.queue.len();
        share.queue.retain(|p| *p != peer);
        self.waiting -= before - share.queue.len();
    }

    /// Who has the next turn. Its content pays for it.
    pub fn pop(&mut self) -> Option<PeerKey> {
        let content = self.next()?;
        let peer = self.contents.get_mut(&content)?.queue.pop_front()?;
        self.waiting -= 1;
        self.charge(content);
        Some(peer)
    }

    /// Whether a turn more for this content comes before everybody who waits; its own peers do not
    /// have to wait for that, so only when none of them does.
    pub fn prefers(&self, content: ContentKey) -> bool {
        let Some(share) = self.contents.get(&content) else { return false };
        let next = self.next().and_then(|next| self.contents.get(&next));
        share.queue.is_empty() && next.is_some_and(|next| share.mark < next.mark)
    }

    /// A turn for this content.
    pub fn charge(&mut self, content: ContentKey) {
        if let Some(share) = self.contents.get_mut(&content) {
            self.reached = self.reached.max(share.mark);
            share.mark += STRIDE / u64::from(share.weight);
        }
    }

    /// The lowest mark; among equals the content that was put up first.
    fn next(&self) -> Option<ContentKey> {
        let waiting = self.contents.iter().filter(|(_, share)| !share.queue.is_empty());
        waiting.min_by_key(|(key, share)| (share.mark, **key)).map(|(key, _)| *key)
    }

    fn share(&mut self, content: ContentKey) -> &mut Share {
        let reached = self.reached;
        let new = || Share { weight: 1, mark: reached, queue: VecDeque::new() };
        self.contents.entry(content).or_insert_with(new)
    }

    fn join(&mut self, content: ContentKey) -> &mut VecDeque<PeerKey> {
        self.waiting += 1;
        let reached = self.reached;
        let share = self.share(content);
        if share.queue.is_empty() {
            // It has not saved up turns while it did not want any.
            share.mark = share.mark.max(reached);
        }
        &mut share.queue
    }

    /// When nobody waits the accounts are closed, and an idle engine keeps no buffers.
    pub fn settle(&mut self) {
        if self.waiting > 0 {
            return;
        }
        self.reached = 0;
        self.contents.retain(|_, share| {
            share.mark = 0;
            share.queue = VecDeque::new();
            share.weight > 1
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(n: usize) -> ContentKey {
        ContentKey::numbered(n as u64)
    }

    #[test]
    fn weights_follow_scores_and_nothing_weighs_nothing() {
        assert_eq!(weight_of(8.0, 8.0), WEIGHT_MAX);
        assert_eq!(weight_of(4.0, 8.0), WEIGHT_MAX / 2);
        assert_eq!(weight_of(0.0, 8.0), 1);
        assert_eq!(weight_of(0.0, 0.0), 1);
        assert_eq!(weight_of(f64::MAX, f64::MIN_POSITIVE), WEIGHT_MAX);
    }

    #[test]
    fn forgets_a_content_and_all_who_waited_for_it() {
        let mut shares = Shares::default();
        shares.set_weight(content(1), 7);
        shares.push_back(content(1), 1);
        shares.push_back(content(2), 2);
        shares.forget(content(1));
        assert_eq!((shares.len(), shares.pop(), shares.pop()), (1, Some(2), None));
        shares.settle();
        assert!(shares.contents.is_empty());
    }

    proptest! {
        /// While all of them have someone who waits, any two contents get turns in the ratio of
        /// their weights, to within one turn of the lighter.
        #[test]
        fn turns_follow_the_weights_at_every_moment(
            weights in prop::collection::vec(1u32..=WEIGHT_MAX, 1..8),
            turns in 1usize..400,
        ) {
            let mut shares = Shares::default();
            for (n, weight) in weights.iter().enumerate() {
                shares.set_weight(content(n), *weight);
                shares.push_back(content(n), n as u32);
            }
            let mut had = vec![0u32; weights.len()];
            for _ in 0..turns {
                let peer = shares.pop().expect("all wait");
                had[peer as usize] += 1;
                shares.push_back(content(peer as usize), peer);
                for (a, wa) in had.iter().zip(&weights) {
                    for (b, wb) in had.iter().zip(&weights) {
                        prop_assert!((a * wb).abs_diff(b * wa) <= *wa.max(wb), "{had:?} {weights:?}");
                    }
                }
            }
        }
    }
}
