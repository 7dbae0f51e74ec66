//! Swarms in memory. Every swarm, every address and the whole have a limit; a peer that stays
//! silent for two intervals is forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Announce, Event, PeerId, neighbours::hidden_from};
use crate::logic::{infohash::Infohash, now::Monotonic};

/// About 100 bytes a peer: 50 MB at most.
const MAX_PEERS: usize = 500_000;
/// A swarm this large finds peers by exchange among themselves.
const MAX_PEERS_PER_SWARM: usize = 20_000;
/// Carriers put many households behind one address, but one host must not fill a swarm.
const MAX_PEERS_PER_ADDRESS: usize = 256;

#[derive(Clone, Copy, Debug)]
pub struct SwarmSettings {
    pub interval: Duration,
    pub peers_per_announce_max: usize,
}

pub struct Swarms {
    settings: SwarmSettings,
    swarms: BTreeMap<Infohash, Swarm>,
    peers: usize,
}

#[derive(Default)]
struct Swarm {
    /// By address and port: whoever announces can speak for that address only.
    peers: BTreeMap<(IpAddr, u16), Peer>,
    /// "Completed" events since this process started (BEP 48 `downloaded`).
    completed: u64,
}

#[derive(Clone, Copy)]
struct Peer {
    id: PeerId,
    seed: bool,
    expires: Monotonic,
}

/// What an announce gets back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    pub seeds: usize,
    pub leechers: usize,
    pub completed: u64,
    pub peers: Vec<(PeerId, SocketAddr)>,
}

impl Swarms {
    pub fn new(settings: SwarmSettings) -> Swarms {
        Swarms { settings, swarms: BTreeMap::new(), peers: 0 }
    }

    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// The contents that may have a swarm. Swarms of all others end here.
    pub fn set_listed(&mut self, listed: &BTreeSet<Infohash>) {
        self.swarms.retain(|infohash, _| listed.contains(infohash));
        for infohash in listed {
            self.swarms.entry(*infohash).or_default();
        }
        self.peers = self.swarms.values().map(|s| s.peers.len()).sum();
    }

    /// `None` when the content is not listed. `draw` is a random number that decides where in the
    /// swarm the selection starts.
    pub fn announce(
        &mut self,
        request: &Announce,
        address: IpAddr,
        now: Monotonic,
        draw: u64,
    ) -> Option<Peers> {
        let room = self.peers < MAX_PEERS;
        let swarm = self.swarms.get_mut(&request.infohash)?;
        let before = swarm.peers.len();
        swarm.forget_silent(now);
        let key = (address, request.port);
        let seed = request.is_seed();
        if request.event == Event::Stopped {
            swarm.peers.remove(&key);
        } else if request.port != 0
            && (swarm.peers.contains_key(&key) || room && swarm.room(address))
        {
            let expires = now + self.settings.interval * 2;
            swarm.peers.insert(key, Peer { id: request.peer_id, seed, expires });
        }
        if request.event == Event::Completed {
            swarm.completed += 1;
        }
        self.peers = self.peers - before + swarm.peers.len();
        let mut answer = swarm.counts();
        if request.event != Event::Stopped {
            let max = self.settings.peers_per_announce_max;
            let wanted = request.numwant.unwrap_or(max).min(max);
            answer.peers = swarm.select(key, request.needs_nothing(), wanted, draw);
        }
        Some(answer)
    }

    /// Numbers of one swarm, without any peers.
    pub fn scrape(&mut self, infohash: Infohash, now: Monotonic) -> Option<Peers> {
        let swarm = self.swarms.get_mut(&infohash)?;
        let before = swarm.peers.len();
        swarm.forget_silent(now);
        self.peers = self.peers - before + swarm.peers.len();
        Some(swarm.counts())
    }

