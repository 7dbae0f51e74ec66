//! Decides who is unchoked. Must never unchoke more peers than there are slots, nor let an
//! interested peer wait for ever; it sees no sockets and no rates, only who wants and who takes.
//!
//! BEP 3's tit-for-tat has no meaning for a seeder that never downloads, so the rule is plain: an
//! interested peer is unchoked at once while a slot is free. When slots are short, a peer that has
//! had its tenure goes to the end of the queue, and one that holds a slot without taking anything
//! goes sooner. One whose socket stays full is set aside: it may go on requesting, but what it does
//! not read holds no slot (docs/adr/0019).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{governor::Allowance, now::Monotonic};

/// How long a peer keeps its slot while others wait. BEP 3 turns its optimistic slot every 30 s:
/// long enough for TCP to find its pace, short enough for a queue to move.
pub const TENURE: Duration = Duration::from_secs(30);
/// A slot that moved nothing for this long is given away, if anyone waits for it.
pub const UNUSED: Duration = Duration::from_secs(10);

/// A socket that stays full for this long is a slow reader's. Twice what a peer's even share of a
/// small allowance (a quarter of 100 kB/s) takes to drain what makes room again.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Unchoked peers in all, those set aside included, as long as there are no more slots than this.
pub const UNCHOKED_MAX: u32 = SLOTS_LIMITED_MAX;

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
    /// How many of the holders are set aside.
    aside: usize,
    /// Who did not use its last turn to the end. In the next it is set aside as soon as its socket is
    /// full, and when it takes nothing for as long as another's socket may be full.
    slow: BTreeSet<PeerKey>,
    waiting: VecDeque<PeerKey>,
    decisions: VecDeque<Decision>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    since: Monotonic,
    took_at: Monotonic,
    /// When somebody who waits may have the slot, and this one stays unchoked: its socket is full.
    steps_aside_at: Option<Monotonic>,
    /// Unchoked without a slot.
    aside: bool,
}

impl Holder {
    /// When somebody who waits may have the slot, and this one is choked.
    fn yields_at(self) -> Monotonic {
        (self.since + TENURE).min(self.took_at + UNUSED)
    }
}

