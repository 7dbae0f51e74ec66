//! Who of the fleet should hold what: contents go where they displace the least, and only when what
//! they are expected to serve beyond it is worth the fill. Knows the devices only as what they offer.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{Ranking, Worth};
use crate::logic::infohash::Infohash;

/// A device's name in the list: public, short, and the same on every list.
pub type DeviceTag = u32;

/// A fill must be expected to serve this many times its bytes within the horizon, beyond what the
/// contents would have served that it displaces.
const FILL_MUST_EARN: f64 = 0.3;
/// A content is cut into parts of at most this share of a device's disk: then disks fill to the brim,
/// and its downloaders take from many uplinks at once.
const PARTS_PER_DISK: u64 = 16;
/// Parts of one content: the list names holders for each.
pub const PARTS_MAX: u64 = 64;
/// Of so many devices, first by rendezvous hashing, the one is taken that has the most to gain by it.
const CHOICES: usize = 64;
/// A holder's uplink is planned up to this share: demand comes in bursts.
const UPLINK_SHARE: f64 = 0.5;
/// Copies on devices that are away may come back before a new one has earned its fill.
const AWAY_DISCOUNT: f64 = 0.5;
/// Values are looked at again this often within a horizon.
const LOOKS_PER_HORIZON: f64 = 48.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    pub tag: DeviceTag,
    pub disk_bytes: u64,
    pub uplink_bytes_per_second: u64,
    pub online: bool,
}

/// One step of the plan: a device is to hold a part of a content, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub infohash: Infohash,
    pub tag: DeviceTag,
    pub part: u16,
    pub parts: u16,
    pub hold: bool,
}

#[derive(Clone, Debug)]
struct Member {
    device: Device,
    used_bytes: u64,
    /// What it holds, worth least first.
    held: BTreeSet<Held>,
    /// Expected of its uplink.
    load_bytes_per_second: f64,
}

/// Ordered by value, which is never negative: such floats are ordered as their bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    value_bits: u64,
    infohash: Infohash,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Placed {
    size_bytes: u64,
    parts: u16,
    copies: Vec<Copy>,
    /// Expected requests for each copy, as the members' sets have it.
    value: f64,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    part: u16,
    member: usize,
    load_bytes_per_second: f64,
}

/// See the module's first lines.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    members: Vec<Member>,
    by_tag: BTreeMap<DeviceTag, usize>,
    placed: BTreeMap<Infohash, Placed>,
    changes: Vec<Change>,
    /// Given up since the changes were taken: a device is not told to evict and to fill in one breath.
    given_up: BTreeSet<(usize, Infohash)>,
    looked_at: f64,
}

impl Fleet {
    /// A device is there, or has changed.
    pub fn set_device(&mut self, device: Device) {
        let next = self.members.len();
        let index = *self.by_tag.entry(device.tag).or_insert(next);
        match self.members.get_mut(index) {
            Some(member) => member.device = device,
            None => self.members.push(Member {
                device,
                used_bytes: 0,
                held: BTreeSet::new(),
                load_bytes_per_second: 0.0,
            }),
        }
    }

    pub fn set_online(&mut self, tag: DeviceTag, online: bool) {
        if let Some(index) = self.by_tag.get(&tag) {
            self.members[*index].device.online = online;
        }
    }

    pub fn disk_bytes(&self) -> u64 {
        self.members.iter().map(|m| m.device.disk_bytes).sum()
    }