    /// Peers that `is_device` knows, complete ones first.
    pub fn devices(
        &mut self,
        infohash: Infohash,
        now: Monotonic,
        is_device: impl Fn(&PeerId, IpAddr) -> bool,
    ) -> Vec<SocketAddr> {
        let Some(swarm) = self.swarms.get_mut(&infohash) else { return vec![] };
        let before = swarm.peers.len();
        swarm.forget_silent(now);
        self.peers = self.peers - before + swarm.peers.len();
        let mut found: Vec<_> =
            swarm.peers.iter().filter(|((ip, _), peer)| is_device(&peer.id, *ip)).collect();
        found.sort_by_key(|(_, peer)| !peer.seed);
        found.truncate(self.settings.peers_per_announce_max);
        found.into_iter().map(|(key, _)| SocketAddr::from(*key)).collect()
    }
}

impl Swarm {
    fn forget_silent(&mut self, now: Monotonic) {
        self.peers.retain(|_, peer| peer.expires > now);
    }

    fn room(&self, address: IpAddr) -> bool {
        let here = self.peers.range((address, 0)..=(address, u16::MAX)).count();
        self.peers.len() < MAX_PEERS_PER_SWARM && here < MAX_PEERS_PER_ADDRESS
    }

    fn counts(&self) -> Peers {
        let seeds = self.peers.values().filter(|peer| peer.seed).count();
        Peers {
            seeds,
            leechers: self.peers.len() - seeds,
            completed: self.completed,
            peers: vec![],
        }
    }

