//! The policy that is Larder: demand into the real ranking, from there into hot lists, and on every
//! device the real planner. `oracle` and `top` are the same with one thing changed each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use url::Url;

use super::{demand::Event, fleet::Fleet};
use crate::logic::{
    hotlist::{Entry, HotList},
    infohash::Infohash,
    now::{UnixSeconds, WallTime},
    placement::{self, Held, Here},
    ranking::{self, Change, Device, Ranking},
};

/// Leases last this long and are renewed once a day.
const LEASE_SECONDS: u64 = 3 * 86_400;
const RENEWAL: Duration = Duration::from_secs(86_400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// Learns of an epoch's demand at the epoch's start.
    Oracle,
    /// All devices hold what one device would hold.
    Top,
}

pub struct Ours {
    kind: Kind,
    disk_bytes: u64,
    ranking: Ranking,
    plan: ranking::Fleet,
    /// By device: of the hot list those entries that concern it, which is all that its planner looks at.
    lists: Vec<HotList>,
    held: Vec<BTreeMap<Infohash, Held>>,
    asked: BTreeSet<Infohash>,
    renewed_at: f64,
    url: Url,
}

impl Ours {
    pub fn new(kind: Kind, devices: u32, disk_bytes: u64, uplink_bytes_per_second: u64) -> Ours {
        let mut plan = ranking::Fleet::default();
        let planned = if kind == Kind::Top { 1 } else { devices };
        for tag in 0..planned {
            plan.set_device(Device { tag, disk_bytes, uplink_bytes_per_second, online: true });
        }
        let list = HotList {
            format: 1,
            epoch: 1,
            published_at: UnixSeconds(0),
            devices: Some(devices),
            entries: vec![],
        };
        Ours {
            kind,
            disk_bytes,
            ranking: Ranking::new(),
            plan,
            lists: vec![list; devices as usize],
            held: vec![BTreeMap::new(); devices as usize],
            asked: BTreeSet::new(),
            renewed_at: 0.0,
            url: "http://origin.example/".parse().expect("a constant"),
        }
    }

    /// One epoch: the list of its beginning, then what happens in it. Times count from the start of the
    /// run.
    pub fn epoch(
        &mut self,
        fleet: &mut Fleet,
        sizes: &[u64],
        from: f64,
        until: f64,
        events: &[(f64, Event)],
    ) {
        match self.kind {
            Kind::Oracle => {
                self.learn(sizes, events);
                self.publish(fleet, from, until);
                self.serve(fleet, events);
            }
            Kind::Ours | Kind::Top => {
                self.publish(fleet, from, from);
                self.serve(fleet, events);
                self.learn(sizes, events);
            }
        }
    }

    fn learn(&mut self, sizes: &[u64], events: &[(f64, Event)]) {
        for (at, event) in events {
            if let Event::Request(request) = event {
                let infohash = infohash(request.content);
                self.ranking.observe(infohash, sizes[request.content as usize], *at);
                self.asked.insert(infohash);
            }
        }
    }

    fn serve(&mut self, fleet: &mut Fleet, events: &[(f64, Event)]) {
        for (at, event) in events {
            match event {
                Event::Request(request) => drop(fleet.serve(*request, *at)),
                Event::Presence { device, online } => {
                    fleet.set_online(*device, *online);
                    if self.kind != Kind::Top {
                        self.plan.set_online(*device, *online);
                    }
                }
            }
        }
    }

    /// The hub writes a list, the devices follow it.
    fn publish(&mut self, fleet: &mut Fleet, at: f64, known_until: f64) {
        self.ranking.fit_horizon(self.plan.disk_bytes());
        let asked: Vec<Infohash> = std::mem::take(&mut self.asked).into_iter().collect();
        self.plan.plan(&asked, &self.ranking, known_until);
        let mut concerned = BTreeSet::new();
        for change in self.plan.take_changes() {
            let content = content(change.infohash);
            if change.hold {
                fleet.set_parts(content, change.parts);
            }
            let devices = match self.kind {
                Kind::Top => 0..self.lists.len(),
                _ => change.tag as usize..change.tag as usize + 1,
            };
            for device in devices {
                self.enter(device, &change, at, known_until);
                concerned.insert(device);
            }
        }
        if at - self.renewed_at >= RENEWAL.as_secs_f64() {
            self.renewed_at = at;
            concerned.extend(0..self.lists.len());
        }
        for device in concerned {
            self.follow(fleet, device, at);
        }
    }

    fn enter(&mut self, device: usize, change: &Change, at: f64, known_until: f64) {
        let entries = &mut self.lists[device].entries;
        entries.retain(|entry| entry.infohash != change.infohash);
        if !change.hold {
            return;
        }
        let worth = self.ranking.worth(change.infohash, known_until);
        let holders = match self.kind {
            Kind::Top => vec![],
            _ => self.plan.holders(change.infohash),
        };
        entries.push(Entry {
            infohash: change.infohash,
            name: "simulated".into(),
            size_bytes: worth.size_bytes,
            score: worth.expected_requests * worth.size_bytes as f64,
            lease_end: lease_end(at),
            price_class: "standard".into(),
            replicas: 1,
            private: false,
            metainfo_url: self.url.clone(),
            tracker_tiers: vec![],
            web_seeds: vec![],
            holders,
        });
    }

    fn follow(&mut self, fleet: &mut Fleet, device: usize, at: f64) {
        let list = &mut self.lists[device];
        for entry in &mut list.entries {
            entry.lease_end = lease_end(at);
        }
        let held: Vec<Held> = self.held[device].values().copied().collect();
        let mut here = Here::with_quota(self.disk_bytes);
        here.tag = Some(device as u32);
        let now = WallTime::Synced(UnixSeconds(at as u64));
        let plan = placement::plan(list, &held, &here, now);
        for infohash in plan.evict {
            fleet.evict(content(infohash), device as u32);
            self.held[device].remove(&infohash);
        }
        for fill in plan.fill {
            let Some(entry) = list.entry(fill.infohash) else { continue };
            let part = entry.holders.iter().position(|tags| tags.contains(&(device as u32)));
            fleet.fill(content(fill.infohash), part.unwrap_or(0) as u16, device as u32, at);
            let bytes = fill.part.bytes(entry.size_bytes);
            let held = Held {
                infohash: fill.infohash,
                size_bytes: bytes.end - bytes.start,
                part: fill.part,
                complete: true,
                pinned: false,
                egress_bytes_per_second: None,
            };
            self.held[device].insert(fill.infohash, held);
        }
    }
}

fn lease_end(at: f64) -> UnixSeconds {
    UnixSeconds(at as u64 + LEASE_SECONDS)
}

/// Contents have no bytes here, so their names are numbers; spread, as infohashes are.
fn infohash(content: u32) -> Infohash {
    let mut name = [0; 20];
    name[..4].copy_from_slice(&content.wrapping_mul(0x9e37_79b1).to_be_bytes());
    name[16..].copy_from_slice(&content.to_be_bytes());
    Infohash(name)
}

fn content(infohash: Infohash) -> u32 {
    let [.., a, b, c, d] = infohash.0;
    u32::from_be_bytes([a, b, c, d])
}
