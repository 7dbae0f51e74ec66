//! The device's serving: sessions, choker, pacer and turns, composed as `device/serve/engine` composes
//! them, function for function, with simulated sockets in place of its own. Decides nothing else, so
//! that what holds here holds there; change the two together.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use larder::logic::{
    bitfield::Bitfield,
    choke::{Choker, Decision, UNCHOKED_MAX, slots_for},
    governor::{Allowance, Pacer, Permit, Turns, WireCost},
    infohash::Infohash,
    now::Monotonic,
    usage::Usage,
    wire::{Chunk, Close, LocalPeer, PeerSession, Servable, Shelf, Timeouts, mse::Keyring},
};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    net::{Item, Net, PeerId},
    window::Window,
};

pub const CONTENT: Infohash = Infohash([7; 20]);
pub const PIECE_BYTES: u32 = 1024 * 1024;
pub const PIECES: u32 = 4096;

// The engine's own constants, which are private to it.
const REST: Duration = Duration::from_millis(4);
const BUSY_CHUNKS: usize = 16;
const TURNS_AT_ONCE: usize = 64;
/// What a round itself takes.
const ROUND: Duration = Duration::from_micros(50);
/// What one peer may hold of our memory (see fuzz/src/session.rs).
const KEPT_BYTES_MAX: usize = 192 * 1024;

struct Connection {
    session: PeerSession,
    in_turns: bool,
    was_interested: bool,
    writable: bool,
    usage: Usage,
}

pub struct Device {
    us: LocalPeer,
    shelf: Shelf,
    keyring: Keyring,
    cost: WireCost,
    /// By the peer's number, which is never given twice.
    connections: Vec<Option<Box<Connection>>>,
    choker: Choker,
    pacer: Pacer,
    turns: Turns<u32>,
    chunks_sent: usize,
    send_at: Option<Monotonic>,
    deadlines: BinaryHeap<Reverse<(Monotonic, u32)>>,
    /// What the books say, all connections together.
    pub booked: Usage,
    pub window: Window,
    pub closed: Vec<(PeerId, Close)>,
    pub kept_bytes_max: usize,
}

impl Device {
    pub fn new(allowance: u64) -> Device {
        let mut shelf = Shelf::default();
        let servable = Servable {
            infohash: CONTENT,
            piece_length: PIECE_BYTES,
            total_bytes: u64::from(PIECE_BYTES) * u64::from(PIECES),
            info_bytes: vec![b'i'; 80_000].into(),
            have: Bitfield::full(PIECES),
        };
        shelf.add(servable).expect("fits");
        let limit = Allowance::BytesPerSecond(allowance);
        Device {
            us: LocalPeer {
                peer_id: *b"-LR0100-abcdefghijkl",
                client_name: "Larder".into(),
                listen_port: 6881,
                timeouts: Timeouts::default(),
            },
            shelf,
            keyring: Keyring::new(StdRng::seed_from_u64(1)),
            cost: WireCost::to(IpAddr::V4(Ipv4Addr::LOCALHOST), None),
            connections: vec![],
            choker: Choker::new(slots_for(limit)),
            pacer: Pacer::new(limit, Monotonic::START),
            turns: Turns::default(),
            chunks_sent: 0,
            send_at: None,
            deadlines: BinaryHeap::new(),
            booked: Usage::default(),
            window: Window::new(allowance),
            closed: vec![],
            kept_bytes_max: 0,
        }
    }

    pub fn slots(&self) -> u32 {
        slots_for(self.pacer.allowance())
    }

    pub fn spent_bytes(&self) -> u64 {
        self.pacer.spent_bytes()
    }

    /// Whether it was taken in; nobody is while nothing may leave.
    pub fn admit(&mut self, peer: PeerId, now: Monotonic) -> bool {
        if self.pacer.allowance().is_paused() {
            return false;
        }
        let session = PeerSession::new(IpAddr::V4(Ipv4Addr::LOCALHOST), now);
        self.push_deadline(session.poll_timeout(&self.us.timeouts), peer as u32);
        if self.connections.len() <= peer {
            self.connections.resize_with(peer + 1, || None);
        }
        self.connections[peer] = Some(Box::new(Connection {
            session,
            in_turns: false,
            was_interested: false,
            writable: true,
            usage: Usage::default(),
        }));
        true
    }

