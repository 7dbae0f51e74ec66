//! Who gets a place, who loses one, and who stays outside: the limits on connections in all, by
//! address group, by content and while they shake hands. It sees no sockets and closes nothing; it
//! names whom to close. See docs/adr/0021.
//!
//! A place is worth what its holder does with it. When places are short, the first to go is the
//! connection that has gone longest without saying what it wants; then the one that has gone longest
//! without taking anything although it could. A peer that takes, or waits for its turn, is never
//! displaced: then the newcomer stays outside.

mod groups;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use self::groups::Groups;
pub use self::groups::{METADATA, REMEMBERED_MAX};
use super::{
    choke::PeerKey,
    governor::Allowance,
    meter::{Meter, Rate},
    now::Monotonic,
    wire::{ContentKey, METADATA_PIECE_BYTES, Standing},
};

/// One place in so many may be taken by connections that have not named a content yet. They have
/// 10 s for it, and honest ones take a round trip.
const HALF_OPEN_SHARE: u32 = 4;
/// After a look at all connections found nobody to displace, the next look waits so long: a flood of
/// arrivals at a full house costs no search each.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Of the allowance, one byte in so many may be metadata, after a burst: it goes to peers that have no
/// slot, so nothing else keeps a crowd of them from taking all.
const METADATA_SHARE: u64 = 20;
/// The metadata of a content of 25,000 pieces, in pieces of 16 KiB.
const METADATA_AT_ONCE: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections_max: u32,
    /// By IPv4 address or IPv6 /64.
    pub connections_per_group_max: u32,
    pub connections_per_content_max: u32,
}

/// Why a connection is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its address broke the protocol, and is banned for a while")]
    Banned,
    #[error("its address has as many connections as it may")]
    GroupFull,
    #[error("its address connects too often")]
    TooOften,
    #[error("all places are taken by peers that use them")]
    Full,
}

/// What has to be freed before one more can come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// Too many shake hands: this one has done so for longest.
    Displace(PeerKey),
    /// All places are taken by peers that have named a content: ask `least_useful`.
    Full,
}

/// Among whom a place is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    House,
    /// The peers of one content.
    Content,
}

/// A connection as admission knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    pub key: PeerKey,
    /// Counts arrivals, so that the oldest has the lowest.
    pub arrival: u32,
    pub group: IpAddr,
}

/// What a peer's handshake said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub content: ContentKey,
    pub peer_id: [u8; 20],
}

/// What to do with a connection that has just named its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    Stay,
    /// Another connection from the same group has the same id: see `Admission::handle_named`.
    SameAs(PeerKey),
    /// Its content has as many connections as it may: somebody has to go, `least_useful` of its
    /// crowd or the newcomer.
    ContentFull,
}

#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    connections: u32,
    groups: Groups,
    half_open: BTreeMap<u32, PeerKey>,
    by_content: BTreeMap<ContentKey, u32>,
    metadata: Meter,
    metadata_rate: Rate,
    /// By crowd.
    nobody_idle_until: [Monotonic; 2],
}

impl Admission {
    pub fn new(limits: Limits) -> Admission {
        Admission {
            limits,
            connections: 0,
            groups: Groups::new(limits.connections_per_group_max),
            half_open: BTreeMap::new(),
            by_content: BTreeMap::new(),
            metadata: Meter::default(),
            metadata_rate: metadata_rate(Allowance::Paused),
            nobody_idle_until: [Monotonic::START; 2],
        }
    }

    /// Whether the newcomer's group is welcome. Then `room` says whether there is a place.
    pub fn handle_arrival(&mut self, group: IpAddr, now: Monotonic) -> Result<(), Refusal> {
        self.groups.handle_arrival(group, now)
    }

    pub fn room(&self) -> Room {
        let half_open_max = (self.limits.connections_max / HALF_OPEN_SHARE).max(1);
        if !self.is_full() && (self.half_open.len() as u32) < half_open_max {
            return Room::Enough;
        }
        // A plain peer's handshake is on the heels of its connection and is read before this many
        // others can come in, so a flood of silent connections displaces mostly itself.
        match self.half_open.first_key_value() {
            Some((_, oldest)) => Room::Displace(*oldest),
            None => Room::Full,
        }
    }

