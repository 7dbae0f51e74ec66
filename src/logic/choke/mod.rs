//! Decides who is unchoked. Must never unchoke more peers than there are slots, nor let an
//! interested peer wait for ever; it sees no sockets and no rates, only who wants and who takes.
//!
//! BEP 3's tit-for-tat has no meaning for a seeder that never downloads, so the rule is plain: an
//! interested peer is unchoked at once while a slot is free. When slots are short, a peer that has
//! had its tenure goes to the end of the queue, and one that holds a slot without taking anything
//! goes sooner. One whose socket stays full is set aside: it may go on requesting, but what it does
//! not read holds no slot (docs/adr/0019). Each content has a queue of its own, and the next turn goes to
//! the content that is furthest behind its share (`shares`).

mod shares;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use self::shares::Shares;
pub use self::shares::{PIN_WEIGHT, WEIGHT_MAX, weight_of};
use super::{governor::Allowance, now::Monotonic, wire::ContentKey};

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
    /// Everyone who is interested, holder or not, with what it wants.
    wanting: BTreeMap<PeerKey, ContentKey>,
    holders: BTreeMap<PeerKey, Holder>,
    /// How many of the holders are set aside.
    aside: usize,
    /// Who did not use its last turn to the end. In the next it is set aside as soon as its socket is
    /// full, and when it takes nothing for as long as another's socket may be full.
    slow: BTreeSet<PeerKey>,
    waiting: Shares,
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
            wanting: BTreeMap::new(),
            holders: BTreeMap::new(),
            aside: 0,
            slow: BTreeSet::new(),
            waiting: Shares::default(),
            decisions: VecDeque::new(),
        }
    }

    /// Idempotent: a peer that repeats its interest neither gains nor loses.
    pub fn handle_interested(&mut self, peer: PeerKey, content: ContentKey, now: Monotonic) {
        if self.wanting.contains_key(&peer) {
            return;
        }
        self.wanting.insert(peer, content);
        self.waiting.push_back(content, peer);
        self.fill(now);
    }

    /// Gives the slot to the next; a peer without interest is choked.
    pub fn handle_not_interested(&mut self, peer: PeerKey, now: Monotonic) {
        if self.leave(peer) {
            self.decisions.push_back(Decision::Choke(peer));
        }
        self.fill(now);
    }

    /// As `handle_not_interested`, but nobody is there any more to be told.
    pub fn handle_closed(&mut self, peer: PeerKey, now: Monotonic) {
        self.leave(peer);
        self.slow.remove(&peer);
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
            if let Some(content) = self.wanting.get(&peer) {
                self.waiting.push_front(*content, peer);
            }
            self.decisions.push_back(Decision::Choke(peer));
        }
        while self.holders.len() > self.unchoked_max() {
            self.choke_one_aside();
        }
        self.fill(now);
    }

    /// What share of the slots a content gets when they are short: 1 to `WEIGHT_MAX`, 1 until told.
    pub fn set_weight(&mut self, content: ContentKey, weight: u32) {
        self.waiting.set_weight(content, weight);
    }

    /// A content is not served any more; its peers were closed before.
    pub fn forget(&mut self, content: ContentKey) {
        self.waiting.forget(content);
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
            if unused || !self.extend(peer, now) {
                // Whoever has waited comes before whoever makes room.
                let next = self.waiting.pop();
                self.send_to_the_end(peer);
                if let Some(next) = next {
                    self.unchoke(next, now);
                }
            }
        }
        self.fill(now);
    }

    /// One tenure more, if the next turn is its content's and nobody else waits for that.
    fn extend(&mut self, peer: PeerKey, now: Monotonic) -> bool {
        let content = self.wanting.get(&peer).copied();
        let Some(content) = content.filter(|content| self.waiting.prefers(*content)) else {
            return false;
        };
        self.waiting.charge(content);
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.since = now;
        }
        true
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
            && let Some(peer) = self.waiting.pop()
        {
            self.unchoke(peer, now);
        }
        self.waiting.settle();
    }

    fn unchoke(&mut self, peer: PeerKey, now: Monotonic) {
        if self.holders.len() >= self.unchoked_max() {
            self.choke_one_aside();
        }
        let steps_aside_at = self.slow.contains(&peer).then_some(now + PATIENCE);
        let holder = Holder { since: now, took_at: now, steps_aside_at, aside: false };
        self.holders.insert(peer, holder);
        self.decisions.push_back(Decision::Unchoke(peer));
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
        if let Some(content) = self.wanting.get(&peer) {
            self.waiting.push_back(*content, peer);
        }
        self.decisions.push_back(Decision::Choke(peer));
    }

    /// Forgets what it wanted. Whether it was unchoked.
    fn leave(&mut self, peer: PeerKey) -> bool {
        let Some(content) = self.wanting.remove(&peer) else { return false };
        self.waiting.remove(content, peer);
        self.remove(peer)
    }

    /// Whether it was unchoked.
    fn remove(&mut self, peer: PeerKey) -> bool {
        let removed = self.holders.remove(&peer);
        self.aside -= usize::from(removed.is_some_and(|holder| holder.aside));
        removed.is_some()
    }
}

#[cfg(test)]
mod tests;
