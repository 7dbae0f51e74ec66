//! Attacks on a seeder over real sockets: each is a crowd of connections with one bad habit, from many
//! addresses of the loopback. It only attacks, and counts what it did; others look at the victim.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use larder::logic::{
    infohash::Infohash,
    wire::{BlockRequest, Handshake, Message, MetadataMessage},
};
use socket2::{Domain, Socket, Type};

/// Between two rounds over all connections: the victim shares the machine.
const ROUND: Duration = Duration::from_millis(5);
/// A byte of a handshake now and then.
const DRIP: Duration = Duration::from_millis(400);
/// What a flood writes to one connection in a round.
const FLOOD_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub infohash: Infohash,
    /// The seeder's own.
    pub peer_id: [u8; 20],
    pub piece_bytes: u32,
    /// All of them whole.
    pub pieces: u32,
    /// What honest peers call themselves.
    pub honest_ids: Vec<[u8; 20]>,
    /// Where attackers come from, counted up.
    pub sources: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Handshakes, a byte at a time.
    Slowloris,
    /// Ten thousand connections: half are silent, half shake hands and then are.
    Crowd,
    /// Requests without end, far beyond `reqq`, for the same few blocks.
    Requests,
    /// All of the metadata, again and again.
    Metadata,
    /// Lengths that are too long, negative, or not the message's.
    Lengths,
    WrongInfohash,
    /// Asks for a lot and reads nothing.
    NeverReads,
    /// Calls itself what the seeder calls itself.
    Ourselves,
    /// Calls itself what honest peers call themselves.
    DuplicateIds,
}

impl Attack {
    pub const ALL: [Attack; 9] = [
        Attack::Slowloris,
        Attack::Crowd,
        Attack::Requests,
        Attack::Metadata,
        Attack::Lengths,
        Attack::WrongInfohash,
        Attack::NeverReads,
        Attack::Ourselves,
        Attack::DuplicateIds,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Attack::Slowloris => "slowloris",
            Attack::Crowd => "crowd",
            Attack::Requests => "requests",
            Attack::Metadata => "metadata",
            Attack::Lengths => "lengths",
            Attack::WrongInfohash => "wrong-infohash",
            Attack::NeverReads => "never-reads",
            Attack::Ourselves => "ourselves",
            Attack::DuplicateIds => "duplicate-ids",
        }
    }

    /// Connections, each from an address of its own.
    pub fn connections(self) -> usize {
        match self {
            Attack::Slowloris => 2_000,
            Attack::Crowd => 10_000,
            Attack::NeverReads => 32,
            _ => 64,
        }
    }

    /// Until whoever was closed tries again.
    fn retry_after(self) -> Duration {
        match self {
            Attack::Slowloris | Attack::Crowd => Duration::from_secs(5),
            _ => Duration::from_millis(100),
        }
    }

    /// What a connection says first.
    fn opening(self, target: &Target, n: usize) -> Vec<u8> {
        let mut out = match self {
            Attack::Slowloris => return vec![],
            Attack::Crowd if n.is_multiple_of(2) => return vec![],
            Attack::WrongInfohash => shake(Infohash([n as u8; 20]), id(n)),
            Attack::Ourselves => shake(target.infohash, target.peer_id),
            Attack::DuplicateIds if !target.honest_ids.is_empty() => {
                shake(target.infohash, target.honest_ids[n % target.honest_ids.len()])
            }
            _ => shake(target.infohash, id(n)),
        };
        match self {
            Attack::Lengths => out.extend(bad_length(n)),
            Attack::Requests | Attack::DuplicateIds => Message::Interested.encode(&mut out),
            Attack::NeverReads => {
                Message::Interested.encode(&mut out);
                (0..500).for_each(|i| request(target, n + i).encode(&mut out));
            }
            Attack::Metadata => {
                let payload = b"d1:md11:ut_metadatai3eee";
                Message::Extended { id: 0, payload }.encode(&mut out);
            }
            _ => {}
        }
        out
    }

    /// What it says from then on, each round.
    fn flood(self, target: &Target, n: usize) -> Vec<u8> {
        let mut out = vec![];
        match self {
            Attack::Requests => {
                while out.len() < FLOOD_BYTES {
                    request(target, n + out.len() % 7).encode(&mut out);
                }
            }
            Attack::Metadata => {
                while out.len() < FLOOD_BYTES {
                    let payload =
                        MetadataMessage::Request { piece: (out.len() % 3) as u32 }.encode();
                    Message::Extended { id: 1, payload: &payload }.encode(&mut out);
                }
            }
            _ => {}
        }
        out
    }
}

fn shake(infohash: Infohash, peer_id: [u8; 20]) -> Vec<u8> {
    Handshake { infohash, peer_id, fast: true, extensions: true }.encode().to_vec()
}

