//! A peer's socket with its session: reads into a buffer that all share, writes chunks under permits,
//! and asks the kernel what arrived. Encrypts, in a second shared buffer, for the peers that want it.
//! Decides nothing about the protocol.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mio::net::TcpStream;
use nix::libc;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    blocks::{cold_piece, content_file, copy_chunk, is_in_memory, send, send_block},
    files::OpenFiles,
    pipe::BlockPipe,
};
use crate::device::sys;
use crate::logic::{
    governor::{
        MAX_GRANT_STREAM_BYTES, MIN_SEGMENT_PAYLOAD_BYTES, Pacer, Permit, WireCost, address_group,
        shares::Progress,
    },
    now::Monotonic,
    outreach::{Call, Outreach},
    usage::{PeerClass, Usage},
    wire::{Chunk, Close, LocalPeer, PeerSession, Shelf, mse::Keyring},
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
/// The congestion control that sends by timers: there a run costs half as much again as its blocks one
/// by one.
const PACED_BY_TIMERS: &[u8] = b"bbr";
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
    /// Several blocks in one go cost less than one by one.
    gains_by_runs: bool,
    /// Where we called, if it was us who called, and whether a peer has answered.
    called: Option<(SocketAddr, bool)>,
    cost: WireCost,
    /// Of the allowance, in bytes on the wire per second; `None` while nothing paces it.
    share: Option<u64>,
    /// How much the kernel may hold unsent.
    queue: u32,
    /// As far as `take_progress` has told it.
    stream_bytes_told: u64,
    /// As far as they are booked.
    retransmitted_bytes_booked: u64,
    /// Not yet handed to the books.
    usage: Usage,
    /// How far its stream had got when it was last measured.
    measured: OnWire,
}

