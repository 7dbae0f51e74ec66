//! Load for measuring a seeder: opens connections to one BitTorrent seeder, asks for random blocks,
//! throws them away, and prints what came, when and how fairly, as one JSON document. It verifies
//! nothing and uploads nothing. `benches/seeders` runs it; see docs/benchmarks.md.
//!
//!     load --torrent FILE --target IP:PORT [--connections N] [--depth N] [--seconds S] [--warmup S]
//!          [--bytes-max N] [--blocks-per-second N] [--sequential] [--source IP]
//!
//! With `--source`, each connection comes from an address of its own, counted up from there. Seconds
//! count from the first byte of a block: Transmission unchokes nobody in the first ten.

use std::{
    collections::{BTreeSet, VecDeque},
    error::Error,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use larder::logic::metainfo::{BLOCK_BYTES, Metainfo};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use socket2::{Domain, Socket, Type};

/// Payload is counted in bins of this length; the windows are made of them.
const BIN: Duration = Duration::from_millis(100);
const BINS_A_SECOND: usize = 10;
/// How often paced connections ask: often enough for a smooth load, rare enough to cost little.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

/// How long the first byte of a block may take.
const PATIENCE: Duration = Duration::from_secs(20);

type Failure = Box<dyn Error>;

struct Plan {
    metainfo: Metainfo,
    target: SocketAddr,
    connections: usize,
    depth: usize,
    seconds: f64,
    warmup: f64,
    bytes_max: u64,
    /// By connection; 0 is as fast as they come.
    blocks_per_second: f64,
    sequential: bool,
    source: Option<Ipv4Addr>,
}

impl Plan {
    fn from_args() -> Result<Plan, Failure> {
        let mut values = std::collections::BTreeMap::new();
        let mut args = std::env::args().skip(1);
        let mut sequential = false;
        while let Some(arg) = args.next() {
            if arg == "--sequential" {
                sequential = true;
                continue;
            }
            let value = args.next().ok_or(format!("{arg} needs a value after it"))?;
            values.insert(arg, value);
        }
        let mut take =
            |name: &str, default: &str| values.remove(name).unwrap_or_else(|| default.to_owned());
        let source = take("--source", "");
        let plan = Plan {
            metainfo: Metainfo::parse(&std::fs::read(take("--torrent", ""))?)?,
            target: take("--target", "127.0.0.1:6881").parse()?,
            connections: take("--connections", "1").parse()?,
            depth: take("--depth", "32").parse()?,
            seconds: take("--seconds", "10").parse()?,
            warmup: take("--warmup", "0").parse()?,
            bytes_max: take("--bytes-max", "18446744073709551615").parse()?,
            blocks_per_second: take("--blocks-per-second", "0").parse()?,
            source: if source.is_empty() { None } else { Some(source.parse()?) },
            sequential,
        };
        match values.keys().next() {
            Some(unknown) => Err(format!("unknown option {unknown}").into()),
            None => Ok(plan),
        }
    }

    fn blocks(&self) -> u64 {
        self.metainfo.total_bytes.div_ceil(u64::from(BLOCK_BYTES))
    }

    /// Piece, begin and length of the content's n-th block.
    fn block(&self, n: u64) -> (u32, u32, u32) {
        let offset = n * u64::from(BLOCK_BYTES);
        let piece_length = u64::from(self.metainfo.piece_length);
        let (piece, begin) = (offset / piece_length, offset % piece_length);
        let left = (self.metainfo.total_bytes - offset).min(piece_length - begin);
        (piece as u32, begin as u32, left.min(u64::from(BLOCK_BYTES)) as u32)
    }
}

#[derive(Default)]
struct Seen {
    payload: u64,
    blocks: u64,
    bins: Vec<u64>,
    /// Seconds from connecting to the end of the first block.
    first_block: Vec<f64>,
    /// Seconds from asking to the end of the block.
    latency: Vec<f32>,
    closed: u32,
    chokes: u32,
}

struct Peer {
    stream: TcpStream,
    opened: Instant,
    /// What is not yet a whole message; never payload.
    head: Vec<u8>,
    handshaken: bool,
    /// Payload that is still to come of the block in hand.
    skip: usize,
    unchoked: bool,
    asked: VecDeque<Instant>,
    next_block: u64,
    credit: f64,
    out: Vec<u8>,
    /// After the warm-up.
    payload: u64,
    first_seen: bool,
    closed: bool,
}

struct Load {
    plan: Plan,
    rng: SmallRng,
    /// The first byte of a block, or until it comes, now.
    started: Instant,
    seen: Seen,
}

fn main() -> Result<(), Failure> {
    let plan = Plan::from_args()?;
    let mut poll = Poll::new()?;
    let mut load = Load {
        rng: SmallRng::seed_from_u64(1),
        started: Instant::now(),
        seen: Seen::default(),
        plan,
    };
    let mut peers = vec![];
    for n in 0..load.plan.connections {
        let mut peer = load.connect(n)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut peer.stream, Token(n), interest)?;
        peers.push(peer);
    }
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 * 1024];
    let mut to_read = BTreeSet::new();
    let paced = load.plan.blocks_per_second > 0.0;
    let mut asked_at = load.started;
    let end = Duration::from_secs_f64(load.plan.seconds);
    let opened = load.started;
    while load.started.elapsed() < end && load.seen.payload < load.plan.bytes_max {
        if load.seen.payload == 0 {
            if opened.elapsed() > PATIENCE {
                break;
            }
            load.started = Instant::now();
        }
        let wait = match () {
            _ if !to_read.is_empty() => Duration::ZERO,
            _ if paced => ASK_INTERVAL,
            _ => BIN,
        };
        poll.poll(&mut events, Some(wait))?;
        to_read.extend(events.iter().map(|event| event.token().0));
        for n in std::mem::take(&mut to_read) {
            let peer = &mut peers[n];
            match load.read(peer, &mut buffer) {
                Ok(true) => {
                    to_read.insert(n);
                }
                Ok(false) => {}
                Err(_) if !peer.closed => {
                    peer.closed = true;
                    load.seen.closed += 1;
                }
                Err(_) => {}
            }
            load.ask(peer);
        }
        if paced && asked_at.elapsed() >= ASK_INTERVAL {
            let income = asked_at.elapsed().as_secs_f64() * load.plan.blocks_per_second;
            asked_at = Instant::now();
            for peer in &mut peers {
                peer.credit = (peer.credit + income).min(load.plan.depth as f64);
                load.ask(peer);
            }
        }
        if peers.iter().all(|p| p.closed) {
            break;
        }
    }
    println!("{}", load.report(&peers));
    Ok(())
}

