//! A peer's socket with its session: reads into a buffer that all share, writes chunks under permits,
//! and asks the kernel what arrived. Encrypts, in a second shared buffer, for the peers that want it.
//! Decides nothing about the protocol.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileExt,
    time::Duration,
};

use mio::net::TcpStream;
use nix::{errno::Errno, libc, sys::sendfile::sendfile64};
use socket2::SockRef;

use super::{files::OpenFiles, sys};
use crate::logic::{
    governor::{
        MAX_GRANT_STREAM_BYTES, MIN_SEGMENT_PAYLOAD_BYTES, Pacer, Permit, WireCost, address_group,
        class_of, shares::Progress,
    },
    now::Monotonic,
    usage::{PeerClass, Usage},
    wire::{Chunk, Close, ContentKey, LocalPeer, PeerSession, Shelf, mse::Keyring},
};

/// Unsent bytes that the kernel may hold for a peer, so that the connection is busy between two
/// wake-ups. Under a limit they are bytes that the governor cannot take back any more, only slow down:
/// two blocks, or what a share brings in the time given. The kernel asks for more at half of it.
const NOT_SENT_BYTES_UNLIMITED: u32 = 256 * 1024;
const NOT_SENT_BYTES_MIN: u32 = 32 * 1024;
const NOT_SENT_TIME: Duration = Duration::from_millis(100);
/// The kernel waits after each packet for as long as the packet takes at the rate of that moment, and
/// a higher rate does not shorten the wait. So no rate is so low that two packets take half a second;
/// what is lower than that, the pacer's permits hold.
const PACING_RATE_MIN: u64 = 6_000;
/// DSCP LE (RFC 8622), 000001, in the upper six bits of the octet: routers that know it let
/// everything else go first.
const DSCP_LOWER_EFFORT: u32 = 0b0000_0100;
/// Reads of one connection before others get their turn; each takes a full shared buffer.
const READS_AT_ONCE: usize = 4;
/// A chunk on its way through a cipher.
pub(super) const SCRATCH_BYTES: usize = MAX_GRANT_STREAM_BYTES as usize;

pub(super) struct Connection {
    stream: TcpStream,
    pub session: PeerSession,
    pub class: PeerClass,
    /// What the limit per IP counts it under.
    pub group: IpAddr,
    /// Tells it from earlier connections in the same place.
    pub generation: u32,
    /// Admission was told what it has named.
    pub named: bool,
    /// Stands in the ring of those that send.
    pub in_turns: bool,
    /// What the choker was last told.
    pub was_interested: bool,
    /// Edge-triggered: true until a write finds no room.
    pub writable: bool,
    cost: WireCost,
    /// Of the allowance, in bytes on the wire per second; `None` while nothing paces it.
    share: Option<u64>,
    /// As far as `take_progress` has told it.
    stream_bytes_told: u64,
    /// As far as they are booked.
    retransmitted_bytes_booked: u64,
    /// By `gets_through`.
    acknowledged_bytes_seen: u64,
    /// Not yet handed to the books.
    usage: Usage,
}

/// How far reading got.
pub(super) enum ReadEnd {
    Drained,
    /// The socket may hold more, and will not say so again.
    More,
}

/// How a turn ended.
pub(super) enum Turn {
    /// The socket took everything.
    Sent,
    /// There was nothing to send.
    Nothing,
    /// The socket has no room.
    Blocked,
    /// The permit was not given.
    Wait(Monotonic),
    Paused,
}

impl Connection {
    pub fn new(stream: TcpStream, peer: SocketAddr, generation: u32, now: Monotonic) -> Connection {
        let socket = SockRef::from(&stream);
        // Each is a refinement; a kernel that refuses one serves all the same.
        let _ = socket.set_tcp_notsent_lowat(not_sent_bytes(None));
        let _ = socket.set_tcp_nodelay(true);
        let _ = if peer.ip().to_canonical().is_ipv4() {
            socket.set_tos_v4(DSCP_LOWER_EFFORT)
        } else {
            socket.set_tclass_v6(DSCP_LOWER_EFFORT)
        };
        Connection {
            session: PeerSession::new(peer.ip(), now),
            class: class_of(peer.ip()),
            group: address_group(peer.ip()),
            generation,
            named: false,
            in_turns: false,
            was_interested: false,
            writable: true,
            cost: WireCost::to(peer.ip(), socket.tcp_mss().ok()),
            share: None,
            stream_bytes_told: 0,
            retransmitted_bytes_booked: 0,
            acknowledged_bytes_seen: 0,
            usage: Usage::default(),
            stream,
        }
    }

    /// It would have us send more headers than content.
    pub fn asks_for_tiny_segments(stream: &TcpStream) -> bool {
        SockRef::from(stream).tcp_mss().is_ok_and(|mss| mss < MIN_SEGMENT_PAYLOAD_BYTES)
    }

    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn share(&self) -> Option<u64> {
        self.share
    }

