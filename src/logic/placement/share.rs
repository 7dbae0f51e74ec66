//! What part of a listed content falls to this device. A rule without state: every device comes to its
//! answer alone, from the list and its own name, and together they hold what the operator wants held.

use super::{Held, Part};
use crate::logic::{
    hotlist::{Entry, HotList},
    infohash::Infohash,
    ranking::{DeviceTag, part_range, rendezvous},
};

/// The list may say it (`holders`); else, in a fleet whose size the list gives, as many devices as
/// there should be replicas find themselves chosen by rendezvous hashing; else everyone is.
pub fn share(list: &HotList, entry: &Entry, tag: DeviceTag) -> Option<Part> {
    if !entry.holders.is_empty() {
        let part = entry.holders.iter().position(|tags| tags.contains(&tag))?;
        return Some(part_of(entry.size_bytes, entry.holders.len(), part));
    }
    let everyone = list.devices.is_none_or(|devices| entry.replicas >= devices);
    let chosen =
        |devices: u32| drawn(entry.infohash, tag) * f64::from(devices) < f64::from(entry.replicas);
    (everyone || list.devices.is_some_and(chosen)).then(Part::whole)
}

fn part_of(size_bytes: u64, parts: usize, part: usize) -> Part {
    match (u16::try_from(parts), u16::try_from(part)) {
        (Ok(parts), Ok(part)) if parts > 1 => Part::of(part_range(size_bytes, parts, part)),
        _ => Part::whole(),
    }
}

/// From 0 to 1, for each pair of content and device another.
fn drawn(infohash: Infohash, tag: DeviceTag) -> f64 {
    rendezvous(infohash, tag) as f64 / 2f64.powi(64)
}

/// What is held never moves: it grows to another part if that lies beside it, and else stays.
pub fn growth(held: &Held, wanted: Part, listed_bytes: u64) -> Part {
    let length = |part: Part| {
        let bytes = part.bytes(listed_bytes);
        bytes.end - bytes.start
    };
    let grown = held.part.grown_to(wanted);
    let beside = length(grown) <= length(held.part).saturating_add(length(wanted));
    if beside { grown } else { held.part }
}
