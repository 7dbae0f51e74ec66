//! Whom to call, of the leechers that trackers name: a device behind a NAT is found by nobody, but can
//! find others. Must never let a tracker use the household for more than a polite knock: one call in a
//! quarter of an hour for who has not answered, a few under way, one begun in a second, none into a home.
//!
//! Addresses are known by group (one IPv4 address, one IPv6 /64), whatever the port: else a tracker
//! could have a host's ports scanned.

mod addresses;
mod answer;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use addresses::{compact_v4, compact_v6, may_call};
pub use answer::{Announced, AnswerError, MAX_ANSWER_BYTES};

use super::{governor::address_group, infohash::Infohash, now::Monotonic};

/// Leechers that a tracker is asked for, and of an answer no more are looked at. A home's uplink
/// serves a few dozen.
pub const NAMED_MAX: usize = 50;
/// For all contents together.
const WAITING_MAX: usize = 200;
/// Calls that nobody has answered yet. Home routers have small tables for connections.
pub const HALF_OPEN_MAX: usize = 4;
/// From one call to the next.
pub const GAP: Duration = Duration::from_secs(1);
/// A leecher is gone, or has found others, when its name has waited this long.
const STALE: Duration = Duration::from_secs(30 * 60);
/// Until the same address is called again after the first failure. Each further one doubles it.
pub const AGAIN: Duration = Duration::from_secs(15 * 60);
/// The same after the first visit; each further one doubles it, up to the above. Short, because a client
/// that has the metadata of its magnet link by then closes everything and begins anew (Transmission 3).
pub const AFTER_VISIT: Duration = Duration::from_secs(15);
/// The longest of these, and what follows when there is nothing to come back for.
const AGAIN_LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Addresses whose rest is remembered, about 60 bytes each. When it is full, nobody new is called
/// until one may be forgotten: at one call a second it holds more than half an hour.
const REMEMBERED_MAX: usize = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub infohash: Infohash,
    pub address: SocketAddr,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody answered, or not as a peer.
    Failed,
    /// A peer answered, whatever came of it.
    Visited,
    /// It has everything, is ourselves, or misbehaves.
    Needless,
}

#[derive(Debug)]
pub struct Outreach {
    may_call: fn(SocketAddr) -> bool,
    waiting: VecDeque<Waiting>,
    remembered: BTreeMap<IpAddr, Remembered>,
    half_open: usize,
    next_at: Monotonic,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    call: Call,
    named_at: Monotonic,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    state: State,
    /// Since it last answered.
    failures: u32,
    visits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Called,
    Connected,
    RestsUntil(Monotonic),
}

impl Remembered {
    fn is_free(self, now: Monotonic) -> bool {
        matches!(self.state, State::RestsUntil(end) if end <= now)
    }
}

impl Outreach {
    /// `may_call` says which addresses are of the internet; see [`may_call`].
    pub fn new(may_call: fn(SocketAddr) -> bool) -> Outreach {
        Outreach {
            may_call,
            waiting: VecDeque::new(),
            remembered: BTreeMap::new(),
            half_open: 0,
            next_at: Monotonic::START,
        }
    }

    /// A tracker names leechers of a content; what it said before is forgotten. `is_ours` tells the
    /// household's own addresses.
    pub fn handle_named(
        &mut self,
        infohash: Infohash,
        leechers: &[SocketAddr],
        is_ours: impl Fn(SocketAddr) -> bool,
        now: Monotonic,
    ) {
        self.handle_removed(infohash);
        for &address in leechers.iter().take(NAMED_MAX) {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let group = address_group(address.ip());
            let waits = |w: &Waiting| address_group(w.call.address.ip()) == group;
            if self.waiting.len() < WAITING_MAX
                && (self.may_call)(address)
                && !is_ours(address)
                && self.is_free(group, now)
                && !self.waiting.iter().any(waits)
            {
                let call = Call { infohash, address };
                self.waiting.push_back(Waiting { call, named_at: now });
            }
        }
    }

    /// The content is not served any more.
    pub fn handle_removed(&mut self, infohash: Infohash) {
        self.waiting.retain(|w| w.call.infohash != infohash);
    }

    /// Whoever was called is a peer.
    pub fn handle_answered(&mut self, address: SocketAddr) {
        if let Some(known) = self.remembered.get_mut(&address_group(address.ip()))
            && known.state == State::Called
        {
            known.state = State::Connected;
            known.failures = 0;
            self.half_open -= 1;
        }
    }

    /// The connection is over, or never came about.
    pub fn handle_ended(&mut self, address: SocketAddr, end: End, now: Monotonic) {
        let Some(known) = self.remembered.get_mut(&address_group(address.ip())) else { return };
        match known.state {
            State::RestsUntil(_) => return,
            State::Called => self.half_open -= 1,
            State::Connected => {}
        }
        let rest = match end {
            End::Visited => {
                let doubled = AFTER_VISIT.saturating_mul(1 << known.visits.min(16));
                known.visits += 1;
                doubled.min(AGAIN)
            }
            End::Needless => AGAIN_LONGEST,
            End::Failed => {
                let doubled = AGAIN.saturating_mul(1 << known.failures.min(16));
                known.failures += 1;
                doubled.min(AGAIN_LONGEST)
            }
        };
        known.state = State::RestsUntil(now + rest);
    }

    /// The next call to make now; it is under way until it is answered or has ended. Ask only while
    /// there is room for another peer. `is_connected` tells the groups of addresses that are.
    pub fn poll_call(
        &mut self,
        is_connected: impl Fn(IpAddr) -> bool,
        now: Monotonic,
    ) -> Option<Call> {
        if now < self.next_at || self.half_open >= HALF_OPEN_MAX {
            return None;
        }
        while let Some(Waiting { call, named_at }) = self.waiting.pop_front() {
            let group = address_group(call.address.ip());
            let is_stale = now.saturating_since(named_at) >= STALE;
            if is_stale || is_connected(group) || !self.is_free(group, now) || !self.has_room(now) {
                continue;
            }
            let new = Remembered { state: State::Called, failures: 0, visits: 0 };
            self.remembered.entry(group).or_insert(new).state = State::Called;
            self.half_open += 1;
            self.next_at = now + GAP;
            return Some(call);
        }
        None
    }

    /// When there may be a call to make.
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let possible = !self.waiting.is_empty() && self.half_open < HALF_OPEN_MAX;
        possible.then_some(self.next_at)
    }

    fn is_free(&self, group: IpAddr, now: Monotonic) -> bool {
        self.remembered.get(&group).is_none_or(|known| known.is_free(now))
    }

    /// For one more to be remembered.
    fn has_room(&mut self, now: Monotonic) -> bool {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.retain(|_, known| !known.is_free(now));
        }
        self.remembered.len() < REMEMBERED_MAX
    }
}

#[cfg(test)]
mod tests;
