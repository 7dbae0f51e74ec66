//! A BitTorrent client that trusts nobody: it asks for blocks all over a content, for as long as it is
//! told, and compares each byte with what it should be. It comes back when it is cut.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use larder::logic::{
    infohash::Infohash,
    metainfo::BLOCK_BYTES,
    wire::{BlockRequest, Handshake, Message},
};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

/// Requests under way: several pieces at a time.
const DEPTH: usize = 24;
/// Nobody waits for longer than this for one block. Then it is taken for lost, and asked for again.
const PATIENCE: Duration = Duration::from_secs(60);
const COMES_BACK_AFTER: Duration = Duration::from_millis(50);

pub struct Content {
    pub infohash: Infohash,
    pub piece_length: u32,
    pub bytes: Vec<u8>,
}

/// What it got, and what it made of it.
#[derive(Default)]
pub struct Account {
    pub blocks: AtomicU64,
    pub bytes: AtomicU64,
    pub corrupt_blocks: AtomicU64,
    pub rejects: AtomicU64,
    pub connections: AtomicU64,
}

impl Account {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn corrupt_blocks(&self) -> u64 {
        self.corrupt_blocks.load(Ordering::Relaxed)
    }
}

pub struct Leecher {
    pub account: Arc<Account>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Leecher {
    /// `fast`: it speaks BEP 6.
    pub fn start(to: SocketAddr, content: Arc<Content>, fast: bool, seed: u64) -> Leecher {
        let account = Arc::<Account>::default();
        let stop = Arc::<AtomicBool>::default();
        let (its_account, its_stop) = (account.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut rng = SmallRng::seed_from_u64(seed);
            while !its_stop.load(Ordering::Relaxed) {
                let mut visit =
                    Visit { content: &content, account: &its_account, rng: &mut rng, fast };
                // Being cut is an answer, too.
                let _ = visit.download(to, &its_stop);
                thread::sleep(COMES_BACK_AFTER);
            }
        });
        Leecher { account, stop, thread: Some(thread) }
    }

    pub fn blocks(&self) -> u64 {
        self.account.blocks.load(Ordering::Relaxed)
    }

    /// Ends it; its account stays.
    pub fn stop(mut self) -> Arc<Account> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs until it is stopped");
        thread.join().expect("it does not panic");
        self.account.clone()
    }
}

struct Visit<'a> {
    content: &'a Content,
    account: &'a Account,
    rng: &'a mut SmallRng,
    fast: bool,
}

impl Visit<'_> {
    fn download(&mut self, to: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut peer_id = *b"-XX0001-............";
        self.rng.fill_bytes(&mut peer_id[8..]);
        let infohash = self.content.infohash;
        let ours = Handshake { infohash, peer_id, fast: self.fast, extensions: false };
        stream.write_all(&ours.encode())?;
        stream.read_exact(&mut [0; 68])?;
        self.account.connections.fetch_add(1, Ordering::Relaxed);
        say(&mut stream, &[Message::Interested])?;
        let mut unchoked = false;
        let mut waiting: Vec<BlockRequest> = vec![];
        let mut message = vec![];
        while !stop.load(Ordering::Relaxed) {
            while unchoked && waiting.len() < DEPTH {
                // Blocks of one piece, as clients ask.
                let first = self.any_block();
                let run =
                    (0..4).map_while(|n| self.block(first.piece, first.begin / BLOCK_BYTES + n));
                let run: Vec<_> = run.filter(|b| !waiting.contains(b)).collect();
                let asks: Vec<_> = run.iter().map(|b| Message::Request(*b)).collect();
                say(&mut stream, &asks)?;
                waiting.extend(run);
            }
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            message.resize(u32::from_be_bytes(length) as usize, 0);
            stream.read_exact(&mut message)?;
            match message.first() {
                // BEP 3: what was asked for is forgotten with a choke.
                Some(0) => {
                    unchoked = false;
                    if !self.fast {
                        waiting.clear();
                    }
                }
                Some(1) => unchoked = true,
                Some(7) => self.take_block(&message[1..], &mut waiting),
                Some(16) => {
                    let block = read_block(&message[1..]);
                    waiting.retain(|b| (b.piece, b.begin) != block);
                    self.account.rejects.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_block(&mut self, message: &[u8], waiting: &mut Vec<BlockRequest>) {
        let (piece, begin) = read_block(message);
        let asked = waiting.iter().position(|b| (b.piece, b.begin) == (piece, begin));
        let block = waiting.swap_remove(asked.expect("only what was asked for comes"));
        let at = piece as usize * self.content.piece_length as usize + begin as usize;
        let expected = &self.content.bytes[at..at + block.length as usize];
        self.account.blocks.fetch_add(1, Ordering::Relaxed);
        self.account.bytes.fetch_add(u64::from(block.length), Ordering::Relaxed);
        if &message[8..] != expected {
            eprintln!("corrupt: piece {piece}, from {begin}");
            self.account.corrupt_blocks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn any_block(&mut self) -> BlockRequest {
        let blocks = self.content.bytes.len().div_ceil(BLOCK_BYTES as usize) as u32;
        let a_piece = self.content.piece_length / BLOCK_BYTES;
        let n = self.rng.random_range(0..blocks);
        self.block(n / a_piece, n % a_piece).expect("it exists")
    }

    fn block(&self, piece: u32, n: u32) -> Option<BlockRequest> {
        let piece_length = self.content.piece_length;
        let begin = n * BLOCK_BYTES;
        let at = piece as usize * piece_length as usize + begin as usize;
        let left = self.content.bytes.len().checked_sub(at).filter(|left| *left > 0)?;
        let length = BLOCK_BYTES.min(left as u32);
        (begin < piece_length).then_some(BlockRequest { piece, begin, length })
    }
}

fn say(stream: &mut TcpStream, messages: &[Message<'_>]) -> io::Result<()> {
    let mut out = vec![];
    messages.iter().for_each(|message| message.encode(&mut out));
    stream.write_all(&out)
}

/// Piece and begin.
fn read_block(message: &[u8]) -> (u32, u32) {
    let number = |at: usize| message[at..at + 4].try_into().map(u32::from_be_bytes);
    (number(0).expect("four bytes"), number(4).expect("four bytes"))
}