/// How far a stream has got, in bytes on the wire.
#[derive(Clone, Copy, Default)]
pub(super) struct OnWire {
    pub sent_bytes: u64,
    pub acknowledged_bytes: u64,
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
    Sent {
        block: bool,
    },
    /// There was nothing to send.
    Nothing,
    /// The socket has no room.
    Blocked,
    /// The permit was not given.
    Wait(Monotonic),
    Paused,
    /// What comes next has to be read from the disk first, this piece of the connection's content.
    Cold(u32),
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        peer: SocketAddr,
        class: PeerClass,
        generation: u32,
        now: Monotonic,
    ) -> Connection {
        let socket = SockRef::from(&stream);
        // Each is a refinement; a kernel that refuses one serves all the same.
        let queue = not_sent_bytes(None);
        let _ = socket.set_tcp_notsent_lowat(queue);
        let _ = socket.set_tcp_nodelay(true);
        mark_lower_effort(&socket, peer);
        Connection {
            session: PeerSession::new(peer.ip(), now),
            class,
            group: address_group(peer.ip()),
            generation,
            named: false,
            in_turns: false,
            was_interested: false,
            writable: true,
            gains_by_runs: socket
                .tcp_congestion()
                .is_ok_and(|name| !name.starts_with(PACED_BY_TIMERS)),
            called: None,
            cost: WireCost::to(peer.ip(), socket.tcp_mss().ok()),
            share: None,
            queue,
            stream_bytes_told: 0,
            retransmitted_bytes_booked: 0,
            usage: Usage::default(),
            measured: OnWire::default(),
            stream,
        }
    }

    /// One that we open ourselves: it is not connected yet.
    pub fn calling(
        call: Call,
        us: &LocalPeer,
        class: PeerClass,
        generation: u32,
        now: Monotonic,
    ) -> io::Result<Connection> {
        let address = call.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        mark_lower_effort(&socket, address);
        match socket.connect(&address.into()) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into());
        let connection = Connection::new(stream, address, class, generation, now);
        Ok(Connection {
            session: PeerSession::calling(address.ip(), call.infohash, us, now),
            writable: false,
            called: Some((address, false)),
            ..connection
        })
    }

    /// Where we called, if it was us who called.
    pub fn called(&self) -> Option<SocketAddr> {
        self.called.map(|(address, _)| address)
    }

    /// Lets the first sign of a peer at the other end be known, and looks at what could not be seen
    /// before.
    pub fn note_answer(&mut self, outreach: &mut Outreach) -> Result<(), Close> {
        if let Some((address, answered @ false)) = &mut self.called
            && self.session.content().is_some()
        {
            *answered = true;
            outreach.handle_answered(*address);
            // Only now is it known how much a segment carries.
            self.cost = WireCost::to(address.ip(), SockRef::from(&self.stream).tcp_mss().ok());
            if asks_for_tiny_segments(&self.stream) {
                return Err(Close::NoAnswer);
            }
        }
        Ok(())
    }

    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// It is served out of the uplink's allowance.
    pub fn takes_share(&self) -> bool {
        self.class == PeerClass::Wan && self.session.is_unchoked()
    }

    pub fn share(&self) -> Option<u64> {
        self.share
    }

    /// What the connection may send of the allowance: the kernel spreads it evenly. `None` sets no
    /// bound.
    pub fn set_share(&mut self, bytes_per_second: Option<u64>) {
        self.set_pace(bytes_per_second, not_sent_bytes(bytes_per_second));
    }

    /// At its turn the connection sends a block at this rate, then it is another's. Who reads slowly
    /// does not gather more.
    pub fn set_turn(&mut self, bytes_per_second: u64) {
        self.set_pace(Some(bytes_per_second), NOT_SENT_BYTES_MIN);
    }

    fn set_pace(&mut self, share: Option<u64>, queue: u32) {
        self.share = share;
        // Each is a refinement; on a kernel that refuses one, the pacer's permits hold all the same.
        let rate = self.pacing_rate().unwrap_or(u32::MAX);
        let _ = sys::set_max_pacing_rate(&self.stream, rate);
        if std::mem::replace(&mut self.queue, queue) != queue {
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
        let block = matches!(chunk, Chunk::Block { .. });
        let wanted = chunk.stream_bytes();
        let wire = self.cost.of(wanted);
        match pacer.take(wire, now) {
            Permit::Granted => {}
            Permit::WaitUntil(t) => return Ok(Turn::Wait(t)),
            Permit::Paused => return Ok(Turn::Paused),
        }
        if let Some(piece) = cold_piece(chunk, shelf, files, now)? {
            pacer.give_back(wire);
            return Ok(Turn::Cold(piece));
        }
        let sent = match chunk {
            Chunk::Opening(bytes) => send(&self.stream, bytes, 0)?,
            chunk if encrypts || is_in_memory(chunk, shelf, files) => {
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
        Ok(Turn::Sent { block })
    }

    /// Sends up to `blocks_max` of the blocks that come next in one go, if there are several: on a fast
    /// line that is half the work of one by one (docs/adr/0020). It asks for no permits, so only without
    /// a limit. Answers with the number of chunks too; `None`: one by one, please.
    pub fn send_run(
        &mut self,
        shelf: &Shelf,
        files: &mut OpenFiles,
        pacer: &mut Pacer,
        pipe: &mut BlockPipe,
        blocks_max: usize,
        now: Monotonic,
    ) -> Result<Option<(Turn, usize)>, Close> {
        let Some(content) = self.session.content() else { return Ok(None) };
        let several = self.session.upcoming_blocks(shelf).take(blocks_max).nth(1).is_some();
        if !self.gains_by_runs || !several {
            return Ok(None);
        }
        if files.memory.has_any_of(content) {
            return Ok(None);
        }
        let blocks = || self.session.upcoming_blocks(shelf).take(blocks_max);
        for block in blocks() {
            let bytes = block.offset()..block.offset() + u64::from(block.length());
            if let Some(piece) = files.cold_piece(shelf, content, bytes, now)? {
                return Ok(Some((Turn::Cold(piece), 0)));
            }
        }
        let file = content_file(files, shelf, content)?;
        let offered = pipe.fill(file, self.session.upcoming_blocks(shelf).take(blocks_max))?;
        if offered == 0 {
            return Ok(None);
        }
        let sent = pipe.send(&self.stream)?;
        let (mut left, mut chunks) = (sent, 0);
        while left > 0
            && let Some(chunk) = self.session.poll_chunk(shelf)
        {
            let bytes = chunk.stream_bytes().min(left);
            pacer.spend(self.cost.of(bytes));
            self.note_sent(bytes, now);
            left -= bytes;
            chunks += 1;
        }
        if sent < offered {
            self.writable = false;
            self.session.handle_blocked(now);
            return Ok(Some((Turn::Blocked, chunks)));
        }
        Ok(Some((Turn::Sent { block: true }, chunks)))
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

    /// What the kernel still holds for the peer shall not leave: the connection is about to be closed, and cut.
    pub fn drop_unsent(&self) {
        // If it fails, some last blocks leave.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Asks the kernel what has been delivered since the last time.
    pub fn settle(&mut self) {
        if self.session.deliveries().in_flight() {
            let unacknowledged = sys::unacknowledged_bytes(&self.stream).unwrap_or(u64::MAX);
            self.usage.payload_bytes += self.session.deliveries().settle(unacknowledged);
        }
    }

    /// Some of what was sent still lies in our kernel, and may refer to a file's pages there.
    pub fn is_unacknowledged(&self) -> bool {
        sys::unacknowledged_bytes(&self.stream).is_ok_and(|bytes| bytes > 0)
    }

    /// What the kernel has sent, and what the peer's has acknowledged, since the last call; and whether
    /// some of what was written waits for either.
    pub fn measure(&mut self) -> (OnWire, bool) {
        let written = self.session.deliveries().written();
        let done = |left: &io::Result<u64>| {
            let left = left.as_ref().map_or(written, |bytes| *bytes);
            self.cost.of_stretch(written.saturating_sub(left))
        };
        let unacknowledged = sys::unacknowledged_bytes(&self.stream);
        let before = self.measured;
        // A socket that does not answer any more has not taken anything back.
        self.measured = OnWire {
            sent_bytes: done(&sys::unsent_bytes(&self.stream)).max(before.sent_bytes),
            acknowledged_bytes: done(&unacknowledged).max(before.acknowledged_bytes),
        };
        let since = OnWire {
            sent_bytes: self.measured.sent_bytes - before.sent_bytes,
            acknowledged_bytes: self.measured.acknowledged_bytes - before.acknowledged_bytes,
        };
        (since, unacknowledged.is_ok_and(|bytes| bytes > 0))
    }

    pub fn peer(&self) -> Option<IpAddr> {
        let peer = self.stream.peer_addr().ok()?;
        Some(peer.ip().to_canonical())
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

/// It would have us send more headers than content.
pub(super) fn asks_for_tiny_segments(stream: &TcpStream) -> bool {
    SockRef::from(stream).tcp_mss().is_ok_and(|mss| mss < MIN_SEGMENT_PAYLOAD_BYTES)
}

fn mark_lower_effort(socket: &Socket, peer: SocketAddr) {
    let _ = if peer.ip().to_canonical().is_ipv4() {
        socket.set_tos_v4(DSCP_LOWER_EFFORT)
    } else {
        socket.set_tclass_v6(DSCP_LOWER_EFFORT)
    };
}

/// In powers of two, so that it seldom changes.
fn not_sent_bytes(share: Option<u64>) -> u32 {
    let Some(share) = share else { return NOT_SENT_BYTES_UNLIMITED };
    let in_time = u128::from(share) * NOT_SENT_TIME.as_millis() / 1000;
    let bytes = u32::try_from(in_time).unwrap_or(1 << 30).min(1 << 30);
    bytes.next_power_of_two().max(NOT_SENT_BYTES_MIN)
}
