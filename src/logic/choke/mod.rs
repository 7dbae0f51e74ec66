//! Decides who is unchoked. Must never unchoke more peers than there are slots, nor let an
//! interested peer wait for ever; it sees no sockets and no rates, only who wants and who takes.
//!
//! BEP 3's tit-for-tat has no meaning for a seeder that never downloads, so the rule is plain: an
//! interested peer is unchoked at once while a slot is free. When slots are short, a peer that has
//! had its tenure goes to the end of the queue, and one that holds a slot without taking anything
//! goes sooner.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{governor::Allowance, now::Monotonic};

/// How long a peer keeps its slot while others wait. BEP 3 turns its optimistic slot every 30 s:
/// long enough for TCP to find its pace, short enough for a queue to move.
pub const TENURE: Duration = Duration::from_secs(30);
/// A slot that moved nothing for this long is given away, if anyone waits for it.
pub const UNUSED: Duration = Duration::from_secs(10);

/// Below this, BEP 3's usual four, a single slow reader would idle the uplink.
pub const SLOTS_MIN: u32 = 4;
/// Many paced sockets make noise in the household's ping; no home uplink needs more.
pub const SLOTS_LIMITED_MAX: u32 = 100;
/// Without a limit, slots only bound work; the limit on connections comes first.
pub const SLOTS_UNLIMITED: u32 = 1_000;
/// 1.5 Mbit/s: enough for one peer to stream from.
const BYTES_PER_SECOND_PER_SLOT: u64 = 1_500_000 / 8;

/// How many peers should share an allowance.
pub fn slots_for(allowance: Allowance) -> u32 {
    match allowance {
        Allowance::Paused | Allowance::BytesPerSecond(0) => 0,
        Allowance::Unlimited => SLOTS_UNLIMITED,
        Allowance::BytesPerSecond(rate) => (rate / BYTES_PER_SECOND_PER_SLOT)
            .clamp(u64::from(SLOTS_MIN), u64::from(SLOTS_LIMITED_MAX))
            as u32,
    }
}

/// The shell's name for a connection.
pub type PeerKey = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Unchoke(PeerKey),
    Choke(PeerKey),
}

#[derive(Debug)]
pub struct Choker {
    slots: usize,
    holders: BTreeMap<PeerKey, Holder>,
    waiting: VecDeque<PeerKey>,
    decisions: VecDeque<Decision>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    since: Monotonic,
    took_at: Monotonic,
}

impl Holder {
    /// When somebody who waits may have the slot.
    fn yields_at(self) -> Monotonic {
        (self.since + TENURE).min(self.took_at + UNUSED)
    }
}

impl Choker {
    pub fn new(slots: u32) -> Choker {
        Choker {
            slots: slots as usize,
            holders: BTreeMap::new(),
            waiting: VecDeque::new(),
            decisions: VecDeque::new(),
        }
    }

    /// Idempotent: a peer that repeats its interest neither gains nor loses.
    pub fn handle_interested(&mut self, peer: PeerKey, now: Monotonic) {
        if self.holders.contains_key(&peer) || self.waiting.contains(&peer) {
            return;
        }
        self.waiting.push_back(peer);
        self.fill(now);
    }

    /// Gives the slot to the next; a peer without interest is choked.
    pub fn handle_not_interested(&mut self, peer: PeerKey, now: Monotonic) {
        if self.holders.remove(&peer).is_some() {
            self.decisions.push_back(Decision::Choke(peer));
        } else {
            self.waiting.retain(|p| *p != peer);
        }
        self.fill(now);
    }

    /// As `handle_not_interested`, but nobody is there any more to be told.
    pub fn handle_closed(&mut self, peer: PeerKey, now: Monotonic) {
        self.holders.remove(&peer);
        self.waiting.retain(|p| *p != peer);
        let about =
            |d: &Decision| matches!(d, Decision::Unchoke(p) | Decision::Choke(p) if *p == peer);
        self.decisions.retain(|d| !about(d));
        self.fill(now);
    }

