//! The simulated network: for every connection a send buffer on our side, a line to the peer with a
//! rate and a round trip, and what becomes of the bytes in it. Decides nothing.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use larder::logic::now::Monotonic;

/// A peer's number in the world; also its connection's, since each connects once.
pub type PeerId = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// What the peer sent is at our socket.
    ToDevice(PeerId, Vec<u8>),
    Connects(PeerId),
    /// The peer closed its end.
    HangsUp(PeerId),
    /// There is room in the send buffer again.
    Writable(PeerId),
    /// Bytes are with the peer's kernel: of messages, or of a block.
    Arrives(PeerId, Item),
    /// Our kernel has heard so.
    Acknowledged(PeerId, u64),
    /// The peer wanted to be called.
    PeerTimer(PeerId),
    SetAllowance(u64),
}

/// What the device writes in one go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Control(Vec<u8>),
    /// Bytes of a block's header, and which of the content follow.
    Block {
        header: Vec<u8>,
        offset: u64,
        length: u32,
    },
}

impl Item {
    fn stream_bytes(&self) -> u64 {
        match self {
            Item::Control(bytes) => bytes.len() as u64,
            Item::Block { header, length, .. } => header.len() as u64 + u64::from(*length),
        }
    }

    /// The first `bytes` of it.
    fn cut(mut self, bytes: u64) -> Item {
        match &mut self {
            Item::Control(all) => all.truncate(bytes as usize),
            Item::Block { header, length, .. } => {
                header.truncate(bytes as usize);
                *length = (bytes - header.len() as u64) as u32;
            }
        }
        self
    }
}

/// How a peer is connected.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Zero: it never reads.
    pub bytes_per_second: u64,
    pub round_trip: Duration,
    /// Bytes that our kernel takes and that are not acknowledged yet.
    pub send_buffer_bytes: u64,
}

#[derive(Debug)]
struct Socket {
    line: Line,
    unacknowledged: u64,
    /// When the last byte that was written has left our side of the line.
    busy_until: Monotonic,
    /// A write found no room, and nobody has been told of any since.
    full: bool,
    open: bool,
    /// The peer has vanished: nothing reaches it, and nobody tells us.
    dead: bool,
}

#[derive(Debug, Default)]
pub struct Net {
    sockets: Vec<Socket>,
    events: BinaryHeap<Reverse<(Monotonic, u64, Event)>>,
    /// Keeps events of one moment in the order in which they were made.
    sequence: u64,
}

impl Net {
    pub fn add(&mut self, line: Line) -> PeerId {
        self.sockets.push(Socket {
            line,
            unacknowledged: 0,
            busy_until: Monotonic::START,
            full: false,
            open: false,
            dead: false,
        });
        self.sockets.len() - 1
    }

    pub fn open(&mut self, peer: PeerId) {
        self.sockets[peer].open = true;
    }

    pub fn vanish(&mut self, peer: PeerId) {
        self.sockets[peer].dead = true;
    }

    /// Our side: what is on its way to the peer is lost to it.
    pub fn close(&mut self, peer: PeerId) {
        self.sockets[peer].open = false;
    }

    pub fn is_open(&self, peer: PeerId) -> bool {
        self.sockets[peer].open && !self.sockets[peer].dead
    }

    pub fn round_trip(&self, peer: PeerId) -> Duration {
        self.sockets[peer].line.round_trip
    }

    pub fn schedule(&mut self, at: Monotonic, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    pub fn next_at(&self) -> Option<Monotonic> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    pub fn pop(&mut self) -> Option<(Monotonic, Event)> {
        self.events.pop().map(|Reverse((at, _, event))| (at, event))
    }

    /// From the peer to us, half a round trip away; its uplink is never the bottleneck.
    pub fn say(&mut self, peer: PeerId, bytes: Vec<u8>, now: Monotonic) {
        if !bytes.is_empty() {
            let at = now + self.sockets[peer].line.round_trip / 2;
            self.schedule(at, Event::ToDevice(peer, bytes));
        }
    }

    /// A write that does not wait: how much the buffer took.
    pub fn write(&mut self, peer: PeerId, item: Item, now: Monotonic) -> u64 {
        let socket = &mut self.sockets[peer];
        let wanted = item.stream_bytes();
        let taken = wanted.min(socket.line.send_buffer_bytes - socket.unacknowledged);
        socket.full = taken < wanted;
        if taken == 0 {
            return 0;
        }
        socket.unacknowledged += taken;
        let nanos = taken.saturating_mul(1_000_000_000);
        if let Some(nanos) = nanos.checked_div(socket.line.bytes_per_second) {
            let left = socket.busy_until.max(now) + Duration::from_nanos(nanos);
            socket.busy_until = left;
            let round_trip = socket.line.round_trip;
            self.schedule(left + round_trip / 2, Event::Arrives(peer, item.cut(taken)));
            self.schedule(left + round_trip, Event::Acknowledged(peer, taken));
        }
        taken
    }

    /// Linux tells of room once a third of the buffer is free.
    pub fn acknowledge(&mut self, peer: PeerId, bytes: u64, now: Monotonic) {
        let socket = &mut self.sockets[peer];
        socket.unacknowledged -= bytes;
        if socket.full && socket.unacknowledged * 3 <= socket.line.send_buffer_bytes * 2 {
            socket.full = false;
            self.schedule(now, Event::Writable(peer));
        }
    }

    pub fn unacknowledged(&self, peer: PeerId) -> u64 {
        self.sockets[peer].unacknowledged
    }
}
