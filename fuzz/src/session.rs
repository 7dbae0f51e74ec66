//! A whole connection: what the peer says, what its socket takes, what the choker decides and what
//! becomes of the content, in any order. An observer on the peer's side checks what comes out; the
//! same story is told again with the peer's bytes in pieces, and has to go the same way.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use larder::logic::{
    bitfield::Bitfield,
    governor::MAX_GRANT_STREAM_BYTES,
    infohash::Infohash,
    now::Monotonic,
    wire::{
        BlockRequest, Chunk, Close, HANDSHAKE_BYTES, Handshake, LocalPeer, MAX_QUEUED_REQUESTS,
        MAX_REQUEST_BYTES, Message, MetadataMessage, PeerSession, Servable, Shelf, Timeouts,
        mse::Keyring,
    },
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    Verdict,
    input::{Input, pieces},
    observer::{METADATA_ID, Observer},
};

const CONTENT: Infohash = Infohash([7; 20]);
const PIECES: u32 = 5;
const PIECE_BYTES: u32 = 256 * 1024;
const LAST_PIECE_BYTES: u32 = 100;
/// Two pieces of metadata.
const INFO_BYTES: usize = 20_000;
const OPS_MAX: usize = 120;
/// What one peer may hold of our memory: replies with a full queue's rejects behind them, the queue
/// itself, an unfinished message, marks of what is in flight; as vectors grow, up to twice of each.
const KEPT_BYTES_MAX: usize = 192 * 1024;

pub fn check(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let size = usize::from(input.byte());
    let story = input.take_rest();
    let whole = Play::of(story, 0);
    assert_eq!(Play::of(story, size), whole, "in pieces of {size} it goes another way");
    if whole.closed.is_none() { Verdict::Accepted } else { Verdict::Refused }
}

/// What came out.
#[derive(Debug, PartialEq)]
struct Ending {
    closed: Option<Close>,
    said: Vec<u8>,
    blocks: u32,
    delivered: u64,
}

struct Play {
    session: PeerSession,
    us: LocalPeer,
    shelf: Shelf,
    keyring: Keyring,
    now: Monotonic,
    observer: Observer,
    fast: bool,
    /// The extension handshake with our `ut_metadata` in it has been said.
    wants_metadata: bool,
    /// Requests as the session should have them in its queue.
    waiting: VecDeque<BlockRequest>,
    /// Sizes of the pieces in which the peer's bytes come.
    size: usize,
    /// A handshake that the fuzzer made up.
    raw: Vec<u8>,
    said: Vec<u8>,
    acknowledged: u64,
    delivered: u64,
    payload: u64,
}

impl Play {
    fn of(story: &[u8], size: usize) -> Ending {
        let mut input = Input::new(story);
        let flags = input.byte();
        let mut play = Play::new(flags, size);
        let closed = play.go(flags, &mut input).err();
        if closed.is_none() {
            play.ends_well();
        }
        let Play { said, delivered, observer, .. } = play;
        Ending { closed, said, blocks: observer.blocks, delivered }
    }