    /// Whom to displace among peers that have named a content: who could take and has not for
    /// longest. Nobody, if all use their place or wait for their turn.
    pub fn least_useful(
        &mut self,
        crowd: Crowd,
        peers: impl Iterator<Item = (PeerKey, Standing)>,
        now: Monotonic,
    ) -> Option<PeerKey> {
        let nobody_idle_until = &mut self.nobody_idle_until[crowd as usize];
        if now < *nobody_idle_until {
            return None;
        }
        let idle = peers.filter_map(|(key, standing)| match standing {
            Standing::Idle { since } => Some((since, key)),
            Standing::InUse => None,
        });
        let found = idle.min().map(|(_, key)| key);
        if found.is_none() {
            *nobody_idle_until = now + LOOK_AGAIN_AFTER;
        }
        found
    }

    pub fn handle_opened(&mut self, guest: Guest, now: Monotonic) {
        self.connections += 1;
        self.groups.handle_opened(guest.group, now);
        self.half_open.insert(guest.arrival, guest.key);
    }

    /// A peer id proves nothing: whoever hears one can say it. So it counts only together with the
    /// address group. From the same group it is most likely the same client, which has lost its
    /// first connection: the caller keeps the one that works. From another group both stay, each
    /// under its own group's limits; else a stranger could keep an honest peer out with its id.
    ///
    /// `others` are those who have said their name before; looked through only if the group has more
    /// than this one connection. Whatever the answer, the connection is no longer half-open, and is
    /// counted until it is closed.
    pub fn handle_named(
        &mut self,
        guest: Guest,
        name: Name,
        mut others: impl Iterator<Item = (Guest, Name)>,
    ) -> Welcome {
        self.half_open.remove(&guest.arrival);
        let here = self.by_content.entry(name.content).or_default();
        *here += 1;
        if self.groups.connections(guest.group) > 1 {
            let same =
                |(g, n): &(Guest, Name)| g.group == guest.group && *n == name && g.key != guest.key;
            if let Some((first, _)) = others.find(same) {
                return Welcome::SameAs(first.key);
            }
        }
        if *here > self.limits.connections_per_content_max {
            return Welcome::ContentFull;
        }
        Welcome::Stay
    }

    /// Whether a group has a connection here.
    pub fn has_guest_from(&self, group: IpAddr) -> bool {
        self.groups.connections(group) > 0
    }

    /// No place is left that nobody has to be displaced for.
    pub fn is_full(&self) -> bool {
        self.connections >= self.limits.connections_max
    }

    /// `name` if the peer had said it.
    pub fn handle_closed(
        &mut self,
        guest: Guest,
        name: Option<Name>,
        offended: bool,
        now: Monotonic,
    ) {
        self.connections = self.connections.saturating_sub(1);
        self.half_open.remove(&guest.arrival);
        if let Some(name) = name
            && let Some(here) = self.by_content.get_mut(&name.content)
        {
            *here -= 1;
            if *here == 0 {
                self.by_content.remove(&name.content);
            }
        }
        if offended {
            self.groups.handle_offence(guest.group, now);
        }
        self.groups.handle_closed(guest.group, now);
    }

    pub fn set_allowance(&mut self, allowance: Allowance) {
        self.metadata_rate = metadata_rate(allowance);
    }

    /// How many of `pieces` of metadata a group may have now.
    pub fn take_metadata(&mut self, group: IpAddr, pieces: u32, now: Monotonic) -> u32 {
        let pieces = self.groups.take_metadata(group, pieces, now);
        self.metadata.take_some(pieces, self.metadata_rate, now)
    }

    pub fn connections(&self) -> u32 {
        self.connections
    }
}

fn metadata_rate(allowance: Allowance) -> Rate {
    let per_second = match allowance {
        Allowance::Unlimited => u32::MAX,
        Allowance::Paused => 1,
        Allowance::BytesPerSecond(bytes) => {
            let pieces = bytes / METADATA_SHARE / METADATA_PIECE_BYTES as u64;
            u32::try_from(pieces).unwrap_or(u32::MAX).max(1)
        }
    };
    Rate { at_once: METADATA_AT_ONCE.max(per_second), per_second }
}

#[cfg(test)]
mod tests;
