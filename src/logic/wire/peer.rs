//! One connection with a peer, seen from the seeder's side: what came in changes the state, and what
//! is to go out is drained from it. It has no socket; whoever has one tells it how much left.
//!
//! Out goes, in this order: the rest of a block that has begun, control messages, HAVEs, metadata,
//! blocks. So a message is never cut by another, and a stranger's queue costs 12 bytes a request.

mod checks;
mod greeting;

use std::{net::IpAddr, time::Duration};

use super::{
    Assembler, BlockRequest, Close, Content, ContentKey, Deliveries, ExtensionHandshake,
    HANDSHAKE_BYTES, Handshake, MAX_OUTBOX_BYTES, MAX_REQUEST_BYTES, Message, MetadataMessage,
    OurExtensionHandshake, OutgoingBlock, Queued, RequestQueue, Shelf, Standing,
    effort::Effort,
    extension::{HANDSHAKE_ID, OUR_METADATA_ID},
    metadata::MetadataQueue,
    mse::{Envelope, Keyring, MseError, Rc4},
    standing::Merit,
};
use crate::logic::{governor::MAX_GRANT_STREAM_BYTES, infohash::Infohash, now::Monotonic};

/// HAVEs that go out in one write.
const HAVES_AT_ONCE: usize = 64;

/// Who we are to peers.
#[derive(Clone, Debug)]
pub struct LocalPeer {
    pub peer_id: [u8; 20],
    /// `v` of the extension handshake (BEP 10).
    pub client_name: String,
    /// `p` of the extension handshake.
    pub listen_port: u16,
    pub timeouts: Timeouts,
}

#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To the end of the peer's handshake. Honest clients take a round trip.
    pub handshake: Duration,
    /// Silence from us before we send a keep-alive. BEP 3: peers cut after two minutes.
    pub keep_alive: Duration,
    /// Silence from the peer before we cut it; above two minutes, since it may only send keep-alives.
    pub idle: Duration,
    /// How long a peer may leave its receive window shut while we have something for it.
    pub stalled: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            keep_alive: Duration::from_secs(100),
            idle: Duration::from_secs(180),
            stalled: Duration::from_secs(120),
        }
    }
}

/// The next bytes of the stream; at most `MAX_GRANT_STREAM_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Our side of an encrypted handshake. It leaves as it is; all else passes through `outgoing`.
    Opening(&'a [u8]),
    Control(&'a [u8]),
    /// What is left of the block's header (often nothing), then `length` bytes of the content's file.
    Block {
        header: &'a [u8],
        content: ContentKey,
        offset: u64,
        length: u32,
    },
}

impl Chunk<'_> {
    pub fn stream_bytes(&self) -> u64 {
        match self {
            Chunk::Opening(bytes) | Chunk::Control(bytes) => bytes.len() as u64,
            Chunk::Block { header, length, .. } => header.len() as u64 + u64::from(*length),
        }
    }
}

#[derive(Debug)]
pub struct PeerSession {
    peer: IpAddr,
    envelope: Envelope,
    content: Option<ContentKey>,
    /// What it calls itself; zeros until its handshake has come.
    peer_id: [u8; 20],
    /// What we called it for, if it was us who called.
    called_for: Option<Infohash>,
    /// The peer's handshake, as far as it has come.
    greeting: Vec<u8>,
    assembler: Assembler,
    /// BEP 6 was agreed.
    fast: bool,
    /// Where the peer wants `ut_metadata`; 0 is nowhere.
    metadata_id: u8,
    interested: bool,
    unchoked: bool,
    requests: RequestQueue,
    metadata: MetadataQueue,
    /// How much of the content's list of new pieces the peer knows.
    haves_told: usize,
    outbox: Vec<u8>,
    outbox_sent: usize,
    sending: Option<OutgoingBlock>,
    deliveries: Deliveries,
    effort: Effort,
    /// Requests for pieces that we had to take back.
    withdrawn_refused: u32,
    merit: Merit,
    opened_at: Monotonic,
    heard_at: Monotonic,
    sent_at: Monotonic,
    /// Since when the socket has had no room for what is to go out.
    blocked_since: Option<Monotonic>,
}