impl Choker {
    pub fn new(slots: u32) -> Choker {
        Choker {
            slots: slots as usize,
            holders: BTreeMap::new(),
            aside: 0,
            slow: BTreeSet::new(),
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
        if self.remove(peer) {
            self.decisions.push_back(Decision::Choke(peer));
        } else {
            self.waiting.retain(|p| *p != peer);
        }
        self.fill(now);
    }

    /// As `handle_not_interested`, but nobody is there any more to be told.
    pub fn handle_closed(&mut self, peer: PeerKey, now: Monotonic) {
        self.remove(peer);
        self.slow.remove(&peer);
        self.waiting.retain(|p| *p != peer);
        let about =
            |d: &Decision| matches!(d, Decision::Unchoke(p) | Decision::Choke(p) if *p == peer);
        self.decisions.retain(|d| !about(d));
        self.fill(now);
    }

    /// The peer's socket took bytes of a block. If it was set aside and its slot has another holder by
    /// now, it queues again.
    pub fn handle_took(&mut self, peer: PeerKey, now: Monotonic) {
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        holder.took_at = now;
        holder.steps_aside_at = self.slow.contains(&peer).then_some(now + PATIENCE);
        if std::mem::take(&mut holder.aside) {
            self.aside -= 1;
            if self.slots_taken() as usize > self.slots {
                self.send_to_the_end(peer);
            }
        }
    }

    /// The peer's socket had no room for what it asked for.
    pub fn handle_full(&mut self, peer: PeerKey, now: Monotonic) {
        let patience = if self.slow.contains(&peer) { Duration::ZERO } else { PATIENCE };
        if let Some(holder) = self.holders.get_mut(&peer) {
            let at = now + patience;
            holder.steps_aside_at = Some(holder.steps_aside_at.map_or(at, |told| told.min(at)));
        }
    }

    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots).unwrap_or(u32::MAX)
    }

    /// Fewer slots choke those first who have held theirs longest; they keep the first places in
    /// the queue. Without any slot nobody stays unchoked.
    pub fn set_slots(&mut self, slots: u32, now: Monotonic) {
        self.slots = slots as usize;
        while self.slots_taken() > slots || (slots == 0 && self.aside > 0) {
            let holders = self.holders.iter().filter(|(_, h)| slots == 0 || !h.aside);
            let longest = holders.min_by_key(|(key, h)| (h.since, **key));
            let Some(peer) = longest.map(|(key, _)| *key) else { break };
            self.remove(peer);
            self.waiting.push_front(peer);
            self.decisions.push_back(Decision::Choke(peer));
        }
        while self.holders.len() > self.unchoked_max() {
            self.choke_one_aside();
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
        let holders = self.holders.values().filter(|h| !h.aside);
        holders.flat_map(|h| [Some(h.yields_at()), h.steps_aside_at]).flatten().min()
    }

    /// Moves on everyone whose time is over, as far as others wait.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.waiting.is_empty() {
            return;
        }
        for (peer, holder) in self.holders.iter_mut().filter(|(_, h)| !h.aside) {
            if holder.steps_aside_at.is_some_and(|at| at <= now) {
                holder.aside = true;
                self.aside += 1;
                self.slow.insert(*peer);
            }
        }
        let over = |h: &Holder| !h.aside && h.yields_at() <= now;
        let mut due: Vec<_> = self.holders.iter().filter(|(_, h)| over(h)).collect();
        due.sort_by_key(|(key, h)| (h.since, **key));
        let free = self.slots.saturating_sub(self.slots_taken() as usize);
        let wanted = self.waiting.len().saturating_sub(free);
        let due: Vec<PeerKey> = due.into_iter().map(|(key, _)| *key).take(wanted).collect();
        for peer in due {
            let unused = self.holders.get(&peer).is_some_and(|h| h.took_at + UNUSED <= now);
            if unused {
                self.slow.insert(peer);
            } else {
                self.slow.remove(&peer);
            }
            self.send_to_the_end(peer);
        }
        self.fill(now);
    }

    /// Who may request: the holders of slots, and those set aside.
    pub fn unchoked(&self) -> u32 {
        self.holders.len() as u32
    }

    pub fn slots_taken(&self) -> u32 {
        (self.holders.len() - self.aside) as u32
    }

    fn fill(&mut self, now: Monotonic) {
        while (self.slots_taken() as usize) < self.slots
            && let Some(peer) = self.waiting.pop_front()
        {
            if self.holders.len() >= self.unchoked_max() {
                self.choke_one_aside();
            }
            let steps_aside_at = self.slow.contains(&peer).then_some(now + PATIENCE);
            let holder = Holder { since: now, took_at: now, steps_aside_at, aside: false };
            self.holders.insert(peer, holder);
            self.decisions.push_back(Decision::Unchoke(peer));
        }
    }

    fn unchoked_max(&self) -> usize {
        self.slots.max(UNCHOKED_MAX as usize)
    }

    /// The one that has taken nothing for the longest.
    fn choke_one_aside(&mut self) {
        let aside = self.holders.iter().filter(|(_, h)| h.aside);
        if let Some((peer, _)) = aside.min_by_key(|(key, h)| (h.took_at, **key)) {
            self.send_to_the_end(*peer);
        }
    }

    fn send_to_the_end(&mut self, peer: PeerKey) {
        self.remove(peer);
        self.waiting.push_back(peer);
        self.decisions.push_back(Decision::Choke(peer));
    }

    /// Whether it was unchoked.
    fn remove(&mut self, peer: PeerKey) -> bool {
        let removed = self.holders.remove(&peer);
        self.aside -= usize::from(removed.is_some_and(|holder| holder.aside));
        removed.is_some()
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
    fn who_does_not_read_holds_no_slot_and_stays_unchoked() {
        let mut choker = Choker::new(1);
        (1..=3).for_each(|peer| choker.handle_interested(peer, at(0)));
        drain(&mut choker);
        choker.handle_full(1, at(1));
        assert_eq!(choker.poll_timeout(), Some(at(3)));
        choker.handle_timeout(at(3));
        assert_eq!(drain(&mut choker), [Decision::Unchoke(2)]);
        assert_eq!((choker.unchoked(), choker.slots_taken()), (2, 1));
        choker.handle_took(1, at(5));
        assert_eq!(drain(&mut choker), [Decision::Choke(1)], "its slot has another holder");
        choker.handle_not_interested(2, at(6));
        assert_eq!(drain(&mut choker), [Decision::Choke(2), Decision::Unchoke(3)]);
    }

    #[test]
    fn a_full_socket_that_makes_room_again_keeps_its_slot() {
        let mut choker = Choker::new(1);
        (1..=2).for_each(|peer| choker.handle_interested(peer, at(0)));
        drain(&mut choker);
        for second in 1..20 {
            choker.handle_full(1, at(second));
            choker.handle_timeout(at(second));
            choker.handle_took(1, at(second + 1));
        }
        assert_eq!(drain(&mut choker), []);
    }

    #[test]
    fn those_set_aside_are_bounded() {
        let mut choker = Choker::new(1);
        (0..UNCHOKED_MAX * 3).for_each(|peer| choker.handle_interested(peer, at(0)));
        for second in 0..UNCHOKED_MAX * 3 {
            drain(&mut choker);
            (0..UNCHOKED_MAX * 3).for_each(|peer| choker.handle_full(peer, at(second.into())));
            choker.handle_timeout(at(second.into()));
            assert!(choker.unchoked() <= UNCHOKED_MAX);
        }
        assert_eq!(choker.unchoked(), UNCHOKED_MAX);
        choker.set_slots(0, at(1_000));
        assert_eq!(choker.unchoked(), 0);
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
        Full(PeerKey),
        Slots(u32),
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..20).prop_map(Op::Want),
            1 => (0u32..20).prop_map(Op::Drop),
            1 => (0u32..20).prop_map(Op::Close),
            3 => (0u32..20).prop_map(Op::Took),
            3 => (0u32..20).prop_map(Op::Full),
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
                    Op::Full(p) => choker.handle_full(p, now),
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
                prop_assert_eq!(unchoked.len() as u32, choker.unchoked());
                prop_assert!(choker.slots_taken() <= slots);
                prop_assert!(unchoked.len() == wanting.len() || choker.slots_taken() == slots);
                prop_assert!(slots > 0 || unchoked.is_empty());
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