    pub fn read(&mut self, peer: PeerId, bytes: &mut [u8], net: &mut Net, now: Monotonic) {
        let Some(connection) = self.connections.get_mut(peer).and_then(Option::as_mut) else {
            return;
        };
        let (us, shelf, keyring) = (&self.us, &self.shelf, &mut self.keyring);
        if let Err(why) = connection.session.handle_bytes(bytes, us, shelf, keyring, now) {
            return self.close(peer, why, net, now);
        }
        let kept = connection.session.kept_bytes();
        assert!(kept <= KEPT_BYTES_MAX, "{kept} bytes for one peer");
        self.kept_bytes_max = self.kept_bytes_max.max(kept);
        let interested = connection.session.is_interested();
        if interested != connection.was_interested {
            connection.was_interested = interested;
            if let Some(content) = connection.session.content().filter(|_| interested) {
                self.choker.handle_interested(peer as u32, content, now);
            } else {
                self.choker.handle_not_interested(peer as u32, now);
            }
        }
        self.join_turns(peer as u32);
    }

    pub fn writable(&mut self, peer: PeerId) {
        if let Some(connection) = self.connection(peer as u32) {
            connection.writable = true;
            self.join_turns(peer as u32);
        }
    }

    pub fn hung_up(&mut self, peer: PeerId, net: &mut Net, now: Monotonic) {
        self.close(peer, Close::ByPeer, net, now);
    }

    pub fn set_allowance(&mut self, bytes_per_second: u64, now: Monotonic) {
        let allowance = Allowance::BytesPerSecond(bytes_per_second);
        self.pacer.set_allowance(allowance, now);
        self.choker.set_slots(slots_for(allowance), now);
        self.window.set_allowance(bytes_per_second, now);
    }

    /// The rest of a round, after what came in; when the next one is, if nothing happens.
    pub fn finish_round(&mut self, net: &mut Net, now: Monotonic) -> Option<Monotonic> {
        self.chunks_sent = 0;
        self.handle_timeouts(net, now);
        self.carry_out_choking(net, now);
        assert!(self.choker.slots_taken() <= self.slots(), "more have slots than there are");
        self.send(net, now);
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let next = [self.send_at, deadline, self.choker.poll_timeout()];
        next.into_iter().flatten().min().map(|at| at.max(now + ROUND))
    }

    /// Until when events gather before they are looked at.
    pub fn rests_until(&self, now: Monotonic) -> Monotonic {
        if self.chunks_sent >= BUSY_CHUNKS {
            return now + ROUND;
        }
        let rested = now + REST;
        self.send_at.map_or(rested, |at| at.clamp(now + ROUND, rested))
    }

    /// Once a second, as the daemon asks for it.
    pub fn take_usage(&mut self, net: &Net) {
        for (peer, connection) in self.connections.iter_mut().enumerate() {
            if let Some(connection) = connection {
                settle(connection, peer, net);
                self.booked.add(std::mem::take(&mut connection.usage));
            }
        }
        let unchoked = self.connections.iter().flatten().filter(|c| c.session.is_unchoked());
        assert!(unchoked.count() <= self.slots().max(UNCHOKED_MAX) as usize);
    }

    fn handle_timeouts(&mut self, net: &mut Net, now: Monotonic) {
        if self.choker.poll_timeout().is_some_and(|at| at <= now) {
            self.choker.handle_timeout(now);
        }
        while let Some(Reverse((at, index))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            self.handle_deadline(index, net, now);
        }
    }

    fn handle_deadline(&mut self, index: u32, net: &mut Net, now: Monotonic) {
        let paused = self.pacer.allowance().is_paused();
        let timeouts = self.us.timeouts;
        let Some(connection) = self.connection(index) else { return };
        if let Err(why) = connection.session.handle_timeout(&timeouts, paused, now) {
            return self.close(index as usize, why, net, now);
        }
        let next = connection.session.poll_timeout(&timeouts);
        self.push_deadline(next, index);
        self.join_turns(index);
    }

    fn carry_out_choking(&mut self, net: &mut Net, now: Monotonic) {
        let paused = self.pacer.allowance().is_paused();
        while let Some(decision) = self.choker.poll_decision() {
            let (Decision::Unchoke(index) | Decision::Choke(index)) = decision;
            let Some(connection) = self.connection(index) else { continue };
            if let Decision::Unchoke(_) = decision {
                connection.session.unchoke(now);
            } else {
                let next_in_stream = connection.session.is_between_messages();
                connection.session.choke();
                if paused && next_in_stream {
                    self.send_last_choke(index, net, now);
                }
            }
            self.join_turns(index);
        }
    }