impl PeerSession {
    pub fn new(peer: IpAddr, now: Monotonic) -> PeerSession {
        PeerSession {
            peer,
            envelope: Envelope::default(),
            content: None,
            peer_id: [0; 20],
            called_for: None,
            greeting: Vec::new(),
            assembler: Assembler::default(),
            fast: false,
            metadata_id: 0,
            interested: false,
            unchoked: false,
            requests: RequestQueue::default(),
            metadata: MetadataQueue::default(),
            haves_told: 0,
            outbox: Vec::new(),
            outbox_sent: 0,
            sending: None,
            deliveries: Deliveries::default(),
            effort: Effort::default(),
            withdrawn_refused: 0,
            merit: Merit::new(now),
            opened_at: now,
            heard_at: now,
            sent_at: now,
            blocked_since: None,
        }
    }

    /// Takes what the peer sent, and decrypts it in place if it is encrypted. After an error nothing
    /// more is to be sent either.
    pub fn handle_bytes(
        &mut self,
        input: &mut [u8],
        us: &LocalPeer,
        shelf: &Shelf,
        keyring: &mut Keyring,
        now: Monotonic,
    ) -> Result<(), Close> {
        self.heard_at = now;
        if !self.effort.take_read(input.len(), now) {
            return Err(Close::TooMuch);
        }
        let opened = self.envelope.open(input, shelf, keyring, now)?;
        self.handle_plain(opened.start, us, shelf, now)?;
        self.handle_plain(opened.rest, us, shelf, now)
    }

    /// `length` bytes of the last chunk left; `None` room was left for the rest if they are fewer.
    pub fn handle_sent(&mut self, length: u64, now: Monotonic) {
        if length == 0 {
            return;
        }
        self.sent_at = now;
        self.blocked_since = None;
        self.deliveries.wrote(length);
        if !self.envelope.answer().is_empty() {
            self.envelope.handle_answer_sent(length as usize);
            return;
        }
        if let Some(sending) = &mut self.sending {
            self.merit.handle_took(now);
            if let Some(payload) = sending.handle_sent(length as u32) {
                self.sending = None;
                self.deliveries.block_written(payload);
                self.effort.handle_block_left();
            }
            return;
        }
        self.outbox_sent += length as usize;
        if self.outbox_sent >= self.outbox.len() {
            self.outbox = Vec::new();
            self.outbox_sent = 0;
        } else if self.outbox_sent * 2 >= self.outbox.len() {
            // Who always has something waiting must not make it grow for ever.
            self.outbox.drain(..self.outbox_sent);
            self.outbox_sent = 0;
        }
    }

    /// The socket had no room.
    pub fn handle_blocked(&mut self, now: Monotonic) {
        self.blocked_since.get_or_insert(now);
    }

    /// Lets the peer request. Idempotent.
    pub fn unchoke(&mut self, now: Monotonic) {
        if self.content.is_some() && !self.unchoked {
            self.unchoked = true;
            self.merit.handle_turn_began(now);
            self.say(Message::Unchoke);
        }
    }

    /// Takes back the permission. What still waits is dropped, and with BEP 6 rejected one by one; a
    /// block that has begun goes on to its end.
    pub fn choke(&mut self) {
        if !self.unchoked {
            return;
        }
        self.unchoked = false;
        self.merit.handle_turn_ended();
        self.say(Message::Choke);
        let dropped = self.requests.take_all();
        if self.fast {
            dropped.into_iter().for_each(|block| self.say(Message::Reject(block)));
        }
    }

