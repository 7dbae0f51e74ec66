//! What placement knows on this device: its name in the list, the owner's budgets, what the owner took
//! off it, and what peers here asked for. Plans nothing itself; `placement` does.

use std::{collections::BTreeSet, time::Duration};

use super::{Node, Phase, content::Content};
use crate::logic::{
    governor::allowance::Traffic,
    infohash::Infohash,
    now::{Monotonic, Now, WallTime},
    placement::{Budgets, Part, Spent},
    ranking::DeviceTag,
};

/// Contents that an owner took off a device; a page with more of them is of no use to anyone.
pub const UNWANTED_MAX: usize = 1_000;
/// With less than the largest piece left of a budget no fill begins.
pub const FILL_BYTES_MIN: u64 = 16 << 20;
/// What peers take is averaged over about this time, and says nothing before a quarter of it.
const SEEN_SECONDS: f64 = 86_400.0;
const SEEN_AFTER: Duration = Duration::from_secs(6 * 3600);

#[derive(Clone, Debug, Default)]
pub struct Placing {
    /// Under which the list may name it.
    pub tag: Option<DeviceTag>,
    pub budgets: Option<Budgets>,
    pub unwanted: BTreeSet<Infohash>,
    /// The budget for which fills wait.
    pub spent: Option<Spent>,
}

/// Payload that peers took of one content, faded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    bytes: f64,
    at: Monotonic,
    since: Monotonic,
}

impl Seen {
    pub fn from(at: Monotonic) -> Seen {
        Seen { bytes: 0.0, at, since: at }
    }

    pub fn add(&mut self, bytes: u64, at: Monotonic) {
        let gone = at.saturating_since(self.at).as_secs_f64();
        self.bytes = self.bytes * (-gone / SEEN_SECONDS).exp() + bytes as f64;
        self.at = at;
    }

    /// `None` until it has been seen for long enough.
    pub fn bytes_per_second(&self, at: Monotonic) -> Option<f64> {
        let seen_for = at.saturating_since(self.since);
        if seen_for < SEEN_AFTER {
            return None;
        }
        let faded = (-at.saturating_since(self.at).as_secs_f64() / SEEN_SECONDS).exp();
        let memory = SEEN_SECONDS * -(-seen_for.as_secs_f64() / SEEN_SECONDS).exp_m1();
        Some(self.bytes * faded / memory)
    }
}

impl Placing {
    /// What may be filled now; remembers which budget says that it is nothing.
    pub(super) fn fill_bytes_left(&mut self, traffic: &Traffic, wall: WallTime) -> u64 {
        let Some(budgets) = &self.budgets else { return u64::MAX };
        let left = budgets.left(traffic, wall);
        let too_little = left.bytes < FILL_BYTES_MIN;
        self.spent = left.by.filter(|_| too_little);
        if too_little { 0 } else { left.bytes }
    }

    pub(super) fn waits_for(&self, content: &Content) -> Option<String> {
        let waiting = content.phase == Phase::Waiting && !content.complete;
        self.spent.filter(|_| waiting).map(|spent| spent.to_string())
    }

    /// A budget for which fills wait leaves something again.
    pub(super) fn may_go_on(&self, traffic: &Traffic, wall: WallTime) -> bool {
        let left = |budgets: &Budgets| budgets.left(traffic, wall).bytes;
        self.spent.is_some() && self.budgets.as_ref().is_none_or(|b| left(b) >= FILL_BYTES_MIN)
    }
}

impl<R: rand::Rng> Node<R> {
    /// Peers took so much of these.
    pub(super) fn served(&mut self, egress: &[(Infohash, u64)], at: Monotonic) {
        for content in self.contents.values_mut().filter(|c| c.phase == Phase::Serving) {
            content.seen.get_or_insert_with(|| Seen::from(at));
        }
        for (infohash, bytes) in egress {
            if let Some(seen) = self.contents.get_mut(infohash).and_then(|c| c.seen.as_mut()) {
                seen.add(*bytes, at);
            }
        }
    }

    /// The owner takes a content off this device, or lets it come back. A pin ends with it.
    pub(super) fn remove(&mut self, infohash: Infohash, removed: bool, now: Now) {
        match removed {
            true if self.placing.unwanted.len() >= UNWANTED_MAX => return,
            true => self.placing.unwanted.insert(infohash),
            false => self.placing.unwanted.remove(&infohash),
        };
        if let Some(content) = self.contents.get_mut(&infohash)
            && removed
            && content.phase != Phase::Leaving
        {
            content.pinned = false;
            if content.stored {
                self.leave(infohash);
            }
        }
        self.replan(now);
    }

    pub(super) fn fill_paused(&mut self, infohash: Infohash, now: Now) {
        self.fill_running.take_if(|filling| *filling == infohash);
        if let Some(content) = self.contents.get_mut(&infohash)
            && content.phase == Phase::Filling
        {
            content.phase = Phase::Waiting;
        }
        self.replan(now);
    }

    pub fn unwanted(&self) -> &BTreeSet<Infohash> {
        &self.placing.unwanted
    }
}

/// The bytes that a part takes on disk, piece boundaries aside.
pub(super) fn bytes_of(part: Part, total_bytes: u64) -> u64 {
    let bytes = part.bytes(total_bytes);
    bytes.end - bytes.start
}