    fn send_last_choke(&mut self, index: u32, net: &mut Net, now: Monotonic) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        let Some(Chunk::Control(bytes)) = connection.session.poll_chunk(&self.shelf) else {
            return;
        };
        let choke = Item::Control(bytes[..5].to_vec());
        let sent = net.write(index as usize, choke, now);
        let wire = self.cost.of(sent);
        self.pacer.spend(wire);
        self.window.sent(wire, now);
        connection.usage.wire_bytes += wire;
        connection.session.handle_sent(sent, now);
    }

    fn send(&mut self, net: &mut Net, now: Monotonic) {
        self.send_at = None;
        for _ in 0..TURNS_AT_ONCE {
            let Some(index) = self.turns.current() else { return };
            match self.send_chunk(index, net, now) {
                Turn::Sent { block } => {
                    self.chunks_sent += 1;
                    if block {
                        self.choker.handle_took(index, now);
                    }
                    self.turns.pass();
                }
                turn @ (Turn::Nothing | Turn::Blocked) => {
                    if let Turn::Blocked = turn {
                        self.choker.handle_full(index, now);
                    }
                    self.turns.leave();
                    if let Some(connection) = self.connection(index) {
                        connection.in_turns = false;
                    }
                }
                Turn::Wait(at) => {
                    self.send_at = Some(at);
                    return;
                }
                Turn::Paused => return,
            }
        }
        self.send_at = Some(now);
    }

    fn send_chunk(&mut self, index: u32, net: &mut Net, now: Monotonic) -> Turn {
        let Some(connection) = self.connections[index as usize].as_mut() else {
            return Turn::Nothing;
        };
        let Some(chunk) = connection.session.poll_chunk(&self.shelf) else { return Turn::Nothing };
        let wanted = chunk.stream_bytes();
        let wire = self.cost.of(wanted);
        match self.pacer.take(wire, now) {
            Permit::Granted => {}
            Permit::WaitUntil(at) => return Turn::Wait(at),
            Permit::Paused => return Turn::Paused,
        }
        let block = matches!(chunk, Chunk::Block { .. });
        let item = match chunk {
            Chunk::Opening(bytes) | Chunk::Control(bytes) => Item::Control(bytes.to_vec()),
            Chunk::Block { header, offset, length, .. } => {
                Item::Block { header: header.to_vec(), offset, length }
            }
        };
        let sent = net.write(index as usize, item, now);
        self.pacer.give_back(wire - self.cost.of(sent));
        let wire = self.cost.of(sent);
        self.window.sent(wire, now);
        connection.usage.wire_bytes += wire;
        connection.session.handle_sent(sent, now);
        if connection.session.deliveries().wants_settling() {
            settle(connection, index as usize, net);
        }
        if sent < wanted {
            connection.writable = false;
            connection.session.handle_blocked(now);
            return Turn::Blocked;
        }
        Turn::Sent { block }
    }

    fn join_turns(&mut self, index: u32) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        if !connection.in_turns && connection.writable && connection.session.has_output(&self.shelf)
        {
            connection.in_turns = true;
            self.turns.join(index);
        }
    }

    fn connection(&mut self, index: u32) -> Option<&mut Connection> {
        self.connections.get_mut(index as usize)?.as_deref_mut()
    }

    fn close(&mut self, peer: PeerId, why: Close, net: &mut Net, now: Monotonic) {
        let Some(mut connection) = self.connections.get_mut(peer).and_then(Option::take) else {
            return;
        };
        settle(&mut connection, peer, net);
        self.booked.add(connection.usage);
        if connection.in_turns {
            self.turns.remove(peer as u32);
        }
        self.choker.handle_closed(peer as u32, now);
        self.closed.push((peer, why));
        net.close(peer);
    }

    /// To whole seconds, as the engine does.
    fn push_deadline(&mut self, at: Monotonic, index: u32) {
        let seconds = at.0.as_secs() + u64::from(at.0.subsec_nanos() > 0);
        self.deadlines.push(Reverse((Monotonic(Duration::from_secs(seconds)), index)));
    }
}

fn settle(connection: &mut Connection, peer: PeerId, net: &Net) {
    let unacknowledged = net.unacknowledged(peer);
    connection.usage.payload_bytes += connection.session.deliveries().settle(unacknowledged);
}

enum Turn {
    Sent { block: bool },
    Nothing,
    Blocked,
    Wait(Monotonic),
    Paused,
}
