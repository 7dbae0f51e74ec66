//! What a device should hold: which contents, or which parts of them, to fill, in which order, and which
//! to give up, under the owner's budgets. Stable: a content that is held has an advantage, so that two
//! of about the same value do not push each other out for ever. Decides; moves no byte.

mod budget;
mod part;
mod share;
mod value;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

pub use self::{
    budget::{Budgets, FLASH_BYTES_PER_DAY_DEFAULT, FLASH_PERCENT_OF_EGRESS_DEFAULT, Left, Spent},
    part::Part,
    share::share,
};
use super::{
    hotlist::{Entry, HotList},
    infohash::Infohash,
    now::{UnixSeconds, WallTime},
    ranking::DeviceTag,
    units::{HumanBytes, Micros},
};

/// A content that has its space on disk already, whole or in part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    pub infohash: Infohash,
    /// That it takes on disk, or will once it is filled.
    pub size_bytes: u64,
    pub part: Part,
    /// Every piece of the part is there and verified.
    pub complete: bool,
    /// The owner's: it comes before everything that is listed, and is never evicted.
    pub pinned: bool,
    /// What peers here took of it, in bytes a second over about a day; `None` if that is not known yet.
    pub egress_bytes_per_second: Option<f64>,
}

/// What the device that plans may spend, and what it is to the fleet.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Under which the list may name it; without one everything listed is for it.
    pub tag: Option<DeviceTag>,
    /// For all contents together, held ones included. The caller has already taken what other
    /// people's data and the reserve leave.
    pub quota_bytes: u64,
    /// What each class earns (the policy's); without one all are alike.
    pub prices: Option<&'a BTreeMap<String, Micros>>,
    /// Contents that the owner took off this device.
    pub unwanted: Option<&'a BTreeSet<Infohash>>,
}

impl Here<'_> {
    pub fn with_quota(quota_bytes: u64) -> Here<'static> {
        Here { tag: None, quota_bytes, prices: None, unwanted: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub infohash: Infohash,
    pub part: Part,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Most valuable first; includes contents that are held in part.
    pub fill: Vec<Fill>,
    /// To be carried out before filling.
    pub evict: Vec<Infohash>,
    /// Listed contents that are not wanted here, and why. In order of infohash.
    pub refused: Vec<(Infohash, Refusal)>,
}

impl Plan {
    pub fn fills(&self, infohash: Infohash) -> Option<Part> {
        self.fill.iter().find(|fill| fill.infohash == infohash).map(|fill| fill.part)
    }
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
    #[error("the operator has other devices hold it")]
    Elsewhere,
    #[error("you removed it from this device; allow it again to have it filled")]
    Removed,
}

impl Refusal {
    /// Somebody should do something about it; the rest is as the owner and the operator want it.
    pub fn is_problem(self) -> bool {
        !matches!(self, Refusal::NoRoom | Refusal::Elsewhere | Refusal::Removed)
    }
}

/// Without a known time nothing new is filled, and nothing held is given up.
pub fn plan(list: &HotList, held: &[Held], here: &Here, now: WallTime) -> Plan {
    let held: BTreeMap<Infohash, Held> = held.iter().map(|h| (h.infohash, *h)).collect();
    let WallTime::Synced(now) = now else { return without_time(list, &held) };

    let pinned = |infohash: &Infohash| held.get(infohash).is_some_and(|h| h.pinned);
    let pinned_bytes: u64 = held.values().filter(|h| h.pinned).map(|h| h.size_bytes).sum();
    let scale = value::Scale::new(here.prices, held.values());
    let mut refused = BTreeMap::new();
    let mut candidates = Vec::new();
    for entry in list.entries.iter().filter(|e| !pinned(&e.infohash)) {
        match candidate(list, entry, held.get(&entry.infohash), here, &scale, now) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => drop(refused.insert(entry.infohash, refusal)),
        }
    }
    candidates.sort_unstable_by(|a, b| {
        let order = a.surplus.cmp(&b.surplus).then(b.value.total_cmp(&a.value));
        order.then_with(|| (Reverse(a.held), a.infohash).cmp(&(Reverse(b.held), b.infohash)))
    });

    let mut plan = Plan::default();
    let mut kept = BTreeSet::new();
    let mut free_bytes = here.quota_bytes.saturating_sub(pinned_bytes);
    for candidate in candidates {
        let Some(left) = free_bytes.checked_sub(candidate.size_bytes) else {
            refused.insert(candidate.infohash, Refusal::NoRoom);
            continue;
        };
        free_bytes = left;
        kept.insert(candidate.infohash);
        if !candidate.complete {
            plan.fill.push(Fill { infohash: candidate.infohash, part: candidate.part });
        }
    }
    let given_up = |infohash: &&Infohash| !kept.contains(infohash) && !pinned(infohash);
    plan.evict = held.keys().filter(given_up).copied().collect();
    plan.refused = refused.into_iter().collect();
    plan
}

fn without_time(list: &HotList, held: &BTreeMap<Infohash, Held>) -> Plan {
    let unknown = |e: &Entry| (e.infohash, Refusal::TimeUnknown);
    let absent = list.entries.iter().filter(|e| !held.contains_key(&e.infohash));
    let mut refused: Vec<_> = absent.map(unknown).collect();
    refused.sort_unstable_by_key(|(infohash, _)| *infohash);
    Plan { refused, ..Plan::default() }
}

struct Candidate {
    infohash: Infohash,
    part: Part,
    size_bytes: u64,
    /// The operator wants it on other devices: it comes last.
    surplus: bool,
    value: f64,
    held: bool,
    complete: bool,
}

fn candidate(
    list: &HotList,
    entry: &Entry,
    held: Option<&Held>,
    here: &Here,
    scale: &value::Scale,
    now: UnixSeconds,
) -> Result<Candidate, Refusal> {
    if entry.lease_end <= now {
        return Err(Refusal::LeaseEnded);
    }
    if here.unwanted.is_some_and(|unwanted| unwanted.contains(&entry.infohash)) {
        return Err(Refusal::Removed);
    }
    let wanted = here.tag.map_or(Some(Part::whole()), |tag| share(list, entry, tag));
    let part = match (held, wanted) {
        (None, Some(wanted)) => wanted,
        (Some(held), Some(wanted)) => share::growth(held, wanted, entry.size_bytes),
        // While nothing else needs the room, a copy too many costs nothing.
        (Some(held), None) if held.complete => held.part,
        (_, None) => return Err(Refusal::Elsewhere),
    };
    // What a held content takes on disk counts, whatever the list says about its size.
    let size_bytes = match held {
        Some(held) if part == held.part => held.size_bytes,
        _ => {
            let bytes = part.bytes(entry.size_bytes);
            bytes.end - bytes.start
        }
    };
    if size_bytes > here.quota_bytes {
        return Err(Refusal::LargerThanQuota { size_bytes, quota_bytes: here.quota_bytes });
    }
    Ok(Candidate {
        infohash: entry.infohash,
        part,
        size_bytes,
        surplus: wanted.is_none(),
        value: scale.value(entry, held, now),
        held: held.is_some(),
        complete: held.is_some_and(|h| h.complete && h.part == part),
    })
}

#[cfg(test)]
mod tests;
