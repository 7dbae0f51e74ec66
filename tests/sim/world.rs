//! The device among its peers: lets time pass from event to event, and checks after each second and at
//! the end what must hold in every world. What must hold in one world only is its test's business.

use std::time::Duration;

use larder::logic::now::Monotonic;

use crate::{
    device::Device,
    net::{Event, Line, Net, PeerId},
    peer::{Kind, Peer, Reaction},
};

/// A peer that was not taken in tries again after this.
const RETRY: Duration = Duration::from_secs(1);

pub struct World {
    pub device: Device,
    pub peers: Vec<Peer>,
    net: Net,
    pub now: Monotonic,
    /// Came in while the device rested.
    inbox: Vec<Event>,
    resting_until: Monotonic,
    wakes_at: Option<Monotonic>,
    usage_at: Monotonic,
}

impl World {
    pub fn new(bytes_per_second: u64) -> World {
        World {
            device: Device::new(bytes_per_second),
            peers: vec![],
            net: Net::default(),
            now: Monotonic::START,
            inbox: vec![],
            resting_until: Monotonic::START,
            wakes_at: None,
            usage_at: Monotonic::START,
        }
    }

    pub fn add(&mut self, kind: Kind, line: Line, connects: Duration) -> PeerId {
        let peer = self.net.add(line);
        self.peers.push(Peer::new(kind, peer as u32 * 1_000));
        self.net.schedule(Monotonic(connects), Event::Connects(peer));
        peer
    }

    pub fn set_allowance_at(&mut self, at: Duration, bytes_per_second: u64) {
        self.net.schedule(Monotonic(at), Event::SetAllowance(bytes_per_second));
    }

    pub fn run_until(&mut self, end: Duration) {
        let end = Monotonic(end);
        loop {
            let device_at = match (self.inbox.is_empty(), self.wakes_at) {
                (false, _) => Some(self.resting_until),
                (true, wakes_at) => wakes_at.map(|at| at.max(self.resting_until)),
            };
            let Some(next) = device_at.into_iter().chain(self.net.next_at()).min() else { break };
            let next = next.max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            if self.now >= self.usage_at {
                self.device.take_usage(&self.net);
                self.usage_at = self.now + Duration::from_secs(1);
                self.books_are_sound();
            }
            // At the same moment the network comes first: its news are what the device wakes for.
            if self.net.next_at().is_some_and(|at| at <= self.now) {
                let (_, event) = self.net.pop().expect("just seen");
                self.happen(event);
            } else {
                self.device_round();
            }
        }
        self.now = end;
        self.device.take_usage(&self.net);
        self.books_are_sound();
    }

    /// Runs until every honest peer has what it wanted; when that was.
    pub fn run_until_served(&mut self, at_most: Duration) -> Duration {
        while self.honest().any(|peer| peer.done_at.is_none()) {
            assert!(
                self.now < Monotonic(at_most),
                "{} honest peers wait after {at_most:?}",
                self.honest().filter(|peer| peer.done_at.is_none()).count()
            );
            self.run_until(self.now.0 + Duration::from_secs(1));
        }
        self.honest().filter_map(|peer| peer.done_at).max().unwrap_or_default().0
    }

    pub fn honest(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.kind.is_honest())
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Acknowledged(peer, bytes) => {
                if self.net.is_open(peer) {
                    self.net.acknowledge(peer, bytes, now);
                }
            }
            Event::Arrives(peer, item) => {
                if self.net.is_open(peer) {
                    let reaction = self.peers[peer].hear(&item, now);
                    self.react(peer, reaction);
                }
            }
            Event::PeerTimer(peer) => {
                if self.net.is_open(peer) {
                    let reaction = self.peers[peer].timer();
                    self.react(peer, reaction);
                }
            }
            for_the_device => self.inbox.push(for_the_device),
        }
    }

    fn react(&mut self, peer: PeerId, reaction: Reaction) {
        self.net.say(peer, reaction.says, self.now);
        if let Some(wait) = reaction.call_me_in {
            self.net.schedule(self.now + wait, Event::PeerTimer(peer));
        }
        if reaction.leaves {
            // Behind what it has just acknowledged.
            let at = self.now + self.net.round_trip(peer) / 2;
            self.net.schedule(at, Event::HangsUp(peer));
        }
        if reaction.vanishes {
            self.net.vanish(peer);
        }
    }

    fn device_round(&mut self) {
        let now = self.now;
        for event in std::mem::take(&mut self.inbox) {
            match event {
                Event::Connects(peer) => self.connect(peer),
                Event::ToDevice(peer, mut bytes) => {
                    self.device.read(peer, &mut bytes, &mut self.net, now);
                }
                Event::Writable(peer) => self.device.writable(peer),
                Event::HangsUp(peer) => self.device.hung_up(peer, &mut self.net, now),
                Event::SetAllowance(bytes) => self.device.set_allowance(bytes, now),
                Event::Arrives(..) | Event::Acknowledged(..) | Event::PeerTimer(_) => {}
            }
        }
        self.wakes_at = self.device.finish_round(&mut self.net, now);
        self.resting_until = self.device.rests_until(now);
    }

    fn connect(&mut self, peer: PeerId) {
        if !self.device.admit(peer, self.now) {
            return self.net.schedule(self.now + RETRY, Event::Connects(peer));
        }
        self.net.open(peer);
        let reaction = self.peers[peer].connected(self.now);
        self.react(peer, reaction);
    }

    /// No byte is booked that its peer does not have, and all that left is in the books.
    fn books_are_sound(&self) {
        let received: u64 = self.peers.iter().map(|peer| peer.payload_bytes).sum();
        let booked = self.device.booked;
        assert!(booked.payload_bytes <= received, "{booked:?}, but peers have {received}");
        assert_eq!(booked.wire_bytes, self.device.window.total);
        assert_eq!(booked.wire_bytes, self.device.spent_bytes());
    }
}
