//! The devices of a simulated fleet: who holds which part, whose uplink is busy until when, and what
//! all of it costs. The same for every policy; decides nothing itself.

use super::demand::Request;
use crate::logic::ranking::{PARTS_MAX, part_bytes};

/// What a downloader takes at most; it waits for the fleet as long as this takes, and what no device
/// can send within that time the origin sends.
const DOWNLOAD_BYTES_PER_SECOND: f64 = 2_500_000.0;
/// Small objects are waited for this long.
const PATIENCE_SECONDS_MIN: f64 = 10.0;
/// A fill comes in at this rate, and is served once it is complete.
const FILL_BYTES_PER_SECOND: f64 = 12_500_000.0;

#[derive(Clone, Debug)]
pub struct Fleet {
    uplink_bytes_per_second: f64,
    online: Vec<bool>,
    busy_until: Vec<f64>,
    /// By content; `parts` is what the policy has cut it into.
    sizes: Vec<u64>,
    copies: Vec<Vec<Copy>>,
    parts: Vec<u16>,
    pub tally: Tally,
    /// A content of which it is counted, from a moment on, what devices did not send.
    pub watch: Option<(u32, f64)>,
    pub watched_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    part: u16,
    device: u32,
    ready_at: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    pub requested_bytes: u64,
    pub egress_bytes: u64,
    pub fill_bytes: u64,
}

/// What no device could serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// One bit for each part of which the origin had to send the larger half.
    pub parts: u64,
}

impl Fleet {
    pub fn new(devices: u32, uplink_bytes_per_second: u64, sizes: &[u64]) -> Fleet {
        Fleet {
            uplink_bytes_per_second: uplink_bytes_per_second as f64,
            online: vec![true; devices as usize],
            busy_until: vec![f64::NEG_INFINITY; devices as usize],
            sizes: sizes.to_vec(),
            copies: vec![Vec::new(); sizes.len()],
            parts: vec![1; sizes.len()],
            tally: Tally::default(),
            watch: None,
            watched_bytes: 0,
        }
    }

    pub fn is_online(&self, device: u32) -> bool {
        self.online[device as usize]
    }

    pub fn set_online(&mut self, device: u32, online: bool) {
        self.online[device as usize] = online;
    }

    /// Into how many parts a content is cut; nobody holds any of it yet.
    pub fn set_parts(&mut self, content: u32, parts: u16) {
        debug_assert!(parts >= 1 && u64::from(parts) <= PARTS_MAX);
        if self.parts[content as usize] != parts {
            debug_assert!(self.copies[content as usize].is_empty());
            self.parts[content as usize] = parts;
        }
    }

    /// Somebody is filling it, who is there.
    pub fn is_coming(&self, content: u32, part: u16, at: f64) -> bool {
        self.copies[content as usize].iter().any(|copy| {
            copy.part == part && copy.ready_at > at && self.online[copy.device as usize]
        })
    }

    pub fn bytes_of(&self, content: u32, part: u16) -> u64 {
        part_bytes(self.sizes[content as usize], self.parts[content as usize], part)
    }

    pub fn holds_any(&self, content: u32, device: u32) -> bool {
        self.copies[content as usize].iter().any(|copy| copy.device == device)
    }

    pub fn fill(&mut self, content: u32, part: u16, device: u32, at: f64) {
        let bytes = self.bytes_of(content, part);
        self.tally.fill_bytes += bytes;
        let ready_at = at + bytes as f64 / FILL_BYTES_PER_SECOND;
        self.copies[content as usize].push(Copy { part, device, ready_at });
    }

    pub fn evict(&mut self, content: u32, device: u32) {
        self.copies[content as usize].retain(|copy| copy.device != device);
    }

    /// Each part comes from the holders whose uplinks are free the soonest, and from the origin.
    pub fn serve(&mut self, request: Request, at: f64) -> Missed {
        let Request { content, bytes } = request;
        let size_bytes = self.sizes[content as usize];
        self.tally.requests += 1;
        self.tally.requested_bytes += bytes;
        let parts = self.parts[content as usize];
        let mut missed = Missed::default();
        let egress_bytes = self.tally.egress_bytes;
        let patience = (bytes as f64 / DOWNLOAD_BYTES_PER_SECOND).max(PATIENCE_SECONDS_MIN);
        for part in 0..parts {
            // Of a smaller request each part has its share.
            let whole = u128::from(self.bytes_of(content, part));
            let wanted = (whole * u128::from(bytes) / u128::from(size_bytes.max(1))) as u64;
            let sent = self.send(content, part, wanted, at, at + patience);
            self.tally.egress_bytes += sent;
            if sent * 2 < wanted {
                missed.parts |= 1 << part;
            }
        }
        if self.watch.is_some_and(|(watched, from)| watched == content && at >= from) {
            self.watched_bytes += bytes - (self.tally.egress_bytes - egress_bytes);
        }
        missed
    }

    fn send(&mut self, content: u32, part: u16, wanted: u64, at: f64, until: f64) -> u64 {
        let mut missing = wanted;
        while missing > 0 {
            let mut soonest: Option<(f64, usize)> = None;
            for copy in &self.copies[content as usize] {
                let device = copy.device as usize;
                let free_at = self.busy_until[device].max(at);
                let can = copy.part == part && self.online[device] && copy.ready_at <= at;
                if can && free_at < until && soonest.is_none_or(|(best, _)| free_at < best) {
                    soonest = Some((free_at, device));
                }
            }
            let Some((free_at, device)) = soonest else { break };
            let room = ((until - free_at) * self.uplink_bytes_per_second) as u64;
            let taken = missing.min(room);
            if taken == 0 {
                break;
            }
            missing -= taken;
            self.busy_until[device] = free_at + taken as f64 / self.uplink_bytes_per_second;
        }
        wanted - missing
    }
}