    fn new(flags: u8, size: usize) -> Play {
        let have = if flags & 1 == 0 { Bitfield::full(PIECES) } else { Bitfield::empty(PIECES) };
        let complete = have.is_complete();
        let total_bytes = u64::from((PIECES - 1) * PIECE_BYTES + LAST_PIECE_BYTES);
        let info_bytes = vec![b'i'; INFO_BYTES].into();
        let mut shelf = Shelf::default();
        let servable = Servable {
            infohash: CONTENT,
            piece_length: PIECE_BYTES,
            total_bytes,
            info_bytes,
            have,
        };
        shelf.add(servable).expect("fits");
        let observer = Observer::expecting(0..if complete { PIECES } else { 0 });
        Play {
            session: PeerSession::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Monotonic::START),
            us: LocalPeer {
                peer_id: *b"-LR0100-abcdefghijkl",
                client_name: "Larder".into(),
                listen_port: 6881,
                timeouts: Timeouts::default(),
            },
            shelf,
            keyring: Keyring::new(StdRng::seed_from_u64(5)),
            now: Monotonic::START,
            observer,
            fast: flags & 2 != 0,
            wants_metadata: false,
            waiting: VecDeque::new(),
            size,
            raw: vec![],
            said: vec![],
            acknowledged: 0,
            delivered: 0,
            payload: 0,
        }
    }

    fn go(&mut self, flags: u8, input: &mut Input<'_>) -> Result<(), Close> {
        if flags & 4 == 0 {
            let shake = Handshake {
                infohash: CONTENT,
                peer_id: [b'p'; 20],
                fast: self.fast,
                extensions: flags & 8 == 0,
            };
            self.feed(&shake.encode())?;
        }
        for _ in 0..OPS_MAX {
            if input.is_empty() {
                break;
            }
            self.step(input)?;
            assert!(self.session.kept_bytes() <= KEPT_BYTES_MAX, "{}", self.session.kept_bytes());
        }
        Ok(())
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<(), Close> {
        match input.byte() % 14 {
            0 => {
                let length = usize::from(input.byte());
                self.hear_raw(input.take(length))
            }
            1 => self.request(choose_block(input)),
            2 => self.burst(input.byte()),
            3 => self.cancel(choose_block(input)),
            4 => self.hear_message(Message::Interested),
            5 => self.hear_message(Message::NotInterested),
            6 => {
                let room = u64::from(input.word()) * 4;
                self.take_bytes(room);
                Ok(())
            }
            7 => {
                self.session.unchoke(self.now);
                Ok(())
            }
            8 => {
                self.session.choke();
                self.waiting.clear();
                Ok(())
            }
            9 => {
                self.now = self.now + Duration::from_secs(input.byte().into());
                let paused = input.byte() % 2 == 1;
                self.session.handle_timeout(&self.us.timeouts, paused, self.now)
            }
            10 => {
                self.shelf.have(CONTENT, u32::from(input.byte()));
                Ok(())
            }
            11 => self.introduce(),
            12 => self.ask_for_metadata(u32::from(input.byte()) % 4),
            _ => {
                let unacknowledged = u64::from(input.word());
                self.settle(unacknowledged);
                Ok(())
            }
        }
    }

    /// Until the handshake is over, any bytes. After it one message of a kind that asks for nothing:
    /// the observer's books hold only for a peer whose every wish is known.
    fn hear_raw(&mut self, bytes: &[u8]) -> Result<(), Close> {
        if self.session.content().is_none() {
            let bytes = &bytes[..bytes.len().min(HANDSHAKE_BYTES - self.raw.len())];
            self.raw.extend_from_slice(bytes);
            self.feed(bytes)?;
            let shake = Handshake::parse(&self.raw).ok().flatten();
            self.fast = shake.is_some_and(|shake| shake.fast);
            return Ok(());
        }
        let id = [0, 4, 5, 13, 99][bytes.len() % 5];
        let mut message = (bytes.len() as u32 + 1).to_be_bytes().to_vec();
        message.push(id);
        message.extend_from_slice(bytes);
        self.hear(&message)
    }

    fn hear_message(&mut self, message: Message<'_>) -> Result<(), Close> {
        let mut bytes = vec![];
        message.encode(&mut bytes);
        self.hear(&bytes)
    }

    /// Nobody says anything before the handshake.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), Close> {
        if self.session.content().is_none() {
            return Ok(());
        }
        self.feed(bytes)
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Close> {
        for piece in pieces(bytes, self.size) {
            let mut piece = piece.to_vec();
            let Play { session, us, shelf, keyring, .. } = self;
            session.handle_bytes(&mut piece, us, shelf, keyring, self.now)?;
        }
        Ok(())
    }

    fn request(&mut self, block: BlockRequest) -> Result<(), Close> {
        self.expect_answer(block);
        self.hear_message(Message::Request(block))
    }

    /// Many small requests in one read.
    fn burst(&mut self, count: u8) -> Result<(), Close> {
        let mut bytes = vec![];
        for n in 0..u32::from(count) * 4 {
            let block = BlockRequest { piece: n % 4, begin: n * 16, length: 16 };
            self.expect_answer(block);
            Message::Request(block).encode(&mut bytes);
        }
        self.hear(&bytes)
    }

    fn cancel(&mut self, block: BlockRequest) -> Result<(), Close> {
        self.waiting.retain(|waiting| *waiting != block);
        self.hear_message(Message::Cancel(block))
    }

    /// BEP 6: one answer for each request, and one for both of a pair that waits.
    fn expect_answer(&mut self, block: BlockRequest) {
        let content = self.session.content().and_then(|key| self.shelf.get(key));
        let Some(content) = content else { return };
        let held = content.held().has(block.piece);
        let possible =
            content.offset_of(block).is_some() && (1..=MAX_REQUEST_BYTES).contains(&block.length);
        let queues = possible && held && self.session.is_unchoked();
        if queues && self.waiting.contains(&block) {
            return;
        }
        let accepted = queues && self.waiting.len() < MAX_QUEUED_REQUESTS;
        if accepted {
            self.waiting.push_back(block);
        }
        if accepted || self.fast {
            self.observer.owed.push(block);
        }
    }

    fn introduce(&mut self) -> Result<(), Close> {
        self.wants_metadata |= self.session.content().is_some();
        let payload = format!("d1:md11:ut_metadatai{METADATA_ID}eee");
        self.hear_message(Message::Extended { id: 0, payload: payload.as_bytes() })
    }

    fn ask_for_metadata(&mut self, piece: u32) -> Result<(), Close> {
        if self.session.content().is_some() && self.wants_metadata {
            self.observer.metadata_owed += 1;
        }
        let payload = MetadataMessage::Request { piece }.encode();
        self.hear_message(Message::Extended { id: 1, payload: &payload })
    }

    /// The socket has room for so much.
    fn take_bytes(&mut self, mut room: u64) {
        loop {
            let Some(chunk) = self.session.poll_chunk(&self.shelf) else { return };
            let whole = chunk.stream_bytes();
            assert!((1..=u64::from(MAX_GRANT_STREAM_BYTES)).contains(&whole));
            let taken = whole.min(room);
            match chunk {
                Chunk::Opening(bytes) => {
                    self.said.extend_from_slice(&bytes[..taken as usize]);
                }
                Chunk::Control(bytes) => {
                    let bytes = &bytes[..taken as usize];
                    self.said.extend_from_slice(bytes);
                    self.observer.hear(bytes);
                }
                Chunk::Block { header, offset, length, .. } => {
                    if header.len() == 13 && self.observer.is_between_messages() {
                        begin(&mut self.waiting, header);
                    }
                    let of_header = header.len().min(taken as usize);
                    let of_block = (taken as usize - of_header) as u32;
                    self.observer.receive(&header[..of_header], 0);
                    if of_block > 0 {
                        let (piece, begin) = self.observer.arriving_at().expect("it has begun");
                        assert_eq!(offset, u64::from(piece * PIECE_BYTES + begin));
                        assert!(of_block <= length);
                        self.observer.receive(&[], of_block);
                        self.payload += u64::from(of_block);
                    }
                }
            }
            self.session.handle_sent(taken, self.now);
            room -= taken;
            if taken < whole {
                self.session.handle_blocked(self.now);
                return;
            }
        }
    }
}

