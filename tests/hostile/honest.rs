//! Honest leechers: they ask for a few blocks at a time, and count what they get. Whatever should not
//! happen to an honest peer ends the test.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use larder::logic::{
    governor::WireCost,
    infohash::Infohash,
    wire::{BlockRequest, Handshake, Message},
};
use socket2::{Domain, Socket, Type};

use crate::attack::Target;

const BLOCK_BYTES: u32 = 16 * 1024;
/// Blocks under way, as a modest client has them.
const DEPTH: u32 = 16;
/// Blocks come every few milliseconds; this is somebody who was forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

pub struct Peer {
    stream: TcpStream,
    received: Arc<AtomicU64>,
}

impl Peer {
    /// Past the handshakes.
    pub fn connect(
        own: Ipv4Addr,
        id: [u8; 20],
        to: SocketAddr,
        infohash: Infohash,
    ) -> Result<(Peer, [u8; 20])> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((own, 0)).into())?;
        socket.connect(&to.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(FORGOTTEN))?;
        let mut peer = Peer { stream, received: Arc::default() };
        let ours = Handshake { infohash, peer_id: id, fast: true, extensions: false };
        peer.stream.write_all(&ours.encode())?;
        let mut theirs = [0; 68];
        peer.read(&mut theirs)?;
        let theirs = Handshake::parse(&theirs).expect("well-formed").expect("whole");
        Ok((peer, theirs.peer_id))
    }

    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        self.stream.read_exact(out)?;
        self.received.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn send(&mut self, message: Message<'_>) -> Result<()> {
        let mut out = vec![];
        message.encode(&mut out);
        self.stream.write_all(&out)
    }

    /// Asks for blocks from `next` on, one for each that comes, until `done` says so; a choke loses
    /// what was asked for.
    pub fn download(
        &mut self,
        target: &Target,
        mut next: u32,
        mut done: impl FnMut() -> bool,
    ) -> Result<()> {
        self.send(Message::Interested)?;
        let mut buffer = vec![0; 9 + BLOCK_BYTES as usize];
        while !done() {
            let mut length = [0; 4];
            self.read(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            let message = buffer.get_mut(..length).ok_or(Error::from(ErrorKind::InvalidData))?;
            self.stream.read_exact(message)?;
            self.received.fetch_add(length as u64, Ordering::Relaxed);
            let ask = match message.first() {
                Some(1) => DEPTH,
                Some(7) => 1,
                _ => 0,
            };
            for _ in 0..ask {
                self.send(Message::Request(block(target, next)))?;
                next += 1;
            }
        }
        Ok(())
    }
}

fn block(target: &Target, n: u32) -> BlockRequest {
    let a_piece = target.piece_bytes.div_ceil(BLOCK_BYTES);
    let (piece, begin) = (n / a_piece % target.pieces, n % a_piece * BLOCK_BYTES);
    BlockRequest { piece, begin, length: BLOCK_BYTES.min(target.piece_bytes - begin) }
}

/// Several peers that download for as long as they are told.
pub struct Crowd {
    received: Vec<Arc<AtomicU64>>,
    /// What the kernel fills a packet of the loopback with.
    segment_payload_bytes: Option<u32>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    started: Arc<(Mutex<usize>, Condvar)>,
}

impl Crowd {
    pub fn address(n: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x7f0a_0001 + n as u32)
    }

    pub fn start(target: &Target) -> Crowd {
        let mut crowd = Crowd {
            received: vec![],
            segment_payload_bytes: None,
            stop: Arc::default(),
            threads: vec![],
            started: Arc::default(),
        };
        for (n, id) in target.honest_ids.iter().enumerate() {
            let (mut peer, _) =
                Peer::connect(Crowd::address(n), *id, target.address, target.infohash)
                    .expect("connects");
            crowd.received.push(peer.received.clone());
            crowd.segment_payload_bytes = socket2::SockRef::from(&peer.stream).tcp_mss().ok();
            let (target, stop, started) =
                (target.clone(), crowd.stop.clone(), crowd.started.clone());
            crowd.threads.push(thread::spawn(move || {
                let mut rounds = 0;
                peer.download(&target, 1_000 * n as u32, || {
                    rounds += 1;
                    if rounds == 20 {
                        *started.0.lock().expect("nobody panics") += 1;
                        started.1.notify_all();
                    }
                    stop.load(Ordering::Relaxed)
                })
            }));
        }
        crowd
    }

    /// Each has had some blocks.
    pub fn wait_until_under_way(&self) {
        let all = self.threads.len();
        let count = self.started.0.lock().expect("nobody panics");
        let (count, waited) = self
            .started
            .1
            .wait_timeout_while(count, FORGOTTEN, |count| *count < all)
            .expect("nobody panics");
        assert!(!waited.timed_out(), "{} of {all} peers are served", *count);
    }

    /// Of the stream, all of them.
    pub fn received_bytes(&self) -> u64 {
        self.received.iter().map(|r| r.load(Ordering::Relaxed)).sum()
    }

    /// What the allowance was charged for that.
    pub fn wire_bytes(&self) -> u64 {
        let cost = WireCost::to(Crowd::address(0).into(), self.segment_payload_bytes);
        self.received.iter().map(|r| cost.of(r.load(Ordering::Relaxed))).sum()
    }

    /// Nobody was closed, nor forgotten.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (n, thread) in self.threads.into_iter().enumerate() {
            let ended = thread.join().expect("no panic");
            assert!(ended.is_ok(), "honest peer {n}: {ended:?}");
        }
    }
}
