//! A content on disk, an engine that serves it, and a leecher that does as it is told.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::super::*;
use crate::logic::{
    bitfield::Bitfield,
    usage::Usage,
    wire::{
        BlockRequest, Handshake, Message,
        mse::{PAD_BYTES_MAX, Rc4, initiator::Initiator},
    },
};

pub const PIECE_BYTES: u32 = 256 * 1024;
pub const BLOCK_BYTES: u32 = 16 * 1024;
/// The most that a segment carries on loopback.
pub const LOOPBACK_SEGMENT: Option<u32> = Some(65_483);
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A content on disk and an engine that serves it.
pub struct Stage {
    dir: tempfile::TempDir,
    pub data: Vec<u8>,
    pub info: Vec<u8>,
    pub infohash: Infohash,
    pub address: SocketAddr,
    pub engine: Engine,
}

struct Folder(PathBuf);

impl OpenContent for Folder {
    fn open(&self, infohash: Infohash) -> io::Result<File> {
        File::open(self.0.join(infohash.to_string()))
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

pub fn settings() -> ServeSettings {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // Whatever the machine's default: blocks leave in runs under every one but BBR.
    socket2::SockRef::from(&listener).set_tcp_congestion(b"reno").expect("every kernel has it");
    ServeSettings {
        listeners: vec![listener],
        on_first_peer: Box::new(|| ()),
        peer_id: *b"-LA0001-0123456789ab",
        client_name: "Larder/test".into(),
        connections_max: 50,
        connections_per_ip_max: 50,
        connections_per_content_max: 50,
        listen_port: 6881,
        lan_prefixes: None,
    }
}

impl Stage {
    pub fn new(allowance: Allowance) -> Stage {
        Stage::with(allowance, settings(), Timeouts::default(), true)
    }

    pub fn with(
        allowance: Allowance,
        settings: ServeSettings,
        timeouts: Timeouts,
        full: bool,
    ) -> Stage {
        let dir = tempfile::tempdir().expect("a folder");
        let data = noise(3 * 1024 * 1024 + 12_345);
        // Three pieces of metadata; the engine never looks into it.
        let info = noise(40_000);
        let infohash = Infohash::of_info(&info);
        std::fs::write(dir.path().join(infohash.to_string()), &data).expect("writes");
        let address = settings.listeners[0].local_addr().expect("bound");
        let folder = Folder(dir.path().to_owned());
        let engine = Engine::start_with(settings, timeouts, |_| true, Box::new(folder), None)
            .expect("the engine starts");
        let stage = Stage { dir, data, info, infohash, address, engine };
        stage.engine.send(ServeCommand::SetAllowance(allowance));
        stage.engine.send(ServeCommand::Add(stage.servable(full)));
        // Commands act in order: once this is answered, so are they.
        stage.engine.take_usage();
        stage
    }

    pub fn servable(&self, full: bool) -> Servable {
        let pieces = self.pieces();
        Servable {
            infohash: self.infohash,
            piece_length: PIECE_BYTES,
            total_bytes: self.data.len() as u64,
            info_bytes: self.info.clone().into(),
            have: if full { Bitfield::full(pieces) } else { Bitfield::empty(pieces) },
        }
    }

    pub fn pieces(&self) -> u32 {
        self.data.len().div_ceil(PIECE_BYTES as usize) as u32
    }

    pub fn blocks(&self) -> Vec<BlockRequest> {
        let mut out = vec![];
        for piece in 0..self.pieces() {
            let start = u64::from(piece) * u64::from(PIECE_BYTES);
            let bytes = (self.data.len() as u64 - start).min(u64::from(PIECE_BYTES)) as u32;
            for begin in (0..bytes).step_by(BLOCK_BYTES as usize) {
                out.push(BlockRequest { piece, begin, length: BLOCK_BYTES.min(bytes - begin) });
            }
        }
        out
    }

    pub fn expected(&self, block: BlockRequest) -> &[u8] {
        let start = (block.piece * PIECE_BYTES + block.begin) as usize;
        &self.data[start..start + block.length as usize]
    }

    pub fn content_path(&self) -> PathBuf {
        self.dir.path().join(self.infohash.to_string())
    }

    pub fn leecher(&self) -> Leecher {
        Leecher::connect(self.address, self.infohash, true)
    }

    /// From an address of its own, so that what it does is not held against others.
    pub fn stranger(&self) -> Leecher {
        let mut leecher = Leecher::stranger(self.address);
        leecher.greet(self.infohash, true);
        leecher
    }

    pub fn connected(&self) -> u32 {
        self.engine.stats().peers_connected
    }

    /// Payload delivered so far, once it is as much as expected.
    pub fn delivered(&self, expected: u64) -> Usage {
        let mut sum = Usage::default();
        wait_until("the payload is acknowledged", || {
            for delta in self.engine.take_usage() {
                assert_eq!(delta.infohash, self.infohash);
                sum.add(delta.usage);
            }
            assert!(sum.payload_bytes <= expected, "{sum:?}, more than {expected}");
            sum.payload_bytes == expected
        });
        sum
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "gave up waiting until {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// What the engine said; blocks with their content.
#[derive(Debug, PartialEq)]
pub enum Said {
    Message(String),
    Block { piece: u32, begin: u32, data: Vec<u8> },
    Extended { id: u8, payload: Vec<u8> },
}

pub struct Leecher {
    pub stream: TcpStream,
    pub received_bytes: u64,
    pub peer_id: [u8; 20],
    /// Outgoing and incoming, of an encrypted connection.
    ciphers: Option<(Rc4, Rc4)>,
}

/// Each leecher is somebody else.
fn new_peer_id() -> [u8; 20] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut id = *b"-TT0001-leecher00000";
    let number = format!("{:05}", NEXT.fetch_add(1, Ordering::Relaxed));
    id[15..].copy_from_slice(number.as_bytes());
    id
}

impl Leecher {
    pub fn raw(address: SocketAddr) -> Leecher {
        Leecher::over(TcpStream::connect(address).expect("connects"))
    }

    /// From another of loopback's addresses.
    pub fn from_address(from: [u8; 4], stage: &Stage) -> Leecher {
        let mut leecher = Leecher::raw_from_address(from, stage);
        leecher.greet(stage.infohash, true);
        leecher
    }

    pub fn raw_from_address(from: [u8; 4], stage: &Stage) -> Leecher {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("one of loopback's");
        socket.connect(&stage.address.into()).expect("connects");
        Leecher::over(socket.into())
    }

    pub fn over(stream: TcpStream) -> Leecher {
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        Leecher { stream, received_bytes: 0, peer_id: new_peer_id(), ciphers: None }
    }

    /// From an address of its own.
    pub fn stranger(address: SocketAddr) -> Leecher {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Leecher::from(Ipv4Addr::from(0x7f01_0000 + number), address)
    }

    pub fn from(own: Ipv4Addr, address: SocketAddr) -> Leecher {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::from((own, 0)).into()).expect("loopback has many addresses");
        socket.connect(&address.into()).expect("connects");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        Leecher { stream, received_bytes: 0, peer_id: new_peer_id(), ciphers: None }
    }

    /// With a receive buffer of about `bytes`, set before the window is agreed.
    pub fn with_small_window(stage: &Stage, bytes: usize) -> Leecher {
        let mut leecher = Leecher::raw_with_small_window(stage, bytes);
        leecher.greet(stage.infohash, true);
        leecher
    }

    pub fn slow_and_encrypted(stage: &Stage, bytes: usize) -> Leecher {
        let mut leecher = Leecher::raw_with_small_window(stage, bytes);
        leecher.encrypt(&Initiator::to(stage.infohash, 2), 2);
        leecher.greet(stage.infohash, true);
        leecher
    }

    fn raw_with_small_window(stage: &Stage, bytes: usize) -> Leecher {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("sets");
        socket.connect(&stage.address.into()).expect("connects");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        Leecher { stream, received_bytes: 0, peer_id: new_peer_id(), ciphers: None }
    }

    pub fn connect(address: SocketAddr, infohash: Infohash, fast: bool) -> Leecher {
        let mut leecher = Leecher::raw(address);
        leecher.greet(infohash, fast);
        leecher
    }

    /// With an encrypted handshake, our plain one in its initial payload. `provide` is 1 for
    /// plaintext after it, 2 for RC4.
    pub fn encrypted(address: SocketAddr, infohash: Infohash, provide: u32) -> Leecher {
        let mut leecher = Leecher::raw(address);
        let payload = leecher.handshake(infohash, true).encode().to_vec();
        leecher.encrypt(&Initiator { payload, ..Initiator::to(infohash, provide) }, provide);
        leecher.hear_handshake(infohash);
        leecher
    }

    pub fn encrypt(&mut self, initiator: &Initiator, expected: u32) {
        self.write(initiator.hello());
        let mut reply = initiator.reply(&self.read());
        self.write(reply.bytes.clone());
        let mut window = self.read::<8>();
        while window != reply.marker {
            window.rotate_left(1);
            [window[7]] = self.read();
        }
        assert_eq!(reply.read_selection(self.read()), (expected, 0));
        self.ciphers = (expected == 2).then_some((reply.outgoing, reply.incoming));
    }

    /// Says who it is, and does not wait for an answer.
    pub fn shake(&mut self, infohash: Infohash) {
        self.write(self.handshake(infohash, true).encode().to_vec());
    }

    pub fn greet(&mut self, infohash: Infohash, fast: bool) {
        self.write(self.handshake(infohash, fast).encode().to_vec());
        self.hear_handshake(infohash);
    }

    fn handshake(&self, infohash: Infohash, fast: bool) -> Handshake {
        Handshake { infohash, peer_id: self.peer_id, fast, extensions: true }
    }

    /// The other side of a connection that the engine has opened.
    pub fn answer(stream: TcpStream, infohash: Infohash) -> Leecher {
        let mut leecher = Leecher::over(stream);
        leecher.hear_handshake(infohash);
        leecher.write(leecher.handshake(infohash, true).encode().to_vec());
        leecher
    }

    fn hear_handshake(&mut self, infohash: Infohash) {
        let answer = self.read::<68>();
        let theirs = Handshake::parse(&answer).expect("well-formed").expect("whole");
        assert_eq!(theirs.infohash, infohash);
        assert!(theirs.fast && theirs.extensions);
    }

    /// Encrypted, if the connection is.
    pub fn write(&mut self, mut bytes: Vec<u8>) {
        if let Some((outgoing, _)) = &mut self.ciphers {
            outgoing.apply(&mut bytes);
        }
        self.stream.write_all(&bytes).expect("writes");
    }

    fn read_into(&mut self, out: &mut [u8]) {
        self.stream.read_exact(out).expect("what comes next");
        self.received_bytes += out.len() as u64;
        if let Some((_, incoming)) = &mut self.ciphers {
            incoming.apply(out);
        }
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.read_into(&mut out);
        out
    }

    pub fn send(&mut self, messages: &[Message<'_>]) {
        let mut bytes = vec![];
        messages.iter().for_each(|m| m.encode(&mut bytes));
        self.write(bytes);
    }

    pub fn request(&mut self, blocks: &[BlockRequest]) {
        let messages: Vec<_> = blocks.iter().map(|b| Message::Request(*b)).collect();
        self.send(&messages);
    }

    pub fn next(&mut self) -> Said {
        let mut message = vec![0; u32::from_be_bytes(self.read()) as usize];
        self.read_into(&mut message);
        let word =
            |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().expect("four bytes"));
        if message.first() == Some(&7) {
            return Said::Block { piece: word(1), begin: word(5), data: message[9..].to_vec() };
        }
        match Message::decode(&message).expect("well-formed") {
            Message::Extended { id, payload } => Said::Extended { id, payload: payload.to_vec() },
            other => Said::Message(format!("{other:?}")),
        }
    }

    pub fn hear(&mut self, expected: &str) {
        assert_eq!(self.next(), Said::Message(expected.into()));
    }

    /// Reads past the greetings to the unchoke.
    pub fn become_unchoked(&mut self) {
        self.send(&[Message::Interested]);
        while self.next() != Said::Message("Unchoke".into()) {}
    }

    /// After a choke that nobody asked for.
    pub fn become_unchoked_again(&mut self) {
        self.send(&[Message::NotInterested, Message::Interested]);
        while self.next() != Said::Message("Unchoke".into()) {}
    }

    pub fn expect_block(&mut self, stage: &Stage, block: BlockRequest) {
        match self.next() {
            Said::Block { piece, begin, data } => {
                assert_eq!((piece, begin), (block.piece, block.begin));
                assert!(data == stage.expected(block), "wrong bytes in {block:?}");
            }
            other => panic!("{other:?} instead of {block:?}"),
        }
    }

    /// The whole content, with a queue of requests like a real client's.
    pub fn download(&mut self, stage: &Stage) {
        let blocks = stage.blocks();
        let depth = 32.min(blocks.len());
        self.request(&blocks[..depth]);
        for (i, block) in blocks.iter().enumerate() {
            self.expect_block(stage, *block);
            if let Some(next) = blocks.get(i + depth) {
                self.request(&[*next]);
            }
        }
    }

    /// The engine has closed: nothing more, or a reset.
    pub fn expect_end(&mut self) {
        assert_eq!(self.read_to_end(), b"", "said something before closing");
    }

    /// The engine closes, after an answer to the key at most.
    pub fn expect_cut(&mut self) {
        assert!(self.read_to_end().len() <= 96 + PAD_BYTES_MAX, "said more than its key");
    }

    fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = vec![];
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionReset),
        }
        rest
    }
}