impl Play {
    /// What the kernels say of the bytes on their way.
    fn settle(&mut self, unacknowledged: u64) {
        let deliveries = self.session.deliveries();
        let written = deliveries.written();
        // What is acknowledged stays so.
        self.acknowledged = self.acknowledged.max(written.saturating_sub(unacknowledged));
        self.delivered += deliveries.settle(written - self.acknowledged);
        let most = self.acknowledged.min(self.payload);
        assert!(self.delivered <= most, "booked before it arrived");
    }

    /// With a peer that reads everything, everything is answered and booked.
    fn ends_well(&mut self) {
        self.take_bytes(u64::MAX);
        self.settle(0);
        assert!(!self.session.has_output(&self.shelf));
        let Some(content) = self.session.content().and_then(|key| self.shelf.get(key)) else {
            return;
        };
        assert_eq!(self.delivered, self.payload);
        assert_eq!(self.observer.may_request(), self.session.is_unchoked());
        assert_eq!(self.observer.metadata_owed, 0);
        let shown: Vec<u32> = self.observer.shown.iter().copied().collect();
        assert_eq!(shown, content.held().iter_held().collect::<Vec<_>>());
        if self.fast {
            assert_eq!(self.observer.owed, [], "BEP 6: every request is answered");
        }
        let kept = self.session.kept_bytes();
        assert!(kept <= HANDSHAKE_BYTES, "an idle connection keeps {kept} bytes");
    }
}

fn choose_block(input: &mut Input<'_>) -> BlockRequest {
    const BEGINS: [u32; 6] = [0, 16_384, 100, 131_072, PIECE_BYTES - 100, u32::MAX];
    const LENGTHS: [u32; 7] = [16_384, 16, 100, 131_072, 0, 131_073, u32::MAX];
    let (piece, begin, length) = (input.byte(), input.byte(), input.byte());
    BlockRequest {
        piece: u32::from(piece) % (PIECES + 1),
        begin: BEGINS[usize::from(begin) % BEGINS.len()],
        length: LENGTHS[usize::from(length) % LENGTHS.len()],
    }
}

/// The session takes a block off its queue when it is first polled for it.
fn begin(waiting: &mut VecDeque<BlockRequest>, header: &[u8]) {
    if let Some(block) = waiting.front()
        && block.piece_header() == header
    {
        waiting.pop_front();
    }
}
