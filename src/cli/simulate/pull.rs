//! The baseline: what was asked for and missed is pulled by one device, and whatever was asked for
//! the longest ago is evicted. As good as it can be made: the whole fleet is one LRU cache, contents
//! are cut into the same parts as ours, and a missed part that has a holder without uplink left gets
//! another one.

use std::collections::BTreeSet;

use super::{demand::Request, fleet::Fleet};

pub struct Pull {
    disk_bytes: u64,
    used_bytes: Vec<u64>,
    /// By device: when it was last asked for, as the bits of a time that is never negative. What was
    /// asked for since then is put right when it is looked at.
    oldest: Vec<BTreeSet<(u64, u32, u16)>>,
    asked_at: Vec<f64>,
}

impl Pull {
    pub fn new(devices: u32, disk_bytes: u64, contents: usize) -> Pull {
        Pull {
            disk_bytes,
            used_bytes: vec![0; devices as usize],
            oldest: vec![BTreeSet::new(); devices as usize],
            asked_at: vec![0.0; contents],
        }
    }

    /// `at` counts from the start of the run.
    pub fn request(&mut self, fleet: &mut Fleet, request: Request, parts: u16, at: f64) {
        let content = request.content;
        fleet.set_parts(content, parts);
        let missed = fleet.serve(request, at);
        self.asked_at[content as usize] = at;
        for part in (0..parts).filter(|part| missed.parts & 1 << part != 0) {
            // Somebody is pulling it already.
            if fleet.is_coming(content, part, at) {
                continue;
            }
            let bytes = fleet.bytes_of(content, part);
            if let Some(device) = self.choose(fleet, content, bytes) {
                self.make_room(fleet, device, bytes);
                fleet.fill(content, part, device, at);
                self.used_bytes[device as usize] += bytes;
                self.oldest[device as usize].insert((at.to_bits(), content, part));
            }
        }
    }

    /// The one with the most room if there is room, else the one that gives up what is oldest.
    fn choose(&mut self, fleet: &Fleet, content: u32, bytes: u64) -> Option<u32> {
        if bytes > self.disk_bytes {
            return None;
        }
        let mut best: Option<((bool, u64), u32)> = None;
        for device in 0..self.used_bytes.len() as u32 {
            if !fleet.is_online(device) || fleet.holds_any(content, device) {
                continue;
            }
            let used = self.used_bytes[device as usize];
            let key = match used + bytes <= self.disk_bytes {
                true => (false, used),
                false => (true, self.oldest_of(device)),
            };
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, device));
            }
        }
        best.map(|(_, device)| device)
    }

    fn oldest_of(&mut self, device: u32) -> u64 {
        let held = &mut self.oldest[device as usize];
        while let Some(&(noted, content, part)) = held.first() {
            let truly = self.asked_at[content as usize].to_bits();
            if truly == noted {
                return noted;
            }
            held.pop_first();
            held.insert((truly, content, part));
        }
        u64::MAX
    }

    fn make_room(&mut self, fleet: &mut Fleet, device: u32, bytes: u64) {
        while self.used_bytes[device as usize] + bytes > self.disk_bytes {
            self.oldest_of(device);
            let Some((_, content, part)) = self.oldest[device as usize].pop_first() else { return };
            self.used_bytes[device as usize] -= fleet.bytes_of(content, part);
            fleet.evict(content, device);
        }
    }
}
