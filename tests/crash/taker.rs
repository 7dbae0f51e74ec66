//! A downloader that takes blocks of whatever a device serves, compares each with what was published, and
//! notes when how many bytes of payload had reached it. It connects again for as long as it lives.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use larder::logic::{
    infohash::Infohash,
    wire::{BlockRequest, Handshake, Message},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use socket2::{Domain, Socket, Type};

const BLOCK_BYTES: u32 = 16 * 1024;
/// Blocks under way.
const DEPTH: u32 = 32;
/// Whoever says nothing for so long has forgotten this peer; it tries another content.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// What was published.
pub struct Content {
    pub infohash: Infohash,
    pub piece_bytes: u32,
    pub data: Vec<u8>,
}

/// What all takers together know and have.
#[derive(Default)]
pub struct Shared {
    pub contents: Mutex<BTreeMap<Infohash, Arc<Content>>>,
    received: Mutex<Received>,
    connected: AtomicU32,
    stop: AtomicBool,
}

#[derive(Default)]
struct Received {
    payload_bytes: u64,
    /// What had come by then, once for each read.
    history: Vec<(Instant, u64)>,
}

impl Shared {
    pub fn received(&self) -> u64 {
        self.received.lock().expect("nobody panics").payload_bytes
    }

    pub fn received_by(&self, then: Instant) -> u64 {
        let received = self.received.lock().expect("nobody panics");
        let before = received.history.partition_point(|(at, _)| *at <= then);
        before.checked_sub(1).map_or(0, |last| received.history[last].1)
    }

    /// When that much had come.
    pub fn received_at(&self, payload_bytes: u64) -> Option<Instant> {
        let received = self.received.lock().expect("nobody panics");
        let before = received.history.partition_point(|(_, bytes)| *bytes < payload_bytes);
        received.history.get(before).map(|(at, _)| *at)
    }

    /// Nobody has a connection; what had been sent has come.
    pub fn is_drained(&self) -> bool {
        self.connected.load(Ordering::SeqCst) == 0
    }

    fn count(&self, bytes: u64) {
        let mut received = self.received.lock().expect("nobody panics");
        received.payload_bytes += bytes;
        let entry = (Instant::now(), received.payload_bytes);
        received.history.push(entry);
    }
}

pub struct Takers {
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Takers {
    pub fn start(number: u8, device: SocketAddr, seed: u64) -> Takers {
        let shared = Arc::new(Shared::default());
        let start = |n: u8| {
            let shared = Arc::clone(&shared);
            let rng = SmallRng::seed_from_u64(seed ^ u64::from(n));
            thread::spawn(move || Taker { n, device, shared, rng }.run())
        };
        let threads = (1..=number).map(start).collect();
        Takers { shared, threads }
    }

    /// Fails with what a taker has found wrong.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("no taker found anything wrong");
        }
    }

    pub fn assert_content(&self) {
        assert!(self.threads.iter().all(|t| !t.is_finished()), "a taker has failed: see above");
    }
}

struct Taker {
    n: u8,
    device: SocketAddr,
    shared: Arc<Shared>,
    rng: SmallRng,
}

impl Taker {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let known: Vec<Arc<Content>> =
                self.shared.contents.lock().expect("nobody panics").values().cloned().collect();
            if known.is_empty() {
                thread::yield_now();
                continue;
            }
            let content = &known[self.rng.random_range(0..known.len())];
            // A device that is being killed ends connections in every way there is.
            let _ = self.take(content);
        }
    }

    fn take(&mut self, content: &Content) -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 12, 0, self.n), 0)).into())?;
        // Refused at once while nobody listens: not a reason to burn a core.
        if let Err(error) = socket.connect(&self.device.into()) {
            thread::park_timeout(Duration::from_millis(5));
            return Err(error);
        }
        self.shared.connected.fetch_add(1, Ordering::SeqCst);
        let taken = Taking::new(socket.into(), content, self).and_then(|mut taking| taking.run());
        self.shared.connected.fetch_sub(1, Ordering::SeqCst);
        taken
    }
}

/// One connection.
struct Taking<'a> {
    stream: TcpStream,
    content: &'a Content,
    taker: &'a mut Taker,
    held: Vec<u32>,
    /// Blocks that were asked for and have not come.
    under_way: u32,
}