    /// The peer's socket took bytes of a block.
    pub fn handle_took(&mut self, peer: PeerKey, now: Monotonic) {
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.took_at = now;
        }
    }

    /// Fewer slots choke those first who have held theirs longest; they keep the first places in
    /// the queue.
    pub fn set_slots(&mut self, slots: u32, now: Monotonic) {
        self.slots = slots as usize;
        while self.holders.len() > self.slots {
            let longest = self.holders.iter().min_by_key(|(key, h)| (h.since, **key));
            let Some(peer) = longest.map(|(key, _)| *key) else { break };
            self.holders.remove(&peer);
            self.waiting.push_front(peer);
            self.decisions.push_back(Decision::Choke(peer));
        }
        self.fill(now);
    }

    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// The next rotation; `None` while nobody waits.
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        if self.waiting.is_empty() {
            return None;
        }
        self.holders.values().map(|h| h.yields_at()).min()
    }

    /// Moves on everyone whose time is over, as far as others wait.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        let over = |h: &Holder| h.yields_at() <= now;
        let mut due: Vec<_> = self.holders.iter().filter(|(_, h)| over(h)).collect();
        due.sort_by_key(|(key, h)| (h.since, **key));
        let due: Vec<PeerKey> =
            due.into_iter().map(|(key, _)| *key).take(self.waiting.len()).collect();
        for peer in due {
            self.holders.remove(&peer);
            self.waiting.push_back(peer);
            self.decisions.push_back(Decision::Choke(peer));
        }
        self.fill(now);
    }

    pub fn unchoked(&self) -> u32 {
        self.holders.len() as u32
    }

    fn fill(&mut self, now: Monotonic) {
        while self.holders.len() < self.slots
            && let Some(peer) = self.waiting.pop_front()
        {
            self.holders.insert(peer, Holder { since: now, took_at: now });
            self.decisions.push_back(Decision::Unchoke(peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn drain(choker: &mut Choker) -> Vec<Decision> {
        std::iter::from_fn(|| choker.poll_decision()).collect()
    }

    #[test]
    fn unchokes_at_once_while_a_slot_is_free() {
        let mut choker = Choker::new(2);
        for peer in [1, 2, 3, 1] {
            choker.handle_interested(peer, at(0));
        }
        assert_eq!(drain(&mut choker), [Decision::Unchoke(1), Decision::Unchoke(2)]);
        choker.handle_not_interested(1, at(1));
        assert_eq!(drain(&mut choker), [Decision::Choke(1), Decision::Unchoke(3)]);
        choker.handle_closed(2, at(1));
        assert_eq!((drain(&mut choker), choker.unchoked()), (vec![], 1));
        assert_eq!(choker.poll_timeout(), None);
    }

    #[test]
    fn an_unused_slot_goes_before_a_used_one() {
        let mut choker = Choker::new(2);
        (1..=3).for_each(|peer| choker.handle_interested(peer, at(0)));
        drain(&mut choker);
        choker.handle_took(1, at(9));
        assert_eq!(choker.poll_timeout(), Some(at(10)));
        choker.handle_timeout(at(10));
        assert_eq!(drain(&mut choker), [Decision::Choke(2), Decision::Unchoke(3)]);
        choker.handle_took(1, at(19));
        choker.handle_took(3, at(19));
        assert_eq!(choker.poll_timeout(), Some(at(29)));
    }

    #[test]
    fn nobody_loses_a_slot_that_nobody_wants() {
        let mut choker = Choker::new(2);
        (1..=2).for_each(|peer| choker.handle_interested(peer, at(0)));
        drain(&mut choker);
        choker.handle_timeout(at(1000));
        assert_eq!(drain(&mut choker), []);
    }

    #[test]
    fn slots_follow_the_allowance() {
        assert_eq!(slots_for(Allowance::Paused), 0);
        assert_eq!(slots_for(Allowance::BytesPerSecond(1)), SLOTS_MIN);
        assert_eq!(slots_for(Allowance::BytesPerSecond(2_500_000)), 13);
        assert_eq!(slots_for(Allowance::BytesPerSecond(u64::MAX)), SLOTS_LIMITED_MAX);
        assert!(slots_for(Allowance::Unlimited) > SLOTS_LIMITED_MAX);
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Want(PeerKey),
        Drop(PeerKey),
        Close(PeerKey),
        Took(PeerKey),
        Slots(u32),
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..20).prop_map(Op::Want),
            1 => (0u32..20).prop_map(Op::Drop),
            1 => (0u32..20).prop_map(Op::Close),
            3 => (0u32..20).prop_map(Op::Took),
            1 => (0u32..8).prop_map(Op::Slots),
            2 => (1u64..40).prop_map(Op::Wait),
        ]
    }

    proptest! {
        #[test]
        fn never_above_the_slots_and_no_slot_is_free_while_someone_waits(
            ops in prop::collection::vec(op(), 0..200),
        ) {
            let (mut now, mut slots) = (at(0), 3u32);
            let mut choker = Choker::new(slots);
            let (mut wanting, mut unchoked) = (BTreeSet::new(), BTreeSet::new());
            for op in ops {
                match op {
                    Op::Want(p) => { wanting.insert(p); choker.handle_interested(p, now); }
                    Op::Drop(p) => { wanting.remove(&p); choker.handle_not_interested(p, now); }
                    Op::Close(p) => {
                        wanting.remove(&p);
                        unchoked.remove(&p);
                        choker.handle_closed(p, now);
                    }
                    Op::Took(p) => choker.handle_took(p, now),
                    Op::Slots(n) => { slots = n; choker.set_slots(n, now); }
                    Op::Wait(s) => { now = now + Duration::from_secs(s); choker.handle_timeout(now); }
                }
                // The decisions, as peers see them, never leave more unchoked than there are slots
                // once all are carried out, and alternate for each peer.
                while let Some(decision) = choker.poll_decision() {
                    match decision {
                        Decision::Unchoke(p) => prop_assert!(unchoked.insert(p)),
                        Decision::Choke(p) => prop_assert!(unchoked.remove(&p)),
                    }
                }
                prop_assert!(unchoked.is_subset(&wanting));
                prop_assert_eq!(unchoked.len(), wanting.len().min(slots as usize));
                prop_assert_eq!(unchoked.len() as u32, choker.unchoked());
            }
        }

        #[test]
        fn everyone_gets_a_turn(peers in 1u32..40, slots in 1u32..6) {
            let mut choker = Choker::new(slots);
            (0..peers).for_each(|p| choker.handle_interested(p, at(0)));
            let mut served = BTreeSet::new();
            let rounds = peers.div_ceil(slots);
            for _ in 0..rounds {
                for decision in drain(&mut choker) {
                    if let Decision::Unchoke(p) = decision { served.insert(p); }
                }
                if let Some(t) = choker.poll_timeout() {
                    // All are busy to the end of their tenure.
                    (0..peers).for_each(|p| choker.handle_took(p, t));
                    let tenure_over = choker.poll_timeout().expect("someone waits");
                    choker.handle_timeout(tenure_over.max(t));
                    while choker.poll_timeout().is_some_and(|next| next <= tenure_over) {
                        choker.handle_timeout(tenure_over);
                    }
                }
            }
            for _ in 0..3 * rounds {
                for decision in drain(&mut choker) {
                    if let Decision::Unchoke(p) = decision { served.insert(p); }
                }
                if let Some(t) = choker.poll_timeout() { choker.handle_timeout(t); }
            }
            prop_assert_eq!(served.len() as u32, peers);
        }
    }
}