    /// A run of the swarm from a random place, without the asker. Who needs nothing is not shown
    /// seeds, which have nothing else to give.
    fn select(
        &self,
        asker: (IpAddr, u16),
        needs_nothing: bool,
        wanted: usize,
        draw: u64,
    ) -> Vec<(PeerId, SocketAddr)> {
        if self.peers.is_empty() {
            return vec![];
        }
        let start = (draw % self.peers.len() as u64) as usize;
        let hidden = hidden_from(asker.0, self.peers.keys().map(|(address, _)| *address));
        self.peers
            .iter()
            .skip(start)
            .chain(self.peers.iter().take(start))
            .filter(|(key, peer)| **key != asker && !(needs_nothing && peer.seed))
            .filter(|((address, _), _)| !hidden.contains(address))
            .take(wanted)
            .map(|(key, peer)| (peer.id, SocketAddr::from(*key)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const FILM: Infohash = Infohash([1; 20]);

    fn swarms() -> Swarms {
        let settings = SwarmSettings { interval: HOUR, peers_per_announce_max: 50 };
        let mut swarms = Swarms::new(settings);
        swarms.set_listed(&[FILM].into());
        swarms
    }

    fn announce(id: u8, port: u16, left: u64) -> Announce {
        Announce {
            infohash: FILM,
            peer_id: [id; 20],
            port,
            left,
            uploaded: 0,
            downloaded: u64::from(left == 0),
            event: Event::None,
            numwant: None,
            compact: true,
        }
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([198, 51, n, 7])
    }

    fn ports(peers: &Peers) -> Vec<u16> {
        let mut ports: Vec<u16> = peers.peers.iter().map(|(_, a)| a.port()).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn introduces_leechers_to_seeds_but_not_seeds_to_seeds() {
        let mut swarms = swarms();
        let mut say = |id, left| {
            let request = announce(id, u16::from(id), left);
            swarms.announce(&request, ip(id), Monotonic::START, 7).expect("listed")
        };
        assert_eq!(ports(&say(1, 0)), [0u16; 0]);
        assert_eq!(ports(&say(2, 0)), [0u16; 0], "a seed does not learn of a seed");
        assert_eq!(ports(&say(3, 10)), [1, 2]);
        assert_eq!(ports(&say(4, 10)), [1, 2, 3]);
        let answer = say(1, 0);
        assert_eq!(ports(&answer), [3, 4]);
        assert_eq!((answer.seeds, answer.leechers), (2, 2));
    }

    #[test]
    fn shows_seeds_to_a_magnet_client_that_says_it_lacks_nothing() {
        let mut swarms = swarms();
        swarms.announce(&announce(1, 1, 0), ip(1), Monotonic::START, 0).expect("listed");
        let aria2 = Announce { downloaded: 0, event: Event::Started, ..announce(2, 2, 0) };
        let answer = swarms.announce(&aria2, ip(2), Monotonic::START, 0).expect("listed");
        assert_eq!(ports(&answer), [1]);
    }

    #[test]
    fn knows_only_listed_contents() {
        let mut swarms = swarms();
        let other = Announce { infohash: Infohash([2; 20]), ..announce(1, 1, 0) };
        assert_eq!(swarms.announce(&other, ip(1), Monotonic::START, 0), None);
        swarms.announce(&announce(1, 1, 0), ip(1), Monotonic::START, 0).expect("listed");
        swarms.set_listed(&BTreeSet::new());
        assert_eq!(swarms.scrape(FILM, Monotonic::START), None);
        assert_eq!(swarms.peers, 0);
    }

    #[test]
    fn forgets_peers_that_stop_or_fall_silent() {
        let mut swarms = swarms();
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        swarms.announce(&announce(1, 1, 0), ip(1), at(0), 0);
        swarms.announce(&announce(2, 2, 0), ip(2), at(10), 0);
        assert_eq!(swarms.scrape(FILM, at(7199)).expect("listed").seeds, 2);
        assert_eq!(swarms.scrape(FILM, at(7200)).expect("listed").seeds, 1);
        let stop = Announce { event: Event::Stopped, ..announce(2, 2, 0) };
        swarms.announce(&stop, ip(3), at(7201), 0);
        assert_eq!(swarms.scrape(FILM, at(7202)).expect("listed").seeds, 1, "not for others");
        let answer = swarms.announce(&stop, ip(2), at(7203), 0).expect("listed");
        assert_eq!((answer.seeds, answer.peers.len()), (0, 0));
        assert_eq!(swarms.peers, 0);
    }

    #[test]
    fn one_address_cannot_fill_a_swarm() {
        let mut swarms = swarms();
        for port in 1..=1000 {
            swarms.announce(&announce(1, port, 10), ip(1), Monotonic::START, 0);
        }
        swarms.announce(&announce(2, 1, 10), ip(2), Monotonic::START, 0);
        let counts = swarms.scrape(FILM, Monotonic::START).expect("listed");
        assert_eq!(counts.leechers, MAX_PEERS_PER_ADDRESS + 1);
        assert_eq!(swarms.peers, MAX_PEERS_PER_ADDRESS + 1);
    }

    #[test]
    fn gives_as_many_as_asked_within_the_limit() {
        let mut swarms = swarms();
        for n in 1..=100 {
            swarms.announce(&announce(n, 1, 10), ip(n), Monotonic::START, 0);
        }
        let mut want = |numwant, draw| {
            let request = Announce { numwant, ..announce(200, 1, 10) };
            swarms.announce(&request, ip(200), Monotonic::START, draw).expect("listed").peers
        };
        assert_eq!(want(None, 0).len(), 50);
        assert_eq!(want(Some(5), 0).len(), 5);
        assert_eq!(want(Some(0), 0).len(), 0);
        assert_eq!(want(Some(1000), 99).len(), 50);
        assert_ne!(want(Some(5), 3), want(Some(5), 60));
    }

    #[test]
    fn names_two_of_a_neighbourhood_however_often_it_is_asked() {
        let mut swarms = swarms();
        for n in 1..=100 {
            let address = IpAddr::from([203, 0, 113, n]);
            swarms.announce(&announce(n, 1, 0), address, Monotonic::START, 0);
        }
        let mut seen = BTreeSet::new();
        for draw in 0..100 {
            let request = announce(200, 1, 10);
            let answer = swarms.announce(&request, ip(200), Monotonic::START, draw);
            seen.extend(answer.expect("listed").peers);
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn finds_devices_complete_ones_first() {
        let mut swarms = swarms();
        for (n, left) in [(1, 10), (2, 0), (3, 0)] {
            swarms.announce(&announce(n, u16::from(n), left), ip(n), Monotonic::START, 0);
        }
        let found =
            swarms.devices(FILM, Monotonic::START, |id, from| id[0] != 3 && from == ip(id[0]));
        assert_eq!(found, [SocketAddr::from((ip(2), 2)), SocketAddr::from((ip(1), 1))]);
        assert!(swarms.devices(FILM, Monotonic::START, |_, _| false).is_empty());
    }
}