impl<'a> Taking<'a> {
    fn new(
        mut stream: TcpStream,
        content: &'a Content,
        taker: &'a mut Taker,
    ) -> std::io::Result<Taking<'a>> {
        stream.set_read_timeout(Some(FORGOTTEN))?;
        let mut peer_id = *b"-OK0001-crashtaker00";
        peer_id[19] = taker.n;
        let infohash = content.infohash;
        let ours = Handshake { infohash, peer_id, fast: true, extensions: false };
        stream.write_all(&ours.encode())?;
        stream.read_exact(&mut [0; 68])?;
        Ok(Taking { stream, content, taker, held: vec![], under_way: 0 })
    }

    /// Ends when everything that was asked for has come, so that nothing is left to acknowledge.
    fn run(&mut self) -> std::io::Result<()> {
        self.send(Message::Interested)?;
        let patience = Duration::from_millis(self.taker.rng.random_range(500..6_000));
        let until = Instant::now() + patience;
        let mut asks = true;
        while asks || self.under_way > 0 {
            asks &= Instant::now() < until && !self.taker.shared.stop.load(Ordering::SeqCst);
            let mut head = [0; 5];
            self.stream.read_exact(&mut head[..4])?;
            let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes"));
            if length == 0 {
                continue;
            }
            self.stream.read_exact(&mut head[4..])?;
            if head[4] == 7 {
                self.block(length - 9)?;
                self.under_way -= 1;
                self.ask(u32::from(asks));
                continue;
            }
            let mut body = vec![0; length as usize - 1];
            self.stream.read_exact(&mut body)?;
            let had_nothing = self.held.is_empty();
            match head[4] {
                4 => self.held.push(u32::from_be_bytes(body.try_into().expect("a piece"))),
                5 => {
                    let bit = |p: &u32| body[*p as usize / 8] >> (7 - p % 8) & 1 == 1;
                    self.held = (0..self.pieces()).filter(bit).collect();
                }
                14 => self.held = (0..self.pieces()).collect(),
                // Because it is being evicted.
                16 => {
                    self.under_way -= 1;
                    asks = false;
                }
                _ => {}
            }
            if asks && (head[4] == 1 || (had_nothing && head[4] == 4)) {
                self.ask(DEPTH - self.under_way);
            }
        }
        // What carries it acknowledges the last block too.
        self.send(Message::NotInterested)
    }

    fn pieces(&self) -> u32 {
        (self.content.data.len() as u32).div_ceil(self.content.piece_bytes)
    }

    fn ask(&mut self, blocks: u32) {
        for _ in 0..blocks {
            if self.held.is_empty() {
                return;
            }
            let piece = self.held[self.taker.rng.random_range(0..self.held.len())];
            let start = piece * self.content.piece_bytes;
            let bytes = self.content.piece_bytes.min(self.content.data.len() as u32 - start);
            let begin = self.taker.rng.random_range(0..bytes.div_ceil(BLOCK_BYTES)) * BLOCK_BYTES;
            let length = BLOCK_BYTES.min(bytes - begin);
            // A device that has closed may have sent more before: the end is where reading ends.
            if self.send(Message::Request(BlockRequest { piece, begin, length })).is_ok() {
                self.under_way += 1;
            }
        }
    }

    /// Counts each byte when it comes, also those of a block that never ends.
    fn block(&mut self, length: u32) -> std::io::Result<()> {
        let mut place = [0; 8];
        self.stream.read_exact(&mut place)?;
        let number = |at: usize| {
            u32::from_be_bytes(place[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let start = number(0) * self.content.piece_bytes as usize + number(4);
        let mut block = vec![0; length as usize];
        let mut read = 0;
        while read < block.len() {
            let bytes = self.stream.read(&mut block[read..])?;
            if bytes == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.taker.shared.count(bytes as u64);
            let published = &self.content.data[start + read..start + read + bytes];
            assert!(block[read..read + bytes] == *published, "a corrupt block was served");
            read += bytes;
        }
        Ok(())
    }

    fn send(&mut self, message: Message<'_>) -> std::io::Result<()> {
        let mut out = vec![];
        message.encode(&mut out);
        self.stream.write_all(&out)
    }
}
