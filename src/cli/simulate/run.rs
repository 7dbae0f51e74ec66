//! Plays one demand against one fleet under each policy in turn, epoch by epoch, and adds up what came
//! of it.

use serde::Serialize;

use super::{
    demand::{Demand, Event, SimulateError},
    fleet::Fleet,
    ours::{Kind, Ours},
    pull::Pull,
};
use crate::logic::ranking::parts_for;

/// Events of one epoch are held in memory, 32 bytes each.
const EPOCH_EVENTS_MAX: usize = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Larder: ranking, hot list and planner.
    Ours,
    /// What was missed is pulled by one device; the least recently used is evicted.
    Pull,
    /// Every device holds the same most wanted contents.
    Top,
    /// Ours, told of each epoch's demand at its start.
    Oracle,
}

impl Policy {
    pub fn name(self) -> &'static str {
        match self {
            Policy::Ours => "ours",
            Policy::Pull => "pull",
            Policy::Top => "top",
            Policy::Oracle => "oracle",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub devices: u32,
    pub disk_bytes: u64,
    pub uplink_bytes_per_second: u64,
    pub epoch_seconds: f64,
}

/// What one policy came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    pub policy: &'static str,
    /// Of the bytes that downloaders asked for, those that devices sent.
    pub offload_ratio: f64,
    /// To downloaders, and for fills.
    pub origin_bytes: u64,
    pub fill_bytes: u64,
    pub flash_bytes_written: u64,
    pub egress_bytes: u64,
    pub requested_bytes: u64,
    pub requests: u64,
    /// Of the bytes that downloaders asked for, those by which the origin sent less than without us.
    pub net_offload_ratio: f64,
}

enum Player {
    Pull { pull: Box<Pull>, parts: Vec<u16> },
    Ours(Box<Ours>),
}

pub fn run(demand: &dyn Demand, scene: Scene, policy: Policy) -> Result<Outcome, SimulateError> {
    play(demand, scene, policy, None).map(|fleet| Outcome::new(policy, &fleet))
}

/// What the origin had to send of one content to downloaders, from a moment on, under `ours`.
#[cfg(test)]
pub fn missed_bytes(
    demand: &dyn Demand,
    scene: Scene,
    content: u32,
    from: f64,
) -> Result<u64, SimulateError> {
    play(demand, scene, Policy::Ours, Some((content, from))).map(|fleet| fleet.watched_bytes)
}

fn play(
    demand: &dyn Demand,
    scene: Scene,
    policy: Policy,
    watch: Option<(u32, f64)>,
) -> Result<Fleet, SimulateError> {
    let sizes = demand.catalogue();
    let Scene { devices, disk_bytes, uplink_bytes_per_second, .. } = scene;
    let ours = |kind| {
        Player::Ours(Box::new(Ours::new(kind, devices, disk_bytes, uplink_bytes_per_second)))
    };
    let mut player = match policy {
        Policy::Ours => ours(Kind::Ours),
        Policy::Oracle => ours(Kind::Oracle),
        Policy::Top => ours(Kind::Top),
        Policy::Pull => Player::Pull {
            pull: Box::new(Pull::new(devices, disk_bytes, sizes.len())),
            parts: sizes.iter().map(|size| parts_for(*size, disk_bytes, devices)).collect(),
        },
    };
    let mut fleet = Fleet::new(devices, uplink_bytes_per_second, sizes);
    fleet.watch = watch;
    let mut epoch = Epoch { start: None, number: 0, events: vec![] };
    demand.play(devices, &mut |at, event| {
        // What is empty cannot be served, nor missed.
        if matches!(event, Event::Request(request) if request.bytes == 0) {
            return Ok(());
        }
        let at = at - *epoch.start.get_or_insert(at);
        let number = (at / scene.epoch_seconds) as u64;
        if number != epoch.number {
            epoch.play(&mut player, &mut fleet, sizes, scene.epoch_seconds);
            epoch.number = number;
        }
        if epoch.events.len() >= EPOCH_EVENTS_MAX {
            let requests = epoch.events.len();
            return Err(SimulateError::EpochTooLong {
                requests,
                epoch_seconds: scene.epoch_seconds,
            });
        }
        epoch.events.push((at, event));
        Ok(())
    })?;
    epoch.play(&mut player, &mut fleet, sizes, scene.epoch_seconds);
    Ok(fleet)
}

struct Epoch {
    start: Option<f64>,
    number: u64,
    events: Vec<(f64, Event)>,
}

impl Epoch {
    fn play(&mut self, player: &mut Player, fleet: &mut Fleet, sizes: &[u64], seconds: f64) {
        let from = self.number as f64 * seconds;
        match player {
            Player::Ours(ours) => ours.epoch(fleet, sizes, from, from + seconds, &self.events),
            Player::Pull { pull, parts } => {
                for (at, event) in &self.events {
                    match *event {
                        Event::Request(request) => {
                            pull.request(fleet, request, parts[request.content as usize], *at);
                        }
                        Event::Presence { device, online } => fleet.set_online(device, online),
                    }
                }
            }
        }
        self.events.clear();
    }
}

impl Outcome {
    fn new(policy: Policy, fleet: &Fleet) -> Outcome {
        let tally = fleet.tally;
        let requested = tally.requested_bytes.max(1) as f64;
        let origin_bytes = tally.requested_bytes - tally.egress_bytes + tally.fill_bytes;
        Outcome {
            policy: policy.name(),
            offload_ratio: tally.egress_bytes as f64 / requested,
            origin_bytes,
            fill_bytes: tally.fill_bytes,
            flash_bytes_written: tally.fill_bytes,
            egress_bytes: tally.egress_bytes,
            requested_bytes: tally.requested_bytes,
            requests: tally.requests,
            net_offload_ratio: 1.0 - origin_bytes as f64 / requested,
        }
    }
}
