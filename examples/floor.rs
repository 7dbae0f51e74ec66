//! The yardstick of `benches/seeders`: the least that a BitTorrent seeder can cost on this machine. One
//! torrent, one thread, everyone unchoked, header and `sendfile` for each block. It keeps no limits,
//! counts nothing and trusts its peers, so it must never meet a stranger.
//!
//!     floor --torrent FILE --data FILE [--listen ADDR:PORT]

use std::{
    collections::VecDeque,
    error::Error,
    fs::File,
    io::{ErrorKind, Read},
    net::SocketAddr,
};

use larder::logic::metainfo::Metainfo;
use mio::{Events, Interest, Poll, Token, net::TcpListener, net::TcpStream};
use nix::{errno::Errno, libc, sys::sendfile::sendfile64};
use socket2::SockRef;

const LISTENER: Token = Token(usize::MAX);
const HANDSHAKE_BYTES: usize = 68;
const REQUEST_BYTES: usize = 17;
const REQUEST_START: &[u8] = &[0, 0, 0, 13, 6];

struct Floor {
    file: File,
    piece_length: u64,
    /// What every peer is told first: handshake, bitfield, unchoke.
    welcome: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    welcome_sent: bool,
    input: Vec<u8>,
    /// Piece, begin, length.
    requests: VecDeque<[u32; 3]>,
    header: [u8; 13],
    header_sent: usize,
    offset: i64,
    /// Of the block in hand, what has not left.
    left: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut torrent, mut data, mut listen) =
        (String::new(), String::new(), "127.0.0.1:6881".into());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value after it"))?;
        match arg.as_str() {
            "--torrent" => torrent = value,
            "--data" => data = value,
            "--listen" => listen = value,
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    let metainfo = Metainfo::parse(&std::fs::read(torrent)?)?;
    let floor = Floor {
        file: File::open(data)?,
        piece_length: metainfo.piece_length.into(),
        welcome: welcome(&metainfo),
    };
    floor.run(listen.parse()?)
}

fn welcome(metainfo: &Metainfo) -> Vec<u8> {
    let pieces = metainfo.piece_count() as usize;
    let mut bitfield = vec![0xff; pieces.div_ceil(8)];
    let spare_bits = bitfield.len() * 8 - pieces;
    if let Some(last) = bitfield.last_mut() {
        *last <<= spare_bits;
    }
    let mut out = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    out.extend_from_slice(&metainfo.infohash.0);
    out.extend_from_slice(b"-FL0001-000000000000");
    out.extend_from_slice(&(bitfield.len() as u32 + 1).to_be_bytes());
    out.push(5);
    out.extend_from_slice(&bitfield);
    out.extend_from_slice(&[0, 0, 0, 1, 1]);
    out
}

impl Floor {
    fn run(&self, listen: SocketAddr) -> Result<(), Box<dyn Error>> {
        let mut poll = Poll::new()?;
        let mut listener = TcpListener::bind(listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut peers: Vec<Option<(TcpStream, Queue)>> = vec![];
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            poll.poll(&mut events, None)?;
            for event in &events {
                if event.token() == LISTENER {
                    while let Ok((mut stream, _)) = listener.accept() {
                        stream.set_nodelay(true)?;
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut stream, Token(peers.len()), interest)?;
                        peers.push(Some((stream, Queue::default())));
                    }
                    continue;
                }
                let place = &mut peers[event.token().0];
                let Some((stream, queue)) = place else { continue };
                let readable = event.is_readable();
                let went_on = (!readable || queue.read(stream, &mut buffer).is_ok())
                    && self.send(stream, queue).is_ok();
                if !went_on {
                    *place = None;
                }
            }
        }
    }

    /// Until the queue is empty or the socket full.
    fn send(&self, stream: &TcpStream, queue: &mut Queue) -> Result<(), Errno> {
        if !queue.welcome_sent {
            SockRef::from(stream).send(&self.welcome).map_err(|_| Errno::EPIPE)?;
            queue.welcome_sent = true;
        }
        while queue.left > 0 || queue.next_block(self.piece_length) {
            match self.send_block(stream, queue) {
                Err(Errno::EAGAIN) => return Ok(()),
                sent => sent?,
            }
        }
        Ok(())
    }

    fn send_block(&self, stream: &TcpStream, queue: &mut Queue) -> Result<(), Errno> {
        while queue.header_sent < queue.header.len() {
            let rest = &queue.header[queue.header_sent..];
            let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
            let sent = SockRef::from(stream).send_with_flags(rest, flags);
            queue.header_sent +=
                sent.map_err(|e| e.raw_os_error().map_or(Errno::EPIPE, Errno::from_raw))?;
        }
        while queue.left > 0 {
            queue.left -= sendfile64(stream, &self.file, Some(&mut queue.offset), queue.left)?;
        }
        Ok(())
    }
}

impl Queue {
    fn read(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> Result<(), ErrorKind> {
        loop {
            match stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof),
                Ok(n) => {
                    self.take(&buffer[..n]);
                    if n < buffer.len() {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.kind()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let mut rest = self.input.as_slice();
        if let [0x13, ..] = rest {
            let Some((_, after)) = rest.split_at_checked(HANDSHAKE_BYTES) else { return };
            rest = after;
        }
        while let Some((length, _)) = rest.split_first_chunk::<4>() {
            let whole = 4 + u32::from_be_bytes(*length) as usize;
            let Some((message, after)) = rest.split_at_checked(whole) else { break };
            if whole == REQUEST_BYTES && message.starts_with(REQUEST_START) {
                let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| message[at + i]));
                self.requests.push_back([word(5), word(9), word(13)]);
            }
            rest = after;
        }
        let used = self.input.len() - rest.len();
        self.input.drain(..used);
    }

    /// Takes up the next request, if there is one.
    fn next_block(&mut self, piece_length: u64) -> bool {
        let Some([piece, begin, length]) = self.requests.pop_front() else { return false };
        self.header[..4].copy_from_slice(&(9 + length).to_be_bytes());
        self.header[4] = 7;
        self.header[5..9].copy_from_slice(&piece.to_be_bytes());
        self.header[9..].copy_from_slice(&begin.to_be_bytes());
        self.header_sent = 0;
        self.offset = (u64::from(piece) * piece_length + u64::from(begin)) as i64;
        self.left = length as usize;
        true
    }
}