    /// The next chunk to send, the same one until `handle_sent` moves on.
    pub fn poll_chunk(&mut self, shelf: &Shelf) -> Option<Chunk<'_>> {
        if !self.envelope.answer().is_empty() {
            return Some(Chunk::Opening(self.envelope.answer()));
        }
        if self.sending.is_none_or(|block| !block.has_begun())
            && let Some(key) = self.content
        {
            let content = shelf.get(key)?;
            self.put_back_doubtful(content);
            if self.sending.is_none() && self.outbox.is_empty() {
                self.refill(content);
            }
        }
        let limit = MAX_GRANT_STREAM_BYTES;
        if let (Some(sending), Some(key)) = (&self.sending, self.content) {
            let header = sending.header();
            return Some(Chunk::Block {
                header,
                content: key,
                offset: sending.offset(),
                length: sending.length().min(limit - header.len() as u32),
            });
        }
        let rest = &self.outbox[self.outbox_sent..];
        (!rest.is_empty()).then(|| Chunk::Control(&rest[..rest.len().min(limit as usize)]))
    }

    /// The blocks that leave next, for sending several in one go: what is left of the one in hand, then
    /// those that were asked for. `poll_chunk` gives the same bytes, one by one. Nothing when other
    /// things go first, or in between, or all of it through a cipher.
    pub fn upcoming_blocks(&self, shelf: &Shelf) -> impl Iterator<Item = OutgoingBlock> {
        let content = self.content.and_then(|key| shelf.get(key));
        let content = content.filter(|c| {
            self.outbox.is_empty()
                && self.metadata.is_empty()
                && c.completed().len() <= self.haves_told
                && self.envelope.is_plain()
        });
        content.into_iter().flat_map(|content| {
            let ready = self.requests.iter().take_while(|block| content.may_leave(block.piece));
            let asked = ready.map_while(|b| Some(OutgoingBlock::new(*b, content.offset_of(*b)?)));
            let in_hand = self
                .sending
                .filter(|b| b.has_begun() || content.may_leave(content.piece_at(b.offset())));
            in_hand.into_iter().chain(asked)
        })
    }

    /// Whether `poll_chunk` would find anything. Blocks that wait for a check do not count.
    pub fn has_output(&self, shelf: &Shelf) -> bool {
        let next_of_content = || {
            let content = self.content.and_then(|key| shelf.get(key));
            content.is_some_and(|c| {
                let ready = || self.requests.front().is_some_and(|b| c.may_leave(b.piece));
                c.completed().len() > self.haves_told || ready()
            })
        };
        !self.envelope.answer().is_empty()
            || self.sending.is_some()
            || !self.outbox.is_empty()
            || !self.metadata.is_empty()
            || next_of_content()
    }

    /// When `handle_timeout` is due. Later activity moves it, so look again before acting on it.
    pub fn poll_timeout(&self, timeouts: &Timeouts) -> Monotonic {
        if self.content.is_none() {
            return self.opened_at + timeouts.handshake;
        }
        let next = (self.heard_at + timeouts.idle).min(self.sent_at + timeouts.keep_alive);
        self.blocked_since.map_or(next, |since| next.min(since + timeouts.stalled))
    }

    /// Queues a keep-alive, or says that the peer's time is over. While `paused` nothing may leave,
    /// so there is no keep-alive then.
    pub fn handle_timeout(
        &mut self,
        timeouts: &Timeouts,
        paused: bool,
        now: Monotonic,
    ) -> Result<(), Close> {
        if self.content.is_none() {
            let over = now >= self.opened_at + timeouts.handshake;
            return if over { Err(self.no_handshake()) } else { Ok(()) };
        }
        if self.blocked_since.is_some_and(|since| now >= since + timeouts.stalled) {
            return Err(Close::Stalled);
        }
        if now >= self.heard_at + timeouts.idle {
            return Err(Close::Idle);
        }
        if now >= self.sent_at + timeouts.keep_alive {
            self.sent_at = now;
            if !paused && self.sending.is_none() && self.outbox.is_empty() {
                self.say(Message::KeepAlive);
            }
        }
        Ok(())
    }

    pub fn content(&self) -> Option<ContentKey> {
        self.content
    }

    /// Together with `content`.
    pub fn peer_id(&self) -> [u8; 20] {
        self.peer_id
    }

    /// What it does with its place.
    pub fn standing(&self, now: Monotonic) -> Standing {
        self.merit.standing(self.interested && !self.unchoked, now)
    }

    pub fn heard_at(&self) -> Monotonic {
        self.heard_at
    }

    pub fn is_interested(&self) -> bool {
        self.interested
    }

    pub fn is_unchoked(&self) -> bool {
        self.unchoked
    }

    /// Nothing but requests is pending: a message said now is the very next thing in the stream.
    pub fn is_between_messages(&self) -> bool {
        self.sending.is_none() && self.outbox.is_empty() && self.envelope.answer().is_empty()
    }

    /// The cipher for what leaves, if the peer wants it encrypted. It has to pass through once, in
    /// order, and no further than the socket takes it.
    pub fn outgoing(&mut self) -> Option<&mut Rc4> {
        self.envelope.outgoing()
    }

    /// Metadata requests (BEP 9) since the last call.
    pub fn take_metadata_requests(&mut self) -> u32 {
        self.metadata.take_count()
    }

    /// Requests for metadata that wait and that nobody has judged yet: see `limit_metadata`.
    pub fn metadata_asked(&self) -> u32 {
        self.metadata.asked()
    }

    /// Of those, only so many may be answered; the rest is rejected.
    pub fn limit_metadata(&mut self, granted: u32) {
        for piece in self.metadata.grant(granted) {
            self.reject_metadata(piece);
        }
    }

    pub fn deliveries(&mut self) -> &mut Deliveries {
        &mut self.deliveries
    }

    /// Memory that the connection takes beside its fixed part: what a stranger can make grow.
    pub fn kept_bytes(&self) -> usize {
        self.envelope.kept_bytes()
            + self.greeting.capacity()
            + self.assembler.kept_bytes()
            + self.requests.kept_bytes()
            + self.metadata.kept_bytes()
            + self.outbox.capacity()
            + self.deliveries.kept_bytes()
    }

    /// What the peer protocol gets, whatever it came in.
    fn handle_plain(
        &mut self,
        mut input: &[u8],
        us: &LocalPeer,
        shelf: &Shelf,
        now: Monotonic,
    ) -> Result<(), Close> {
        let key = match self.content {
            Some(key) => key,
            None => match self.handle_greeting(&mut input, us, shelf)? {
                Some(key) => key,
                None => return Ok(()),
            },
        };
        let content = shelf.get(key).ok_or(Close::ContentRemoved)?;
        // The assembler lends out its buffer while a message is looked at.
        let mut assembler = std::mem::take(&mut self.assembler);
        while let Some(message) = assembler.next(&mut input)? {
            if !self.effort.take_message(&message, now) {
                return Err(Close::TooMuch);
            }
            self.handle_message(message, content, now)?;
        }
        self.assembler = assembler;
        Ok(())
    }

    fn handle_message(
        &mut self,
        message: Message<'_>,
        content: &Content,
        now: Monotonic,
    ) -> Result<(), Close> {
        match message {
            Message::Request(block) => self.handle_request(block, content, now)?,
            Message::Cancel(block) => self.handle_cancel(block),
            Message::Interested => self.interested = true,
            Message::NotInterested => self.interested = false,
            Message::Extended { id: HANDSHAKE_ID, payload } => {
                let theirs = ExtensionHandshake::parse(payload)?;
                self.metadata_id = theirs.ut_metadata.unwrap_or(0);
            }
            Message::Extended { id: OUR_METADATA_ID, payload } => {
                self.handle_metadata(MetadataMessage::parse(payload)?, content)?;
            }
            Message::HaveAll => return Err(Close::Seed),
            Message::Bitfield(bits) => {
                let set: u32 = bits.iter().map(|b| b.count_ones()).sum();
                if set >= content.held().pieces() {
                    return Err(Close::Seed);
                }
            }
            Message::Piece => return Err(Close::UnaskedBlock),
            // We never download, so what the peer has and whom it lets request is nothing to us; nor
            // are its DHT port and its other extensions (PEX among them).
            Message::KeepAlive
            | Message::Choke
            | Message::Unchoke
            | Message::Have(_)
            | Message::Port(_)
            | Message::SuggestPiece(_)
            | Message::HaveNone
            | Message::Reject(_)
            | Message::AllowedFast(_)
            | Message::Extended { .. }
            | Message::Other(_) => {}
        }
        if self.outbox.len() - self.outbox_sent > self.outbox_max(content) {
            return Err(Close::Flood);
        }
        Ok(())
    }

    fn handle_request(
        &mut self,
        block: BlockRequest,
        content: &Content,
        now: Monotonic,
    ) -> Result<(), Close> {
        if block.length == 0
            || block.length > MAX_REQUEST_BYTES
            || content.offset_of(block).is_none()
        {
            return Err(Close::ImpossibleRequest);
        }
        let may_have = self.unchoked && content.held().has(block.piece);
        if may_have && self.requests.push(block) != Queued::Full {
            return Ok(());
        }
        if content.is_withdrawn(block.piece) {
            return self.refuse_withdrawn(block);
        }
        if !self.effort.take_refusal(now) {
            return Err(Close::TooMuch);
        }
        self.refuse(block);
        Ok(())
    }

    /// BEP 6: every request is answered, a cancelled one by a reject. Once its block is on its way
    /// the block is the answer.
    fn handle_cancel(&mut self, block: BlockRequest) {
        if self.requests.cancel(block) {
            self.refuse(block);
        }
    }

    fn refuse(&mut self, block: BlockRequest) {
        if self.fast {
            self.say(Message::Reject(block));
        }
    }

    fn handle_metadata(
        &mut self,
        message: MetadataMessage<'_>,
        content: &Content,
    ) -> Result<(), Close> {
        let MetadataMessage::Request { piece } = message else { return Ok(()) };
        if self.metadata_id == 0 {
            // It has not said where the answer should go.
            return Ok(());
        }
        if !self.metadata.push(piece, content.metadata_pieces()) {
            self.reject_metadata(piece);
        }
        Ok(())
    }

    fn reject_metadata(&mut self, piece: u32) {
        let payload = MetadataMessage::Reject { piece }.encode();
        self.say(Message::Extended { id: self.metadata_id, payload: &payload });
    }

    fn refill(&mut self, content: &Content) {
        let news = content.completed().get(self.haves_told..).unwrap_or(&[]);
        if !news.is_empty() {
            let news = &news[..news.len().min(HAVES_AT_ONCE)];
            self.haves_told += news.len();
            news.iter().for_each(|piece| self.say(Message::Have(*piece)));
        } else if let Some(piece) = self.metadata.pop() {
            let payload = MetadataMessage::answer(content.info_bytes(), piece).encode();
            self.say(Message::Extended { id: self.metadata_id, payload: &payload });
        } else if let Some(block) = self.requests.front()
            && content.may_leave(block.piece)
            && let Some(offset) = content.offset_of(block)
        {
            self.requests.pop();
            self.sending = Some(OutgoingBlock::new(block, offset));
        }
    }

    fn say(&mut self, message: Message<'_>) {
        message.encode(&mut self.outbox);
    }

    /// Our own bitfield and the rejects of one full queue are not the peer's fault.
    fn outbox_max(&self, content: &Content) -> usize {
        MAX_OUTBOX_BYTES + content.held().as_bytes().len()
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
