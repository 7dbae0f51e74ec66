//! What a device should hold: which contents to fill, in which order, and which to give up, under
//! the owner's disk quota, of which the owner's own pins come first. Simple and stable: value per byte, and a holder's advantage so that two
//! contents of about the same value do not push each other out for ever. Decides; moves no byte.

mod part;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

pub use self::part::Part;
use super::{hotlist::HotList, infohash::Infohash, now::WallTime, units::HumanBytes};

/// What is already held must be beaten by this much per byte before it is evicted: a fill costs
/// ingress and flash wear, so a slightly better content is not worth one.
const HOLDER_ADVANTAGE: f64 = 1.25;

/// A content that has its space on disk already, whole or in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub infohash: Infohash,
    pub size_bytes: u64,
    /// Every piece is there and verified.
    pub complete: bool,
    /// The owner's: it comes before everything that is listed, and is never evicted.
    pub pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For all contents together, held ones included. The caller has already taken what other
    /// people's data and the reserve leave.
    pub quota_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Most valuable first; includes contents that are held in part.
    pub fill: Vec<Infohash>,
    /// To be carried out before filling.
    pub evict: Vec<Infohash>,
    /// Listed contents that are not wanted here, and why. In order of infohash.
    pub refused: Vec<(Infohash, Refusal)>,
}

/// Why a listed content is not held. Reads as a sentence on the owner's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "its {} do not fit into the disk quota of {}; raise cache.quota_bytes to hold it",
        HumanBytes(*size_bytes), HumanBytes(*quota_bytes)
    )]
    LargerThanQuota { size_bytes: u64, quota_bytes: u64 },
    #[error("the disk quota is taken by contents that are wanted more")]
    NoRoom,
    #[error("its lease has ended")]
    LeaseEnded,
    #[error("the time is not known yet, so its lease cannot be checked")]
    TimeUnknown,
}

/// Without a known time nothing new is filled, and nothing held is given up.
pub fn plan(list: &HotList, held: &[Held], budget: Budget, now: WallTime) -> Plan {
    let held: BTreeMap<Infohash, Held> = held.iter().map(|h| (h.infohash, *h)).collect();
    let WallTime::Synced(now) = now else {
        let unknown = |e: &super::hotlist::Entry| (e.infohash, Refusal::TimeUnknown);
        let absent = list.entries.iter().filter(|e| !held.contains_key(&e.infohash));
        let mut refused: Vec<_> = absent.map(unknown).collect();
        refused.sort_unstable_by_key(|(infohash, _)| *infohash);
        return Plan { refused, ..Plan::default() };
    };

    let pinned = |infohash: &Infohash| held.get(infohash).is_some_and(|h| h.pinned);
    let pinned_bytes: u64 = held.values().filter(|h| h.pinned).map(|h| h.size_bytes).sum();
    let mut refused = BTreeMap::new();
    let mut candidates = Vec::new();
    for entry in list.entries.iter().filter(|e| !pinned(&e.infohash)) {
        let size_bytes = entry.size_bytes;
        if entry.lease_end <= now {
            refused.insert(entry.infohash, Refusal::LeaseEnded);
        } else if size_bytes > budget.quota_bytes {
            let quota_bytes = budget.quota_bytes;
            refused.insert(entry.infohash, Refusal::LargerThanQuota { size_bytes, quota_bytes });
        } else {
            let held = held.get(&entry.infohash).copied();
            candidates.push(Candidate::new(entry.infohash, size_bytes, entry.score, held));
        }
    }
    candidates.sort_unstable_by(|a, b| {
        let order = b.value.total_cmp(&a.value);
        order.then_with(|| (Reverse(a.held), a.infohash).cmp(&(Reverse(b.held), b.infohash)))
    });

    let mut plan = Plan::default();
    let mut kept = BTreeSet::new();
    let mut free_bytes = budget.quota_bytes.saturating_sub(pinned_bytes);
    for candidate in candidates {
        let Some(left) = free_bytes.checked_sub(candidate.size_bytes) else {
            refused.insert(candidate.infohash, Refusal::NoRoom);
            continue;
        };
        free_bytes = left;
        kept.insert(candidate.infohash);
        if !candidate.complete {
            plan.fill.push(candidate.infohash);
        }
    }
    let given_up = |infohash: &&Infohash| !kept.contains(infohash) && !pinned(infohash);
    plan.evict = held.keys().filter(given_up).copied().collect();
    plan.refused = refused.into_iter().collect();
    plan
}

struct Candidate {
    infohash: Infohash,
    size_bytes: u64,
    /// Score per byte, with the holder's advantage.
    value: f64,
    held: bool,
    complete: bool,
}

impl Candidate {
    fn new(infohash: Infohash, listed_bytes: u64, score: f64, held: Option<Held>) -> Candidate {
        // What a held content takes on disk counts, whatever the list says about its size.
        let size_bytes = held.map_or(listed_bytes, |h| h.size_bytes);
        let advantage = if held.is_some() { HOLDER_ADVANTAGE } else { 1.0 };
        Candidate {
            infohash,
            size_bytes,
            value: advantage * score / size_bytes.max(1) as f64,
            held: held.is_some(),
            complete: held.is_some_and(|h| h.complete),
        }
    }
}

#[cfg(test)]
mod tests;
