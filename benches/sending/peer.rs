//! Who receives, and what: a socket with the blocks that it waits for, and the content they are from.
//! Sends nothing itself.

use std::{collections::VecDeque, fs::File, io, io::Write, ops::Range};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use socket2::Socket;

use crate::{splicing::Pipe, sys::Mapping};

pub const BLOCK_BYTES: usize = 16 * 1024;
pub const HEADER_BYTES: usize = 13;
/// With its header.
pub const WHOLE_BYTES: usize = HEADER_BYTES + BLOCK_BYTES;
/// As in the serving engine without a limit.
pub const BLOCKS_A_TURN: usize = 16;
/// The contents of the header do not matter to anyone here.
pub const HEADER: [u8; HEADER_BYTES] = *b"length 7 p b!";
/// Enough that the processor's caches do not hold it.
const CONTENT_BYTES: usize = 512 << 20;
const BLOCKS_A_PIECE: u64 = 64;

pub struct Content {
    pub file: File,
    pub mapping: Mapping,
}

impl Content {
    /// A temporary file, in the page cache. It is not empty pages: those are all the same one.
    pub fn make() -> io::Result<Content> {
        let mut file = tempfile::tempfile_in("/var/tmp")?;
        let mebibyte: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_be_bytes).collect();
        for _ in 0..CONTENT_BYTES >> 20 {
            file.write_all(&mebibyte)?;
        }
        Ok(Content { mapping: Mapping::of(&file, CONTENT_BYTES)?, file })
    }
}

pub struct Peer {
    pub socket: Socket,
    /// Where the blocks that it waits for begin in the content.
    pub due: VecDeque<u64>,
    /// Of the first of them, header included.
    pub sent: usize,
    pub writable: bool,
    /// The kernel still uses what was given to it.
    pub busy: bool,
    pub pipe: Option<Pipe>,
    pub in_pipe: usize,
    /// In blocks, for a paced load.
    pub credit: f64,
    pub blocks_sent: u64,
    pub bytes_sent: u64,
    next: u64,
    rng: SmallRng,
}

impl Peer {
    pub fn new(socket: Socket, n: usize) -> Peer {
        let mut rng = SmallRng::seed_from_u64(n as u64);
        Peer {
            socket,
            due: VecDeque::new(),
            sent: 0,
            writable: true,
            busy: false,
            pipe: None,
            in_pipe: 0,
            credit: rng.random_range(0.0..1.0),
            blocks_sent: 0,
            bytes_sent: 0,
            next: rng.random_range(0..(CONTENT_BYTES / BLOCK_BYTES) as u64),
            rng,
        }
    }

    /// Blocks of a piece follow each other; then comes another piece.
    pub fn ask(&mut self) {
        let blocks = (CONTENT_BYTES / BLOCK_BYTES) as u64;
        self.due.push_back(self.next * BLOCK_BYTES as u64);
        self.next += 1;
        if self.next.is_multiple_of(BLOCKS_A_PIECE) {
            self.next = self.rng.random_range(0..blocks / BLOCKS_A_PIECE) * BLOCKS_A_PIECE;
        }
    }

    pub fn is_ready(&self) -> bool {
        self.writable && !self.busy && (!self.due.is_empty() || self.in_pipe > 0)
    }

    /// The parts of this turn's blocks that have not left, as ranges of the header and the content.
    pub fn parts(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + '_ {
        self.due.iter().take(BLOCKS_A_TURN).enumerate().map(|(i, offset)| {
            let sent = if i == 0 { self.sent } else { 0 };
            let start = *offset as usize;
            let block = start + sent.saturating_sub(HEADER_BYTES)..start + BLOCK_BYTES;
            (sent.min(HEADER_BYTES)..HEADER_BYTES, block)
        })
    }

    /// `bytes` more of the stream left.
    pub fn advance(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
        self.sent += bytes;
        while self.sent >= WHOLE_BYTES {
            self.sent -= WHOLE_BYTES;
            self.due.pop_front();
            self.blocks_sent += 1;
        }
    }
}