    /// What the connection may send of the allowance: the kernel spreads it evenly. `None` sets no
    /// bound.
    pub fn set_share(&mut self, bytes_per_second: Option<u64>) {
        let before = std::mem::replace(&mut self.share, bytes_per_second);
        // Each is a refinement; on a kernel that refuses one, the pacer's permits hold all the same.
        let rate = self.pacing_rate().unwrap_or(u32::MAX);
        let _ = sys::set_max_pacing_rate(&self.stream, rate);
        let queue = not_sent_bytes(bytes_per_second);
        if not_sent_bytes(before) != queue {
            let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(queue);
        }
    }

    fn pacing_rate(&self) -> Option<u32> {
        let stream_part = self.cost.stream_part(self.share?).max(PACING_RATE_MIN);
        Some(u32::try_from(stream_part).unwrap_or(u32::MAX - 1))
    }

    /// How it did since the last time; retransmissions go on the pacer's account.
    pub fn take_progress(&mut self, shelf: &Shelf, pacer: &mut Pacer) -> Progress {
        let stream_bytes = self.settle_retransmissions(pacer).unwrap_or(self.stream_bytes_told);
        let before = std::mem::replace(&mut self.stream_bytes_told, stream_bytes);
        Progress {
            share: self.share,
            sent_bytes: self.cost.of(stream_bytes.saturating_sub(before)),
            wants_more: self.session.has_output(shelf),
        }
    }

    /// What the kernel had to send again was on the wire as well. Returns what it has sent of the
    /// stream, if it says.
    pub fn settle_retransmissions(&mut self, pacer: &mut Pacer) -> Option<u64> {
        let sent = sys::sent(&self.stream).ok()?;
        let again = sent.retransmitted_bytes.saturating_sub(self.retransmitted_bytes_booked);
        self.retransmitted_bytes_booked = sent.retransmitted_bytes;
        if again > 0 {
            let wire = self.cost.of(again);
            self.usage.wire_bytes += wire;
            pacer.spend(wire);
        }
        Some(sent.stream_bytes)
    }

    /// Reads what there is, in turns of a full buffer.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        us: &LocalPeer,
        shelf: &Shelf,
        keyring: &mut Keyring,
        now: Monotonic,
    ) -> Result<ReadEnd, Close> {
        for _ in 0..READS_AT_ONCE {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Close::ByPeer),
                Ok(n) => {
                    self.session.handle_bytes(&mut buffer[..n], us, shelf, keyring, now)?;
                    if n < buffer.len() {
                        return Ok(ReadEnd::Drained);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(ReadEnd::Drained),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Close::Broken),
            }
        }
        Ok(ReadEnd::More)
    }

    /// Sends one chunk, if the pacer permits it. `scratch` has room for it, and nothing to keep.
    pub fn send_chunk(
        &mut self,
        shelf: &Shelf,
        files: &mut OpenFiles,
        pacer: &mut Pacer,
        scratch: &mut [u8],
        now: Monotonic,
    ) -> Result<Turn, Close> {
        let encrypts = self.session.outgoing().is_some();
        let Some(chunk) = self.session.poll_chunk(shelf) else { return Ok(Turn::Nothing) };
        let wanted = chunk.stream_bytes();
        let wire = self.cost.of(wanted);
        match pacer.take(wire, now) {
            Permit::Granted => {}
            Permit::WaitUntil(t) => return Ok(Turn::Wait(t)),
            Permit::Paused => return Ok(Turn::Paused),
        }
        let sent = match chunk {
            Chunk::Opening(bytes) => send(&self.stream, bytes, 0)?,
            chunk if encrypts => {
                let scratch = &mut scratch[..wanted as usize];
                copy_chunk(chunk, shelf, files, scratch)?;
                self.send_encrypted(scratch)?
            }
            Chunk::Control(bytes) => send(&self.stream, bytes, 0)?,
            Chunk::Block { header, content, offset, length } => {
                let file = content_file(files, shelf, content)?;
                send_block(&self.stream, header, file, offset, length)?
            }
        };
        pacer.give_back(wire - self.cost.of(sent));
        self.note_sent(sent, now);
        if sent < wanted {
            self.writable = false;
            self.session.handle_blocked(now);
            return Ok(Turn::Blocked);
        }
        Ok(Turn::Sent)
    }

    /// Tells the peer that it is choked although nothing else may leave any more: the 5 bytes of the
    /// message that is next in the stream. A full socket gets nothing.
    pub fn send_last_choke(
        &mut self,
        shelf: &Shelf,
        pacer: &mut Pacer,
        now: Monotonic,
    ) -> Result<(), Close> {
        const CHOKE_BYTES: usize = 5;
        let Some(Chunk::Control(bytes)) = self.session.poll_chunk(shelf) else { return Ok(()) };
        let Some(choke) = bytes.first_chunk::<CHOKE_BYTES>() else { return Ok(()) };
        let mut choke = *choke;
        let sent = self.send_encrypted(&mut choke)?;
        pacer.spend(self.cost.of(sent));
        self.note_sent(sent, now);
        Ok(())
    }

    /// Asks the kernel what has been delivered since the last time.
    pub fn settle(&mut self) {
        if self.session.deliveries().in_flight() {
            let unacknowledged = sys::unacknowledged_bytes(&self.stream).unwrap_or(u64::MAX);
            self.usage.payload_bytes += self.session.deliveries().settle(unacknowledged);
        }
    }

    /// Whether the peer's kernel has acknowledged anything since the last call: a socket without room
    /// may be one that is paced, or one whose peer does not read.
    pub fn gets_through(&mut self) -> bool {
        let unacknowledged = sys::unacknowledged_bytes(&self.stream).unwrap_or(u64::MAX);
        let acknowledged = self.session.deliveries().written().saturating_sub(unacknowledged);
        acknowledged > std::mem::replace(&mut self.acknowledged_bytes_seen, acknowledged)
    }

    /// Usage since the last call. Settle first.
    pub fn take_usage(&mut self) -> Usage {
        std::mem::take(&mut self.usage)
    }

    /// Passes `bytes` through the cipher, if the peer has one, as far as the socket takes them.
    fn send_encrypted(&mut self, bytes: &mut [u8]) -> Result<u64, Close> {
        let Some(cipher) = self.session.outgoing() else { return send(&self.stream, bytes, 0) };
        let before = cipher.clone();
        cipher.apply(bytes);
        let sent = send(&self.stream, bytes, 0)?;
        if sent < bytes.len() as u64 {
            // What was not taken will be polled again, and has to meet the same key stream. So a
            // connection that waits holds 258 bytes, not a block.
            *cipher = before;
            cipher.skip(sent as usize);
        }
        Ok(sent)
    }

    fn note_sent(&mut self, stream_bytes: u64, now: Monotonic) {
        self.usage.wire_bytes += self.cost.of(stream_bytes);
        self.session.handle_sent(stream_bytes, now);
        if self.session.deliveries().wants_settling() {
            self.settle();
        }
    }
}

