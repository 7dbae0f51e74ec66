//! Decides who is unchoked. Must never unchoke more peers than there are slots, nor let an
//! interested peer wait for ever; it sees no sockets and no rates, only who wants and who takes.
//!
//! BEP 3's tit-for-tat has no meaning for a seeder that never downloads, so the rule is plain: an
//! interested peer is unchoked at once while a slot is free. When slots are short, a peer that has
//! had its tenure goes to the end of the queue, and one that holds a slot without taking anything
//! goes sooner. Each content has a queue of its own, and the next turn goes to the content that is
//! furthest behind its share (`shares`). Whoever took nothing in its last turn comes after those who
//! did not waste one, but not never: a crowd that asks and does not read holds up nobody for long.

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
/// A slot that moved nothing for this long, although it could, is given away if anyone waits for it.
/// A peer far away answers an unchoke within a second, and the slowest clients ask once a second.
pub const UNUSED: Duration = Duration::from_secs(3);
/// While others want them, one turn in so many is for peers that wasted their last.
const SECOND_CHANCE_EVERY: u32 = 8;

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
    waiting: Shares,
    /// They wait too, but had a turn and took nothing.
    second_chances: VecDeque<PeerKey>,
    /// Turns since one of them had one.
    turns_of_others: u32,
    /// Whoever has wasted its last turn, until it takes something or leaves for good.
    wasteful: BTreeSet<PeerKey>,
    decisions: VecDeque<Decision>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    since: Monotonic,
    tenure_end: Monotonic,
    /// Or when it got the slot.
    took_at: Monotonic,
    took: bool,
}

impl Holder {
    fn new(now: Monotonic) -> Holder {
        Holder { since: now, tenure_end: now + TENURE, took_at: now, took: false }
    }

    /// When somebody who waits may have the slot.
    fn yields_at(self) -> Monotonic {
        self.tenure_end.min(self.unused_at())
    }

    /// More are due than wait: it stays, and keeps its place among those who go next.
    fn stay(&mut self, now: Monotonic) {
        self.tenure_end = self.tenure_end.max(now + TENURE);
        self.took_at = self.took_at.max(now);
    }

    fn unused_at(self) -> Monotonic {
        self.took_at + UNUSED
    }
}

impl Choker {
    pub fn new(slots: u32) -> Choker {
        Choker {
            slots: slots as usize,
            wanting: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiting: Shares::default(),
            second_chances: VecDeque::new(),
            turns_of_others: 0,
            wasteful: BTreeSet::new(),
            decisions: VecDeque::new(),
        }
    }

    /// Idempotent: a peer that repeats its interest neither gains nor loses.
    pub fn handle_interested(&mut self, peer: PeerKey, content: ContentKey, now: Monotonic) {
        if self.wanting.contains_key(&peer) {
            return;
        }
        self.wanting.insert(peer, content);
        self.queue(peer, content);
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
        self.wasteful.remove(&peer);
        let about =
            |d: &Decision| matches!(d, Decision::Unchoke(p) | Decision::Choke(p) if *p == peer);
        self.decisions.retain(|d| !about(d));
        self.fill(now);
    }

    /// The peer's socket took bytes of a block, or would have, had there been allowance for them.
    pub fn handle_took(&mut self, peer: PeerKey, now: Monotonic) {
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        holder.took_at = now;
        if !std::mem::replace(&mut holder.took, true) {
            self.wasteful.remove(&peer);
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
            if let Some(content) = self.wanting.get(&peer) {
                self.waiting.push_front(*content, peer);
            }
            self.decisions.push_back(Decision::Choke(peer));
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
        if self.waiting.is_empty() && self.second_chances.is_empty() {
            return None;
        }
        self.holders.values().map(|h| h.yields_at()).min()
    }

    /// Moves on everyone whose time is over, as far as others wait whose turn it is.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        let due = self.holders.iter().filter(|(_, h)| h.yields_at() <= now);
        // A slot that nobody uses goes first, then the one held longest.
        let mut due: Vec<_> = due.map(|(key, h)| (h.unused_at() > now, h.since, *key)).collect();
        due.sort_unstable();
        // Whoever makes room now waits for the next time.
        let mut comers = self.waiting.len() + self.second_chances.len();
        for (used, _, peer) in due {
            if comers > 0 && self.move_on(peer, used, now) {
                comers -= 1;
            } else if let Some(holder) = self.holders.get_mut(&peer) {
                holder.stay(now);
            }
        }
        self.fill(now);
    }

    /// To the end of the queue, if somebody else is to have the slot.
    fn move_on(&mut self, peer: PeerKey, used: bool, now: Monotonic) -> bool {
        let Some(content) = self.wanting.get(&peer).copied() else { return false };
        let second_chance = self.is_second_chance_due(used);
        if used && !second_chance {
            if self.waiting.is_empty() {
                return false;
            }
            if self.waiting.prefers(content) {
                // The turn is its content's again, and nobody else waits for that.
                self.waiting.charge(content);
                self.holders.insert(peer, Holder { took: true, ..Holder::new(now) });
                return true;
            }
        }
        let Some(next) = self.next(second_chance) else { return false };
        if self.holders.remove(&peer).is_some_and(|h| !h.took) {
            self.wasteful.insert(peer);
        }
        self.decisions.push_back(Decision::Choke(peer));
        self.unchoke(next, now);
        self.queue(peer, content);
        true
    }

    /// Counts the turns that pass them by.
    fn is_second_chance_due(&mut self, used: bool) -> bool {
        if self.second_chances.is_empty() {
            self.turns_of_others = 0;
            return false;
        }
        self.turns_of_others += 1;
        // A slot that nobody uses is theirs at once when nobody else wants it.
        let due = self.turns_of_others >= SECOND_CHANCE_EVERY || (!used && self.waiting.is_empty());
        if due {
            self.turns_of_others = 0;
        }
        due
    }

    /// Who has the next turn.
    fn next(&mut self, second_chance: bool) -> Option<PeerKey> {
        let first = if second_chance { self.second_chances.pop_front() } else { None };
        first.or_else(|| self.waiting.pop()).or_else(|| self.second_chances.pop_front())
    }

    fn queue(&mut self, peer: PeerKey, content: ContentKey) {
        if self.wasteful.contains(&peer) {
            self.second_chances.push_back(peer);
        } else {
            self.waiting.push_back(content, peer);
        }
    }

    pub fn unchoked(&self) -> u32 {
        self.holders.len() as u32
    }

    /// Whether it held a slot.
    fn leave(&mut self, peer: PeerKey) -> bool {
        let Some(content) = self.wanting.remove(&peer) else { return false };
        match self.holders.remove(&peer) {
            Some(holder) => {
                if !holder.took {
                    self.wasteful.insert(peer);
                }
                true
            }
            None => {
                self.waiting.remove(content, peer);
                self.second_chances.retain(|p| *p != peer);
                false
            }
        }
    }

    fn fill(&mut self, now: Monotonic) {
        while self.holders.len() < self.slots
            && let Some(peer) = self.next(false)
        {
            self.unchoke(peer, now);
        }
        self.waiting.settle();
    }

    fn unchoke(&mut self, peer: PeerKey, now: Monotonic) {
        self.holders.insert(peer, Holder::new(now));
        self.decisions.push_back(Decision::Unchoke(peer));
    }
}

#[cfg(test)]
mod tests;