fn id(n: usize) -> [u8; 20] {
    let mut id = *b"-XX6660-000000000000";
    id[8..].copy_from_slice(format!("{n:012}").as_bytes());
    id
}

fn request(target: &Target, n: usize) -> Message<'static> {
    let piece = n as u32 % target.pieces;
    Message::Request(BlockRequest { piece, begin: 0, length: target.piece_bytes.min(16_384) })
}

fn bad_length(n: usize) -> Vec<u8> {
    match n % 5 {
        0 => u32::MAX.to_be_bytes().to_vec(),
        1 => 0x8000_0000u32.to_be_bytes().to_vec(),
        2 => 300_000u32.to_be_bytes().to_vec(),
        // A request of nine kilobytes, and one without a body.
        3 => vec![0, 0, 0x24, 0, 6],
        _ => vec![0, 0, 0, 1, 6],
    }
}

#[derive(Default)]
pub struct Tally {
    pub opened: AtomicU64,
    pub closed_by_seeder: AtomicU64,
    pub received_bytes: AtomicU64,
}

/// An attack that goes on until it is dropped.
pub struct Attacker {
    pub tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    pub fn launch(attack: Attack, connections: usize, target: Target) -> Attacker {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let mut crowd = Crowd { attack, target, tally: tally.clone(), scratch: vec![0; 64 * 1024] };
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut members: Vec<_> = (0..connections).map(Member::new).collect();
            while !stopped.load(Ordering::Relaxed) {
                members.iter_mut().for_each(|member| crowd.step(member));
                thread::park_timeout(ROUND);
            }
        });
        Attacker { tally, stop, thread: Some(thread) }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Member {
    n: usize,
    stream: Option<TcpStream>,
    retry_at: Option<Instant>,
    out: Vec<u8>,
    written: usize,
    /// Of a handshake that drips.
    dripped: usize,
    drip_at: Instant,
}

impl Member {
    fn new(n: usize) -> Member {
        let drip_at = Instant::now();
        Member { n, stream: None, retry_at: None, out: vec![], written: 0, dripped: 0, drip_at }
    }
}

struct Crowd {
    attack: Attack,
    target: Target,
    tally: Arc<Tally>,
    scratch: Vec<u8>,
}

impl Crowd {
    fn step(&mut self, member: &mut Member) {
        if member.stream.is_none() {
            if member.retry_at.is_some_and(|at| Instant::now() < at) {
                return;
            }
            self.open(member);
        }
        if self.speak(member).is_err() || self.listen(member).is_err() {
            member.stream = None;
            member.retry_at = Some(Instant::now() + self.attack.retry_after());
            self.tally.closed_by_seeder.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(&self, member: &mut Member) {
        let own = Ipv4Addr::from(u32::from(self.target.sources) + member.n as u32);
        let stream = connect(own, self.target.address, self.attack == Attack::NeverReads);
        // No descriptor or no port left: the next time round, perhaps.
        let Ok(stream) = stream else { return };
        self.tally.opened.fetch_add(1, Ordering::Relaxed);
        member.stream = Some(stream);
        member.out = self.attack.opening(&self.target, member.n);
        (member.written, member.dripped) = (0, 0);
    }

    fn speak(&self, member: &mut Member) -> Result<(), ErrorKind> {
        let Some(stream) = &mut member.stream else { return Ok(()) };
        if self.attack == Attack::Slowloris && member.drip_at.elapsed() > DRIP {
            member.drip_at = Instant::now();
            let whole = shake(self.target.infohash, id(member.n));
            member.out.extend(whole.get(member.dripped));
            member.dripped += 1;
        }
        if member.written >= member.out.len() {
            let more = self.attack.flood(&self.target, member.n);
            if more.is_empty() {
                return Ok(());
            }
            (member.out, member.written) = (more, 0);
        }
        match stream.write(&member.out[member.written..]) {
            Ok(n) => member.written += n,
            Err(e) if waits(e.kind()) => {}
            Err(e) => return Err(e.kind()),
        }
        Ok(())
    }

    fn listen(&mut self, member: &mut Member) -> Result<(), ErrorKind> {
        let Some(stream) = &mut member.stream else { return Ok(()) };
        if self.attack == Attack::NeverReads {
            return Ok(());
        }
        match stream.read(&mut self.scratch) {
            Ok(0) => Err(ErrorKind::UnexpectedEof),
            Ok(n) => {
                self.tally.received_bytes.fetch_add(n as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(e) if waits(e.kind()) => Ok(()),
            Err(e) => Err(e.kind()),
        }
    }
}

fn waits(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

fn connect(own: Ipv4Addr, to: SocketAddr, small_window: bool) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if small_window {
        socket.set_recv_buffer_size(4_096)?;
    }
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}