/// In powers of two, so that it seldom changes.
fn not_sent_bytes(share: Option<u64>) -> u32 {
    let Some(share) = share else { return NOT_SENT_BYTES_UNLIMITED };
    let in_time = u128::from(share) * NOT_SENT_TIME.as_millis() / 1000;
    let bytes = u32::try_from(in_time).unwrap_or(1 << 30).min(1 << 30);
    bytes.next_power_of_two().max(NOT_SENT_BYTES_MIN)
}

fn content_file<'a>(
    files: &'a mut OpenFiles,
    shelf: &Shelf,
    content: ContentKey,
) -> Result<&'a File, Close> {
    let infohash = shelf.get(content).ok_or(Close::ContentRemoved)?.infohash();
    files.get(content, infohash).map_err(|error| {
        tracing::error!(%infohash, %error, "the content's file cannot be opened");
        Close::Unreadable
    })
}

/// The chunk's bytes, block included, into a buffer of just its size.
fn copy_chunk(
    chunk: Chunk<'_>,
    shelf: &Shelf,
    files: &mut OpenFiles,
    out: &mut [u8],
) -> Result<(), Close> {
    match chunk {
        Chunk::Opening(bytes) | Chunk::Control(bytes) => out.copy_from_slice(bytes),
        Chunk::Block { header, content, offset, length: _ } => {
            let (start, block) = out.split_at_mut(header.len());
            start.copy_from_slice(header);
            let file = content_file(files, shelf, content)?;
            file.read_exact_at(block, offset).map_err(|error| {
                tracing::error!(offset, %error, "the content's file cannot be read");
                Close::Unreadable
            })?;
        }
    }
    Ok(())
}

/// Bytes that the socket took; fewer than offered means that it is full.
fn send(stream: &TcpStream, bytes: &[u8], flags: i32) -> Result<u64, Close> {
    loop {
        match SockRef::from(stream).send_with_flags(bytes, flags | libc::MSG_NOSIGNAL) {
            Ok(n) => return Ok(n as u64),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Close::Broken),
        }
    }
}

/// The header waits in the kernel (MSG_MORE) for the block, which goes from the page cache to the
/// socket without passing through this process.
fn send_block(
    stream: &TcpStream,
    header: &[u8],
    file: &File,
    offset: u64,
    length: u32,
) -> Result<u64, Close> {
    let mut sent = 0;
    if !header.is_empty() {
        sent = send(stream, header, libc::MSG_MORE)?;
        if sent < header.len() as u64 {
            return Ok(sent);
        }
    }
    let mut at = i64::try_from(offset).map_err(|_| Close::Unreadable)?;
    let mut left = length as usize;
    while left > 0 {
        match sendfile64(stream, file, Some(&mut at), left) {
            Ok(0) => {
                tracing::error!(offset = at, "the content's file ends before its content does");
                return Err(Close::Unreadable);
            }
            Ok(n) => {
                left -= n;
                sent += n as u64;
            }
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EIO) => return Err(Close::Unreadable),
            Err(_) => return Err(Close::Broken),
        }
    }
    Ok(sent)
}
