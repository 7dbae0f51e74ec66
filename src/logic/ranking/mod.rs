//! The hub's brain: from requests, whoever saw them, to what each content is worth to the fleet. It
//! learns from the demand itself which past tells the future; it reads no clock and no file.

mod curve;
mod fleet;
mod memory;

use std::collections::BTreeMap;

pub use self::fleet::{
    Change, Device, DeviceTag, Fleet, PARTS_MAX, part_bytes, part_range, parts_for, rendezvous,
    tag_of,
};
use self::{
    curve::DailyCurve,
    memory::{Memory, Trail},
};
use super::infohash::Infohash;

/// Contents whose demand is remembered: about 120 bytes each. Beyond it those that were not asked for
/// the longest are forgotten, a tenth at a time.
pub const CONTENTS_MAX: usize = 1_000_000;
/// The horizon is the time in which this many times the fleet's disks are asked for: a content that is
/// of middling worth is then asked for a few times within it.
const DISKS_PER_HORIZON: f64 = 4.0;
const HORIZON_SECONDS_MIN: f64 = 60.0;
const HORIZON_SECONDS_MAX: f64 = 30.0 * 86_400.0;
/// Over about this time the demand as a whole is averaged.
const DEMAND_MEMORY_SECONDS: f64 = 2.0 * 86_400.0;

/// See the module's first lines.
#[derive(Clone, Debug)]
pub struct Ranking {
    contents: BTreeMap<Infohash, Seen>,
    contents_max: usize,
    memory: Memory,
    curve: DailyCurve,
    /// Bytes asked for, faded.
    asked_bytes: f64,
    asked_at: f64,
    began_at: Option<f64>,
}

#[derive(Clone, Debug)]
struct Seen {
    trail: Trail,
    size_bytes: u64,
}

/// What a content is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worth {
    /// Within the horizon; also the bytes served for each byte that is held.
    pub expected_requests: f64,
    /// What downloaders take now.
    pub bytes_per_second: f64,
    pub size_bytes: u64,
}

impl Ranking {
    pub fn new() -> Ranking {
        Ranking::with_contents_max(CONTENTS_MAX)
    }

    pub fn with_contents_max(contents_max: usize) -> Ranking {
        Ranking {
            contents: BTreeMap::new(),
            contents_max: contents_max.max(1),
            memory: Memory::new(86_400.0),
            curve: DailyCurve::default(),
            asked_bytes: 0.0,
            asked_at: 0.0,
            began_at: None,
        }
    }

    /// Somebody asked for the whole of a content. Times are seconds since 1970 and do not go back.
    pub fn observe(&mut self, infohash: Infohash, size_bytes: u64, at: f64) {
        let began_at = *self.began_at.get_or_insert(at);
        let weight = self.curve.observe(at);
        self.asked_bytes *= ((self.asked_at - at).min(0.0) / DEMAND_MEMORY_SECONDS).exp();
        self.asked_bytes += size_bytes as f64;
        self.asked_at = self.asked_at.max(at);
        debug_assert!(began_at <= self.asked_at);
        if self.contents.len() >= self.contents_max && !self.contents.contains_key(&infohash) {
            self.forget_oldest();
        }
        let fresh = || Seen { trail: Trail::new(at), size_bytes };
        let seen = self.contents.entry(infohash).or_insert_with(fresh);
        seen.size_bytes = size_bytes;
        self.memory.observe(&mut seen.trail, weight, at);
    }

    pub fn worth(&self, infohash: Infohash, at: f64) -> Worth {
        let Some(seen) = self.contents.get(&infohash) else { return Worth::default() };
        Worth {
            expected_requests: self.memory.expected_requests(&seen.trail, at),
            bytes_per_second: self.memory.requests_per_second(&seen.trail, at)
                * seen.size_bytes as f64,
            size_bytes: seen.size_bytes,
        }
    }

    pub fn horizon_seconds(&self) -> f64 {
        self.memory.horizon_seconds()
    }

    /// The fleet's disks say how far to look ahead. Steps of two, so that what was learned for one
    /// horizon serves for a long time.
    pub fn fit_horizon(&mut self, fleet_disk_bytes: u64) {
        let Some(began_at) = self.began_at else { return };
        let elapsed = (self.asked_at - began_at).max(1.0);
        let memory = DEMAND_MEMORY_SECONDS * -(-elapsed / DEMAND_MEMORY_SECONDS).exp_m1();
        let per_second = self.asked_bytes / memory;
        if per_second <= 0.0 {
            return;
        }
        let wanted = DISKS_PER_HORIZON * fleet_disk_bytes as f64 / per_second;
        let wanted = wanted.clamp(HORIZON_SECONDS_MIN, HORIZON_SECONDS_MAX);
        let held = self.memory.horizon_seconds();
        if !(held / 2.0..held * 2.0).contains(&wanted) {
            self.memory.set_horizon(wanted.log2().round().exp2());
        }
    }

    fn forget_oldest(&mut self) {
        let mut last: Vec<f64> = self.contents.values().map(|s| s.trail.last_at()).collect();
        let tenth = last.len() / 10;
        let (_, limit, _) = last.select_nth_unstable_by(tenth, f64::total_cmp);
        let limit = *limit;
        self.contents.retain(|_, seen| seen.trail.last_at() > limit);
    }
}

impl Default for Ranking {
    fn default() -> Self {
        Ranking::new()
    }
}