    /// What has been decided since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.given_up.clear();
        std::mem::take(&mut self.changes)
    }

    /// Which devices should hold which part of it; empty if none should.
    pub fn holders(&self, infohash: Infohash) -> Vec<Vec<DeviceTag>> {
        let Some(placed) = self.placed.get(&infohash) else { return vec![] };
        let mut holders = vec![vec![]; usize::from(placed.parts)];
        for copy in &placed.copies {
            holders[usize::from(copy.part)].push(self.members[copy.member].device.tag);
        }
        holders
    }

    /// Plans for contents that were asked for since the last time, most wanted first.
    pub fn plan(&mut self, asked: &[Infohash], ranking: &Ranking, at: f64) {
        if at - self.looked_at >= ranking.horizon_seconds() / LOOKS_PER_HORIZON {
            self.looked_at = at;
            self.look_again(ranking, at);
        }
        let mut asked: Vec<(Infohash, Worth)> =
            asked.iter().map(|infohash| (*infohash, ranking.worth(*infohash, at))).collect();
        for (infohash, worth) in &asked {
            self.revalue(*infohash, worth);
        }
        asked.sort_by(|(a, x), (b, y)| {
            y.expected_requests.total_cmp(&x.expected_requests).then(a.cmp(b))
        });
        for (infohash, worth) in asked {
            if worth.expected_requests < FILL_MUST_EARN {
                break;
            }
            self.place(infohash, &worth);
        }
    }

    /// Everything that is held, at what it is worth now.
    fn look_again(&mut self, ranking: &Ranking, at: f64) {
        for member in &mut self.members {
            member.held.clear();
            member.load_bytes_per_second = 0.0;
        }
        for (infohash, placed) in &mut self.placed {
            let worth = ranking.worth(*infohash, at);
            placed.value = value(&worth, placed, &self.members);
            let load = load(&worth, placed);
            let (size_bytes, parts) = (placed.size_bytes, placed.parts);
            for copy in &mut placed.copies {
                copy.load_bytes_per_second = load;
                let member = &mut self.members[copy.member];
                member.load_bytes_per_second += load;
                let bytes = part_bytes(size_bytes, parts, copy.part);
                member.held.insert(Held::new(placed.value, *infohash, bytes));
            }
        }
    }

    fn revalue(&mut self, infohash: Infohash, worth: &Worth) {
        let Some(placed) = self.placed.get_mut(&infohash) else { return };
        let (before, now) = (placed.value, value(worth, placed, &self.members));
        let load = load(worth, placed);
        placed.value = now;
        let (size_bytes, parts) = (placed.size_bytes, placed.parts);
        for copy in &mut placed.copies {
            let member = &mut self.members[copy.member];
            let bytes = part_bytes(size_bytes, parts, copy.part);
            member.held.remove(&Held::new(before, infohash, bytes));
            member.held.insert(Held::new(now, infohash, bytes));
            member.load_bytes_per_second += load - copy.load_bytes_per_second;
            copy.load_bytes_per_second = load;
        }
    }

    /// As many copies of each part as demand wants and as earn their fill.
    fn place(&mut self, infohash: Infohash, worth: &Worth) {
        let parts = match self.placed.get(&infohash) {
            Some(placed) => placed.parts,
            None => self.parts_for(worth.size_bytes),
        };
        let wanted = self.wanted_copies(worth, parts);
        let mut order = None;
        for part in 0..parts {
            loop {
                let (here, away) = self.copies_of(infohash, part);
                if here >= wanted {
                    break;
                }
                let missing = (wanted - here) as f64 / wanted as f64;
                let discount = if here == 0 && away > 0 { AWAY_DISCOUNT } else { 1.0 };
                let gain = worth.expected_requests * missing * discount;
                let load = worth.bytes_per_second / f64::from(parts) / wanted as f64;
                let bytes = part_bytes(worth.size_bytes, parts, part);
                let order = order.get_or_insert_with(|| self.first_choices(infohash));
                let Some(member) = self.best_member(order, infohash, gain, bytes, load) else {
                    return;
                };
                self.make_room(member, bytes);
                self.hold(
                    infohash,
                    worth,
                    Copy { part, member, load_bytes_per_second: load },
                    parts,
                );
            }
        }
    }

    fn copies_of(&self, infohash: Infohash, part: u16) -> (usize, usize) {
        let copies = self.placed.get(&infohash).into_iter().flat_map(|p| &p.copies);
        let (mut here, mut away) = (0, 0);
        for copy in copies.filter(|copy| copy.part == part) {
            match self.members[copy.member].device.online {
                true => here += 1,
                false => away += 1,
            }
        }
        (here, away)
    }

    /// In proportion to demand, up to one on each device.
    fn wanted_copies(&self, worth: &Worth, parts: u16) -> usize {
        let online = self.members.iter().filter(|m| m.device.online);
        let (count, uplink) = online.fold((0_usize, 0.0), |(count, uplink), m| {
            (count + 1, uplink + m.device.uplink_bytes_per_second as f64)
        });
        let each = UPLINK_SHARE * uplink / count.max(1) as f64;
        let copies = worth.bytes_per_second / f64::from(parts) / each.max(1.0);
        (copies.ceil() as usize).clamp(1, (count / usize::from(parts)).max(1))
    }

    fn parts_for(&self, size_bytes: u64) -> u16 {
        let count = self.members.len().max(1);
        parts_for(size_bytes, self.disk_bytes() / count as u64, count as u32)
    }

    /// The devices on which a content would be looked for first, the same whenever it is asked.
    fn first_choices(&self, infohash: Infohash) -> Vec<usize> {
        let online = self.members.iter().enumerate().filter(|(_, m)| m.device.online);
        let mut order: Vec<(u64, usize)> =
            online.map(|(index, m)| (rendezvous(infohash, m.device.tag), index)).collect();
        if order.len() > CHOICES {
            order.select_nth_unstable(CHOICES);
            order.truncate(CHOICES);
        }
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index).collect()
    }

    fn best_member(
        &self,
        order: &[usize],
        infohash: Infohash,
        gain: f64,
        bytes: u64,
        load: f64,
    ) -> Option<usize> {
        let holds = |index: usize| {
            let copies = self.placed.get(&infohash).into_iter().flat_map(|p| &p.copies);
            self.given_up.contains(&(index, infohash))
                || copies.into_iter().any(|c| c.member == index)
        };
        let mut best: Option<(f64, usize)> = None;
        for index in order.iter().copied().filter(|index| !holds(*index)) {
            let member = &self.members[index];
            let spare = member.device.uplink_bytes_per_second as f64 - member.load_bytes_per_second;
            let carried = if load > 0.0 { (spare / load).clamp(0.1, 1.0) } else { 1.0 };
            let least = best.map_or(FILL_MUST_EARN * bytes as f64, |(net, _)| net);
            let earns = gain * carried * bytes as f64;
            let Some(loss) = member.loss(bytes, earns - least) else { continue };
            if best.is_none_or(|(net, _)| earns - loss > net) {
                best = Some((earns - loss, index));
            }
        }
        best.map(|(_, index)| index)
    }

    fn make_room(&mut self, member: usize, bytes: u64) {
        loop {
            let m = &mut self.members[member];
            if m.used_bytes + bytes <= m.device.disk_bytes {
                return;
            }
            let Some(victim) = m.held.pop_first() else { return };
            m.used_bytes -= victim.bytes;
            let tag = m.device.tag;
            let Some(placed) = self.placed.get_mut(&victim.infohash) else { continue };
            let Some(at) = placed.copies.iter().position(|c| c.member == member) else { continue };
            let copy = placed.copies.swap_remove(at);
            self.members[member].load_bytes_per_second -= copy.load_bytes_per_second;
            let (infohash, parts, part) = (victim.infohash, placed.parts, copy.part);
            self.given_up.insert((member, infohash));
            self.changes.push(Change { infohash, tag, part, parts, hold: false });
            if placed.copies.is_empty() {
                self.placed.remove(&infohash);
            }
        }
    }

    fn hold(&mut self, infohash: Infohash, worth: &Worth, copy: Copy, parts: u16) {
        let size_bytes = worth.size_bytes;
        let fresh = || Placed { size_bytes, parts, copies: vec![], value: worth.expected_requests };
        let placed = self.placed.entry(infohash).or_insert_with(fresh);
        placed.copies.push(copy);
        let bytes = placed.part_bytes(copy.part);
        let member = &mut self.members[copy.member];
        member.used_bytes += bytes;
        member.load_bytes_per_second += copy.load_bytes_per_second;
        member.held.insert(Held::new(placed.value, infohash, bytes));
        let (tag, part) = (member.device.tag, copy.part);
        self.changes.push(Change { infohash, tag, part, parts, hold: true });
    }
}

