//! The simulated peers, honest and not: what they say in answer to what they hear. An honest one holds
//! us to the protocol (`observer`); a hostile one does not care.

use std::time::Duration;

use larder::logic::{
    now::Monotonic,
    wire::{BlockRequest, Handshake, Message},
};

use crate::{
    device::{CONTENT, PIECE_BYTES, PIECES},
    net::Item,
    observer::Observer,
};

pub const BLOCK_BYTES: u32 = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Keeps so many requests outstanding until it has all the blocks it wants, then leaves.
    Honest { blocks: u32, outstanding: usize },
    /// Asks for as much as it may, and reads nothing (its line has no rate).
    NeverReads,
    /// Asks for a thousand blocks a second, whatever it gets.
    FloodsRequests,
    /// Asks and takes it back.
    CancelStorm,
    /// Wants and does not want, ten times a second.
    Flaps,
    /// Asks for a few blocks and is gone in their midst, without a word.
    Vanishes { after: Duration },
    /// Connects and says nothing.
    Silent,
}

impl Kind {
    pub fn is_honest(self) -> bool {
        matches!(self, Kind::Honest { .. })
    }
}

/// What a peer does next.
#[derive(Default)]
pub struct Reaction {
    pub says: Vec<u8>,
    pub call_me_in: Option<Duration>,
    pub leaves: bool,
    pub vanishes: bool,
}

pub struct Peer {
    pub kind: Kind,
    observer: Observer,
    /// Blocks asked for, over its life: every one another block.
    asked: u32,
    /// Where in the content it starts to ask.
    start: u32,
    toggles: u32,
    /// Bytes of blocks, whole or not, that are with its kernel.
    pub payload_bytes: u64,
    pub interested_at: Option<Monotonic>,
    pub first_block_at: Option<Monotonic>,
    pub done_at: Option<Monotonic>,
}

impl Peer {
    pub fn new(kind: Kind, start: u32) -> Peer {
        Peer {
            kind,
            observer: Observer::expecting(0..PIECES),
            asked: 0,
            start,
            toggles: 0,
            payload_bytes: 0,
            interested_at: None,
            first_block_at: None,
            done_at: None,
        }
    }

    pub fn connected(&mut self, now: Monotonic) -> Reaction {
        if self.kind == Kind::Silent {
            return Reaction::default();
        }
        let shake =
            Handshake { infohash: CONTENT, peer_id: [b'p'; 20], fast: true, extensions: false };
        let mut says = shake.encode().to_vec();
        Message::Interested.encode(&mut says);
        self.interested_at = Some(now);
        let call_me_in = match self.kind {
            Kind::Vanishes { after } => Some(after),
            Kind::Flaps | Kind::CancelStorm | Kind::FloodsRequests => {
                Some(Duration::from_millis(100))
            }
            _ => None,
        };
        Reaction { says, call_me_in, ..Reaction::default() }
    }

    /// Bytes have come.
    pub fn hear(&mut self, item: &Item, now: Monotonic) -> Reaction {
        let blocks = self.observer.blocks;
        match item {
            Item::Control(bytes) if self.kind.is_honest() => self.observer.hear(bytes),
            Item::Control(_) => {}
            Item::Block { header, offset, length } => {
                self.payload_bytes += u64::from(*length);
                if self.kind.is_honest() {
                    self.observer.receive(header, 0);
                    if *length > 0 {
                        let (piece, begin) = self.observer.arriving_at().expect("it has begun");
                        let expected = u64::from(piece) * u64::from(PIECE_BYTES) + u64::from(begin);
                        assert_eq!(*offset, expected, "bytes of another place");
                        self.observer.receive(&[], *length);
                    }
                }
            }
        }
        if self.observer.blocks > blocks {
            self.first_block_at.get_or_insert(now);
        }
        match self.kind {
            Kind::Honest { blocks, outstanding } => self.go_on(blocks, outstanding, now),
            Kind::NeverReads | Kind::Vanishes { .. } if self.asked == 0 => Reaction {
                // It cannot know that it is choked: it asks after the first word from us.
                says: self.requests(50),
                ..Reaction::default()
            },
            _ => Reaction::default(),
        }
    }

    /// The time it wanted to be called at.
    pub fn timer(&mut self) -> Reaction {
        let again = Some(Duration::from_millis(100));
        match self.kind {
            Kind::Vanishes { .. } => Reaction { vanishes: true, ..Reaction::default() },
            Kind::Flaps => {
                self.toggles += 1;
                let word = match self.toggles % 2 {
                    0 => Message::Interested,
                    _ => Message::NotInterested,
                };
                let mut says = vec![];
                word.encode(&mut says);
                says.extend(self.requests(2));
                Reaction { says, call_me_in: again, ..Reaction::default() }
            }
            Kind::FloodsRequests => {
                let says = self.requests(100);
                Reaction { says, call_me_in: again, ..Reaction::default() }
            }
            Kind::CancelStorm => {
                let mut says = self.requests(20);
                for n in self.asked - 20..self.asked {
                    Message::Cancel(self.block(n)).encode(&mut says);
                }
                Reaction { says, call_me_in: again, ..Reaction::default() }
            }
            _ => Reaction::default(),
        }
    }

    fn go_on(&mut self, blocks: u32, outstanding: usize, now: Monotonic) -> Reaction {
        if self.done_at.is_some() {
            return Reaction::default();
        }
        if self.observer.blocks >= blocks {
            self.done_at = Some(now);
            return Reaction { leaves: true, ..Reaction::default() };
        }
        let mut says = vec![];
        if self.observer.may_request() {
            let missing = (blocks - self.observer.blocks) as usize;
            while self.observer.owed.len() < outstanding.min(missing) {
                let block = self.block(self.asked);
                self.asked += 1;
                self.observer.owed.push(block);
                Message::Request(block).encode(&mut says);
            }
        }
        Reaction { says, ..Reaction::default() }
    }

    fn requests(&mut self, count: u32) -> Vec<u8> {
        let mut says = vec![];
        for _ in 0..count {
            Message::Request(self.block(self.asked)).encode(&mut says);
            self.asked += 1;
        }
        says
    }

    fn block(&self, n: u32) -> BlockRequest {
        const BLOCKS_A_PIECE: u32 = PIECE_BYTES / BLOCK_BYTES;
        let n = (self.start + n) % (PIECES * BLOCKS_A_PIECE);
        BlockRequest {
            piece: n / BLOCKS_A_PIECE,
            begin: n % BLOCKS_A_PIECE * BLOCK_BYTES,
            length: BLOCK_BYTES,
        }
    }
}