impl Load {
    fn connect(&mut self, n: usize) -> Result<Peer, Failure> {
        let socket = Socket::new(Domain::for_address(self.plan.target), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let Some(first) = self.plan.source {
            let own = Ipv4Addr::from(u32::from(first) + n as u32);
            socket.bind(&SocketAddr::new(IpAddr::V4(own), 0).into())?;
        }
        match socket.connect(&self.plan.target.into()) {
            Err(e) if e.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(e.into()),
            _ => {}
        }
        let mut out = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
        out.extend_from_slice(&self.plan.metainfo.infohash.0);
        out.extend_from_slice(format!("-LB0001-{n:012}").as_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 2]);
        Ok(Peer {
            stream: TcpStream::from_std(socket.into()),
            opened: Instant::now(),
            head: vec![],
            handshaken: false,
            skip: 0,
            unchoked: false,
            asked: VecDeque::new(),
            next_block: self.rng.random_range(0..self.plan.blocks()),
            // So that paced connections do not ask in step.
            credit: self.rng.random_range(0.0..1.0),
            out,
            payload: 0,
            first_seen: false,
            closed: false,
        })
    }

    /// One buffer's worth, so that nobody gets more by being quick to refill. True: there may be more,
    /// and the socket will not say so again.
    fn read(&mut self, peer: &mut Peer, buffer: &mut [u8]) -> Result<bool, ErrorKind> {
        match peer.stream.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof),
            Ok(n) => {
                self.take(peer, &buffer[..n]);
                Ok(n == buffer.len())
            }
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::NotConnected => Ok(false),
                ErrorKind::Interrupted => Ok(true),
                broken => Err(broken),
            },
        }
    }

    fn take(&mut self, peer: &mut Peer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if peer.skip > 0 {
                let n = peer.skip.min(bytes.len());
                bytes = &bytes[n..];
                peer.skip -= n;
                self.count(peer, n as u64);
                continue;
            }
            peer.head.push(bytes[0]);
            bytes = &bytes[1..];
            self.look(peer);
        }
    }

    /// Acts on the head as soon as it says enough.
    fn look(&mut self, peer: &mut Peer) {
        let head = &peer.head;
        if !peer.handshaken {
            if head.len() == 68 {
                peer.handshaken = true;
                peer.head.clear();
            }
            return;
        }
        if head.len() < 4 {
            return;
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let is_block = head.get(4) == Some(&7);
        if is_block && head.len() == 13 {
            peer.skip = length - 9;
        } else if !is_block && head.len() == 4 + length {
            match head.get(4) {
                Some(0) => {
                    peer.unchoked = false;
                    peer.asked.clear();
                    self.seen.chokes += 1;
                }
                Some(1) => peer.unchoked = true,
                _ => {}
            }
        } else {
            return;
        }
        peer.head.clear();
    }

    fn count(&mut self, peer: &mut Peer, bytes: u64) {
        let now = Instant::now();
        let at = now - self.started;
        self.seen.payload += bytes;
        let bin = (at.as_micros() / BIN.as_micros()) as usize;
        if self.seen.bins.len() <= bin {
            self.seen.bins.resize(bin + 1, 0);
        }
        self.seen.bins[bin] += bytes;
        let warm = at.as_secs_f64() >= self.plan.warmup;
        if warm {
            peer.payload += bytes;
        }
        if peer.skip > 0 {
            return;
        }
        self.seen.blocks += 1;
        if !std::mem::replace(&mut peer.first_seen, true) {
            self.seen.first_block.push((now - peer.opened).as_secs_f64());
        }
        if let Some(asked) = peer.asked.pop_front()
            && warm
        {
            self.seen.latency.push((now - asked).as_secs_f32());
        }
    }

    /// Requests up to the depth, as far as the pace allows.
    fn ask(&mut self, peer: &mut Peer) {
        let paced = self.plan.blocks_per_second > 0.0;
        // In halves, so that several requests share a packet.
        let low = if paced { self.plan.depth } else { self.plan.depth.div_ceil(2) };
        if peer.unchoked && peer.asked.len() <= low {
            let now = Instant::now();
            while peer.asked.len() < self.plan.depth && (!paced || peer.credit >= 1.0) {
                peer.credit -= 1.0;
                let (piece, begin, length) = self.plan.block(peer.next_block);
                for word in [13, 6 << 24] {
                    peer.out.extend_from_slice(&u32::to_be_bytes(word));
                }
                peer.out.truncate(peer.out.len() - 3);
                for word in [piece, begin, length] {
                    peer.out.extend_from_slice(&u32::to_be_bytes(word));
                }
                peer.asked.push_back(now);
                self.step(peer);
            }
        }
        if !peer.out.is_empty() && !peer.closed {
            // A broken connection shows when it is read.
            if let Ok(n) = peer.stream.write(&peer.out) {
                peer.out.drain(..n);
            }
        }
    }

    /// Blocks of a piece follow each other; then comes another piece.
    fn step(&mut self, peer: &mut Peer) {
        let blocks = self.plan.blocks();
        let a_piece = u64::from(self.plan.metainfo.piece_length / BLOCK_BYTES);
        let next = peer.next_block + 1;
        peer.next_block = if self.plan.sequential || !next.is_multiple_of(a_piece) {
            next % blocks
        } else {
            self.rng.random_range(0..blocks.div_ceil(a_piece)) * a_piece
        };
    }

    fn report(&mut self, peers: &[Peer]) -> serde_json::Value {
        let elapsed = self.started.elapsed().as_secs_f64();
        // The last bin is not full, nor is the first after the warm-up if that ends inside one.
        let bins = &self.seen.bins[..self.seen.bins.len().saturating_sub(1)];
        let from = (self.plan.warmup * BINS_A_SECOND as f64).ceil() as usize;
        let warm = bins.get(from..).unwrap_or(&[]);
        let seconds = warm.chunks_exact(BINS_A_SECOND).map(|c| c.iter().sum::<u64>());
        let each: Vec<f64> = peers.iter().map(|p| p.payload as f64).collect();
        let mean_rate = warm.iter().sum::<u64>() as f64 * BINS_A_SECOND as f64 / warm.len() as f64;
        serde_json::json!({
            "seconds": elapsed,
            "payload_bytes": self.seen.payload,
            "blocks": self.seen.blocks,
            "bytes_per_second": mean_rate,
            "window_1_s_max_bytes_per_second": seconds.max(),
            "window_100_ms_max_bytes_per_second":
                warm.iter().max().map(|b| b * BINS_A_SECOND as u64),
            "jain": jain(&each),
            "served": peers.iter().filter(|p| p.first_seen).count(),
            "first_block_seconds_p50": median(&mut self.seen.first_block),
            "latency_seconds_p50": median(&mut self.seen.latency),
            "connections_closed": self.seen.closed,
            "chokes": self.seen.chokes,
        })
    }
}

/// 1 when all have the same, 1/n when one has all.
fn jain(each: &[f64]) -> f64 {
    let sum: f64 = each.iter().sum();
    let squares: f64 = each.iter().map(|x| x * x).sum();
    sum * sum / (each.len() as f64 * squares)
}

fn median<T: PartialOrd + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).expect("durations compare"));
    values.get(values.len() / 2).copied()
}