impl Member {
    /// Expected bytes that are not served when so much room is made; `None` if more than `most`.
    fn loss(&self, bytes: u64, most: f64) -> Option<f64> {
        let free = self.device.disk_bytes.saturating_sub(self.used_bytes);
        let (mut missing, mut loss) = (bytes.saturating_sub(free), 0.0);
        let mut held = self.held.iter();
        while missing > 0 {
            let victim = held.next()?;
            loss += f64::from_bits(victim.value_bits) * victim.bytes as f64;
            if loss > most {
                return None;
            }
            missing = missing.saturating_sub(victim.bytes);
        }
        (loss <= most).then_some(loss)
    }
}

impl Held {
    fn new(value: f64, infohash: Infohash, bytes: u64) -> Held {
        Held { value_bits: value.max(0.0).to_bits(), infohash, bytes }
    }
}

impl Placed {
    fn part_bytes(&self, part: u16) -> u64 {
        part_bytes(self.size_bytes, self.parts, part)
    }
}

/// Into how many parts a content is cut for such a fleet.
pub fn parts_for(size_bytes: u64, disk_bytes: u64, devices: u32) -> u16 {
    let parts = size_bytes.div_ceil((disk_bytes / PARTS_PER_DISK).max(1));
    parts.clamp(1, PARTS_MAX.min(u64::from(devices.max(1)))) as u16
}

/// Of as many equal parts; together they are the whole.
pub fn part_range(size_bytes: u64, parts: u16, part: u16) -> Range<u64> {
    let parts = u128::from(parts.max(1));
    let start = |part: u128| (u128::from(size_bytes) * part / parts) as u64;
    start(u128::from(part))..start(u128::from(part) + 1)
}

pub fn part_bytes(size_bytes: u64, parts: u16, part: u16) -> u64 {
    let Range { start, end } = part_range(size_bytes, parts, part);
    end - start
}

/// Copies share the requests.
fn value(worth: &Worth, placed: &Placed, members: &[Member]) -> f64 {
    let here = placed.copies.iter().filter(|c| members[c.member].device.online).count();
    worth.expected_requests / here.div_ceil(usize::from(placed.parts)).max(1) as f64
}

fn load(worth: &Worth, placed: &Placed) -> f64 {
    worth.bytes_per_second / placed.copies.len().max(usize::from(placed.parts)) as f64
}

/// From the device's public key, as the hub and the device itself know it.
pub fn tag_of(device_key: &str) -> DeviceTag {
    let folded = device_key.bytes().fold(0, |word, byte| mix(word ^ u64::from(byte)));
    (folded >> 32) as DeviceTag
}

/// Rendezvous hashing: every device draws a number for each content, and the lowest ones are chosen.
/// A device that joins or leaves changes nobody else's number.
pub fn rendezvous(infohash: Infohash, tag: DeviceTag) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(word(&infohash.0[..8]) ^ mix(word(&infohash.0[12..]) ^ mix(u64::from(tag))))
}

/// The finishing step of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
