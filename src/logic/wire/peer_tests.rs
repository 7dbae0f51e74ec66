//! Scenes with one peer, in memory.

#[path = "peer_check_tests.rs"]
mod checks;
#[path = "peer_limit_tests.rs"]
mod limits;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    super::{MAX_QUEUED_REQUESTS, content::tests::servable},
    *,
};
use crate::logic::{bitfield::Bitfield, infohash::Infohash};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn us() -> LocalPeer {
    LocalPeer {
        peer_id: *b"-LA0001-aaaaaaaaaaaa",
        client_name: "Larder/test".into(),
        listen_port: 6881,
        timeouts: Timeouts::default(),
    }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

fn block(piece: u32, begin: u32, length: u32) -> BlockRequest {
    BlockRequest { piece, begin, length }
}

/// A session and the two sides of its wire.
struct Scene {
    us: LocalPeer,
    shelf: Shelf,
    session: PeerSession,
    keyring: Keyring,
    now: Monotonic,
}

impl Scene {
    fn new(have: Bitfield) -> Scene {
        let mut shelf = Shelf::default();
        shelf.add(servable(have)).expect("fits");
        let keyring = Keyring::new(StdRng::seed_from_u64(1));
        Scene { us: us(), shelf, session: PeerSession::new(PEER, at(0)), keyring, now: at(0) }
    }

    /// Past both handshakes, interested and unchoked.
    fn ready(have: Bitfield, fast: bool) -> Scene {
        let mut scene = Scene::new(have);
        scene.greet(fast, true).expect("a fine handshake");
        scene.hear(&[Message::Interested]).expect("fine");
        scene.session.unchoke(at(0));
        scene.drain();
        scene
    }

    fn greet(&mut self, fast: bool, extensions: bool) -> Result<(), Close> {
        let peer_id = *b"-XX0001-bbbbbbbbbbbb";
        let infohash = Infohash([7; 20]);
        self.feed(&Handshake { infohash, peer_id, fast, extensions }.encode())
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Close> {
        let (us, shelf, keyring) = (&self.us, &self.shelf, &mut self.keyring);
        self.session.handle_bytes(&mut bytes.to_vec(), us, shelf, keyring, self.now)
    }

    fn hear(&mut self, messages: &[Message<'_>]) -> Result<(), Close> {
        let mut bytes = vec![];
        messages.iter().for_each(|m| m.encode(&mut bytes));
        self.feed(&bytes)
    }

    /// Everything that goes out, blocks as `block OFFSET+LENGTH`, messages in their debug form.
    fn drain(&mut self) -> Vec<String> {
        let (mut out, mut control) = (vec![], vec![]);
        while let Some(chunk) = self.session.poll_chunk(&self.shelf) {
            assert!(chunk.stream_bytes() <= u64::from(MAX_GRANT_STREAM_BYTES));
            let length = chunk.stream_bytes();
            match chunk {
                Chunk::Opening(bytes) | Chunk::Control(bytes) => control.extend_from_slice(bytes),
                Chunk::Block { offset, length, .. } => {
                    told(&mut control, &mut out);
                    out.push(format!("block {offset}+{length}"));
                }
            }
            self.session.handle_sent(length, self.now);
        }
        told(&mut control, &mut out);
        assert!(!self.session.has_output(&self.shelf));
        out
    }
}

fn told(control: &mut Vec<u8>, out: &mut Vec<String>) {
    let mut input = &control[..];
    if input.first() == Some(&19) {
        out.push("Handshake".into());
        input = &input[HANDSHAKE_BYTES..];
    }
    let mut assembler = Assembler::default();
    while let Some(message) = assembler.next(&mut input).expect("we speak well") {
        out.push(match message {
            Message::Extended { id, .. } => format!("Extended({id})"),
            // A metadata answer is longer than what we would keep of a peer's.
            other => format!("{other:?}"),
        });
    }
    control.clear();
}

#[test]
fn greets_each_peer_in_the_words_it_knows() {
    let cases = [
        (Bitfield::full(5), true, true, vec!["Handshake", "HaveAll", "Extended(0)"]),
        (Bitfield::empty(5), true, false, vec!["Handshake", "HaveNone"]),
        (Bitfield::full(5), false, false, vec!["Handshake", "Bitfield([248])"]),
        (Bitfield::empty(5), false, false, vec!["Handshake"]),
    ];
    for (have, fast, extensions, expected) in cases {
        let mut scene = Scene::new(have);
        scene.greet(fast, extensions).expect("fine");
        assert_eq!(scene.drain(), expected);
    }
}

#[test]
fn says_nothing_to_strangers_and_to_itself() {
    let mut scene = Scene::new(Bitfield::full(5));
    let shake =
        Handshake { infohash: Infohash([8; 20]), peer_id: [1; 20], fast: true, extensions: true };
    assert_eq!(scene.feed(&shake.encode()), Err(Close::UnknownInfohash));
    assert_eq!(scene.drain(), Vec::<String>::new());

    let mut scene = Scene::new(Bitfield::full(5));
    let ourselves = Handshake { infohash: Infohash([7; 20]), peer_id: scene.us.peer_id, ..shake };
    assert_eq!(scene.feed(&ourselves.encode()), Err(Close::SelfConnection));
    assert_eq!(scene.drain(), Vec::<String>::new());
}

#[test]
fn serves_requests_in_order_and_large_ones_in_parts() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    scene
        .hear(&[
            Message::Request(block(4, 0, 100)),
            Message::Request(block(0, 5, 20_000)),
            Message::Request(block(4, 0, 100)),
        ])
        .expect("fine");
    // 16 KiB + 13 a chunk: the header takes 13 of the first.
    assert_eq!(scene.drain(), ["block 131072+100", "block 5+16384", "block 16389+3616"]);
    assert_eq!(scene.session.deliveries().settle(0), 20_100);
}

#[test]
fn answers_requests_while_choked_as_the_peer_understands_them() {
    for (fast, expected) in
        [(true, vec!["Reject(BlockRequest { piece: 0, begin: 0, length: 9 })"]), (false, vec![])]
    {
        let mut scene = Scene::new(Bitfield::full(5));
        scene.greet(fast, false).expect("fine");
        scene.drain();
        scene
            .hear(&[Message::Request(block(0, 0, 9))])
            .expect("not abuse: chokes cross on the wire");
        assert_eq!(scene.drain(), expected);
    }
}

#[test]
fn rejects_pieces_that_are_not_held_until_they_come() {
    let mut scene = Scene::ready(Bitfield::empty(5), true);
    scene.hear(&[Message::Request(block(2, 0, 9))]).expect("fine");
    assert_eq!(scene.drain(), ["Reject(BlockRequest { piece: 2, begin: 0, length: 9 })"]);
    scene.shelf.have(Infohash([7; 20]), 2);
    assert!(scene.session.has_output(&scene.shelf));
    assert_eq!(scene.drain(), ["Have(2)"]);
    scene.hear(&[Message::Request(block(2, 0, 9))]).expect("fine");
    assert_eq!(scene.drain(), ["block 65536+9"]);
}

#[test]
fn choking_drops_the_queue_but_finishes_the_block_that_has_begun() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    scene
        .hear(&[Message::Request(block(0, 0, 16_384)), Message::Request(block(1, 0, 16_384))])
        .expect("fine");
    assert!(scene.session.poll_chunk(&scene.shelf).is_some());
    scene.session.handle_sent(20, at(0));
    scene.session.choke();
    assert_eq!(
        scene.drain(),
        ["block 7+16377", "Choke", "Reject(BlockRequest { piece: 1, begin: 0, length: 16384 })"]
    );
}

#[test]
fn honours_cancel() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let (first, second) = (block(0, 0, 100), block(0, 100, 100));
    scene.hear(&[Message::Request(first), Message::Request(second)]).expect("fine");
    scene.hear(&[Message::Cancel(second), Message::Cancel(block(3, 0, 1))]).expect("fine");
    assert_eq!(
        scene.drain(),
        ["Reject(BlockRequest { piece: 0, begin: 100, length: 100 })", "block 0+100"]
    );
}

#[test]
fn closes_on_requests_that_cannot_be_meant() {
    let bad = [
        block(0, 0, 0),
        block(5, 0, 1),
        block(4, 0, 101),
        block(0, 32_768, 1),
        block(0, 0, MAX_REQUEST_BYTES + 1),
        block(u32::MAX, u32::MAX, u32::MAX),
    ];
    for request in bad {
        let mut scene = Scene::ready(Bitfield::full(5), true);
        assert_eq!(scene.hear(&[Message::Request(request)]), Err(Close::ImpossibleRequest));
    }
}

#[test]
fn bounds_what_a_flood_can_queue() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let all: Vec<_> =
        (0..MAX_QUEUED_REQUESTS as u32 + 100).map(|i| Message::Request(block(0, i, 1))).collect();
    scene.hear(&all).expect("a few too many are rejected");
    let out = scene.drain();
    assert_eq!(out.iter().filter(|s| s.starts_with("block")).count(), MAX_QUEUED_REQUESTS);
    assert_eq!(out.iter().filter(|s| s.starts_with("Reject")).count(), 100);

    let mut flood = Scene::ready(Bitfield::empty(5), true);
    let mut heard = 0;
    let end = loop {
        heard += 1;
        if let Err(end) = flood.hear(&all) {
            break end;
        }
        assert!(heard < 100, "the peer never reads, and we never stop answering");
    };
    assert_eq!(end, Close::TooMuch);
}

#[test]
fn a_peer_whose_answers_never_end_does_not_make_them_grow() {
    let mut scene = Scene::new(Bitfield::full(5));
    scene.greet(true, false).expect("fine");
    // Choked, so every request is rejected; one chunk of rejects leaves for each chunk that comes.
    let requests: Vec<_> = (0..960).map(|n| Message::Request(block(n % 4, n, 16))).collect();
    for second in 0..100 {
        // So seldom that nobody minds.
        scene.now = at(100 * second);
        scene.hear(&requests).expect("it reads");
        let chunk = scene.session.poll_chunk(&scene.shelf).expect("rejects").stream_bytes();
        scene.session.handle_sent(chunk, scene.now);
        assert!(scene.session.kept_bytes() < 3 * MAX_OUTBOX_BYTES);
    }
}

#[test]
fn sends_metadata_to_whoever_asks_a_few_times() {
    let mut scene = Scene::new(Bitfield::full(5));
    scene.greet(true, true).expect("fine");
    scene.drain();
    let ask = |scene: &mut Scene, piece| {
        let payload = MetadataMessage::Request { piece }.encode();
        scene.hear(&[Message::Extended { id: OUR_METADATA_ID, payload: &payload }])
    };
    ask(&mut scene, 0).expect("fine");
    assert_eq!(scene.drain(), Vec::<String>::new(), "the peer has not said where to");
    scene.hear(&[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai3eee" }]).expect("fine");
    let mut answers = vec![];
    for piece in [1, 0, 9, 1, 1, 1, 1, 1, 1, 1] {
        ask(&mut scene, piece).expect("fine");
        let Some(Chunk::Control(bytes)) = scene.session.poll_chunk(&scene.shelf) else {
            panic!("there is always an answer")
        };
        assert_eq!(bytes[4..6], [20, 3]);
        let (mut bytes, mut rest) =
            (bytes.to_vec(), scene.session.poll_chunk(&scene.shelf).is_some());
        scene.session.handle_sent(bytes.len() as u64, at(0));
        while rest {
            let Some(Chunk::Control(more)) = scene.session.poll_chunk(&scene.shelf) else { break };
            bytes.extend_from_slice(more);
            let n = more.len() as u64;
            scene.session.handle_sent(n, at(0));
            rest = true;
        }
        answers.push(match MetadataMessage::parse(&bytes[6..]).expect("ours") {
            MetadataMessage::Data { piece, total_bytes, data } => {
                assert_eq!(total_bytes, 20_000);
                assert_eq!(data.len(), if piece == 0 { 16_384 } else { 3_616 });
                'd'
            }
            MetadataMessage::Reject { .. } => 'r',
            other => panic!("{other:?}"),
        });
    }
    // Two pieces four times over: eight requests, the first one without an address not counted.
    assert_eq!(answers.into_iter().collect::<String>(), "ddrdddddrr");
}

#[test]
fn closes_seeds_and_uninvited_blocks() {
    for (message, end) in
        [(Message::HaveAll, Close::Seed), (Message::Bitfield(&[0xf8]), Close::Seed)]
    {
        let mut scene = Scene::ready(Bitfield::full(5), true);
        assert_eq!(scene.hear(&[message]), Err(end));
    }
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let uninvited = [&block(0, 0, 4).piece_header()[..], &[1, 2, 3, 4]].concat();
    assert_eq!(scene.feed(&uninvited), Err(Close::UnaskedBlock));
}

#[test]
fn ignores_politely_what_a_seeder_has_no_use_for() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    scene
        .hear(&[
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Have(3),
            Message::Bitfield(&[0]),
            Message::Port(1),
            Message::SuggestPiece(1),
            Message::HaveNone,
            Message::AllowedFast(1),
            Message::Extended { id: 77, payload: b"pex, perhaps" },
        ])
        .expect("fine");
    assert_eq!(scene.drain(), Vec::<String>::new());
}

#[test]
fn keeps_time() {
    let t = Timeouts::default();
    let mut scene = Scene::new(Bitfield::full(5));
    assert_eq!(scene.session.poll_timeout(&t), at(10));
    scene.feed(&[19]).expect("a start");
    assert_eq!(scene.session.handle_timeout(&t, false, at(10)), Err(Close::HandshakeTimeout));

    let mut scene = Scene::ready(Bitfield::full(5), true);
    assert_eq!(scene.session.poll_timeout(&t), at(100));
    assert_eq!(scene.session.handle_timeout(&t, true, at(100)), Ok(()));
    assert_eq!(scene.drain(), Vec::<String>::new(), "paused: silence");
    scene.session.sent_at = at(0);
    assert_eq!(scene.session.handle_timeout(&t, false, at(100)), Ok(()));
    assert_eq!(scene.drain(), ["KeepAlive"]);
    assert_eq!(scene.session.poll_timeout(&t), at(100), "sent at the scene's own time, 0");
    assert_eq!(scene.session.handle_timeout(&t, false, at(180)), Err(Close::Idle));

    let mut scene = Scene::ready(Bitfield::full(5), true);
    scene.hear(&[Message::Request(block(0, 0, 9))]).expect("fine");
    scene.session.handle_blocked(at(5));
    scene.session.handle_blocked(at(50));
    scene.session.heard_at = at(120);
    scene.session.sent_at = at(120);
    assert_eq!(scene.session.poll_timeout(&t), at(125));
    assert_eq!(scene.session.handle_timeout(&t, false, at(125)), Err(Close::Stalled));
}

#[test]
fn idle_sessions_hold_no_buffers() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let some: Vec<_> = (0..300).map(|i| Message::Request(block(0, i, 1))).collect();
    scene.hear(&some).expect("fine");
    scene.drain();
    scene.session.deliveries().settle(0);
    assert_eq!(scene.session.outbox.capacity(), 0);
    assert_eq!(scene.session.greeting.capacity(), 0);
    assert_eq!(scene.session.assembler.kept_bytes(), 0);
    assert!(size_of::<PeerSession>() <= 512, "{}", size_of::<PeerSession>());
}

proptest! {
    /// However little the socket takes at a time, the stream is the same.
    #[test]
    fn the_stream_does_not_depend_on_how_much_is_taken_at_a_time(
        requests in prop::collection::vec((0u32..4, 0u32..16_000, 1u32..16_000), 1..20),
        takes in prop::collection::vec(1u64..30_000, 1..8),
    ) {
        let run = |takes: &[u64]| {
            let mut scene = Scene::ready(Bitfield::full(5), true);
            let messages: Vec<_> =
                requests.iter().map(|(p, b, l)| Message::Request(block(*p, *b, *l))).collect();
            scene.hear(&messages).expect("fine");
            let (mut stream, mut i) = (vec![], 0);
            while let Some(chunk) = scene.session.poll_chunk(&scene.shelf) {
                let take = takes[i % takes.len()].min(chunk.stream_bytes());
                i += 1;
                let bytes = match chunk {
                    Chunk::Opening(bytes) | Chunk::Control(bytes) => bytes.to_vec(),
                    Chunk::Block { header, offset, length, .. } => {
                        let body = (offset..offset + u64::from(length)).map(|o| (o % 251) as u8);
                        header.iter().copied().chain(body).collect()
                    }
                };
                stream.extend_from_slice(&bytes[..take as usize]);
                scene.session.handle_sent(take, at(0));
            }
            (stream, scene.session.deliveries().settle(0))
        };
        let (whole, payload) = run(&[u64::MAX]);
        let (parts, parts_payload) = run(&takes);
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(payload, parts_payload);
    }

    #[test]
    fn survives_any_bytes_after_the_handshake(bytes in prop::collection::vec(prop_oneof![4 => 0u8..21, 1 => any::<u8>()], 0..2000)) {
        let mut scene = Scene::ready(Bitfield::full(5), true);
        let _ = scene.feed(&bytes);
    }
}

#[test]
fn foresees_no_blocks_when_something_else_goes_first() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let asked = [block(0, 0, 100), block(1, 0, 200)].map(Message::Request);
    scene.hear(&asked).expect("fine");
    let foreseen = |scene: &Scene| scene.session.upcoming_blocks(&scene.shelf).count();
    assert_eq!(foreseen(&scene), 2);
    // The reject of a cancel goes before blocks.
    scene.hear(&[Message::Cancel(block(1, 0, 200))]).expect("fine");
    assert_eq!(foreseen(&scene), 0);
    scene.drain();
    assert_eq!(foreseen(&scene), 0, "nothing is left");
}

proptest! {
    /// Whoever sends several blocks in one go sends what would have left one by one.
    #[test]
    fn foresees_the_blocks_that_leave(
        lengths in prop::collection::vec(1u32..=16_000, 1..8),
        sent in 0u64..30_000,
    ) {
        let mut scene = Scene::ready(Bitfield::full(5), true);
        for (begin, length) in lengths.iter().enumerate() {
            let asked = Message::Request(block(0, begin as u32, *length));
            scene.hear(&[asked]).expect("fine");
        }
        // So that one of them is in hand.
        if let Some(chunk) = scene.session.poll_chunk(&scene.shelf) {
            let sent = sent.min(chunk.stream_bytes());
            scene.session.handle_sent(sent, scene.now);
        }
        let foreseen: Vec<_> = scene.session.upcoming_blocks(&scene.shelf).collect();
        for block in foreseen {
            let left = block.header().len() as u64 + u64::from(block.length());
            match scene.session.poll_chunk(&scene.shelf) {
                Some(Chunk::Block { header, offset, length, .. }) => {
                    prop_assert_eq!(header, block.header());
                    prop_assert_eq!((offset, length), (block.offset(), block.length()));
                }
                other => prop_assert!(false, "{other:?}"),
            }
            scene.session.handle_sent(left, scene.now);
        }
        prop_assert_eq!(scene.session.poll_chunk(&scene.shelf), None);
    }
}

/// A session in which we have called.
fn calling(have: Bitfield) -> Scene {
    let mut scene = Scene::new(have);
    scene.session = PeerSession::calling(PEER, Infohash([7; 20]), &scene.us, at(0));
    scene
}

fn next_bytes(scene: &mut Scene) -> Vec<u8> {
    let Some(Chunk::Control(bytes)) = scene.session.poll_chunk(&scene.shelf) else {
        panic!("something to say")
    };
    let bytes = bytes.to_vec();
    scene.session.handle_sent(bytes.len() as u64, scene.now);
    bytes
}

#[test]
fn whom_we_call_hears_our_handshake_first_and_is_served_as_anybody() {
    let mut scene = calling(Bitfield::full(5));
    assert!(scene.session.has_output(&scene.shelf));
    let ours = Handshake::parse(&next_bytes(&mut scene)).expect("well-formed").expect("whole");
    assert_eq!((ours.infohash, ours.peer_id), (Infohash([7; 20]), scene.us.peer_id));
    assert!(ours.fast && ours.extensions && !scene.session.has_output(&scene.shelf));
    assert_eq!(scene.session.content(), None);
    scene.greet(true, false).expect("a fine answer");
    assert!(scene.session.content().is_some());
    assert_eq!(scene.drain(), ["HaveAll"], "and no second handshake");
    scene.hear(&[Message::Interested]).expect("fine");
    scene.session.unchoke(at(0));
    scene.hear(&[Message::Request(block(1, 0, 100))]).expect("fine");
    assert_eq!(scene.drain(), ["Unchoke", "block 32768+100"]);
}

#[test]
fn an_answer_may_come_before_our_handshake_has_left() {
    let mut scene = calling(Bitfield::full(5));
    scene.session.handle_sent(10, at(0));
    scene.greet(true, false).expect("a fine answer");
    let rest = next_bytes(&mut scene);
    assert_eq!(rest.len(), HANDSHAKE_BYTES - 10 + 5, "the rest of it, then HaveAll");
}

#[test]
fn whom_we_call_owes_us_nothing_but_must_be_a_peer_of_that_content() {
    for answer in [&b"HTTP/1.1 400 Bad Request"[..], b"\x13BitTorrent Protocol"] {
        assert_eq!(calling(Bitfield::full(5)).feed(answer), Err(Close::NoAnswer));
    }
    let other =
        Handshake { infohash: Infohash([8; 20]), peer_id: [1; 20], fast: true, extensions: true };
    assert_eq!(calling(Bitfield::full(5)).feed(&other.encode()), Err(Close::NoAnswer));
    let mirror = Handshake { infohash: Infohash([7; 20]), peer_id: us().peer_id, ..other };
    assert_eq!(calling(Bitfield::full(5)).feed(&mirror.encode()), Err(Close::SelfConnection));
    let mut silent = calling(Bitfield::full(5));
    let timeouts = Timeouts::default();
    assert_eq!(silent.session.poll_timeout(&timeouts), at(10));
    assert_eq!(silent.session.handle_timeout(&timeouts, false, at(10)), Err(Close::NoAnswer));
    assert!(!Close::NoAnswer.is_abuse());
}

#[test]
fn a_seed_that_we_called_is_left_alone() {
    let mut scene = calling(Bitfield::full(5));
    scene.greet(true, true).expect("a fine answer");
    assert_eq!(scene.hear(&[Message::HaveAll]), Err(Close::Seed));
}

#[test]
fn a_call_for_a_content_that_is_gone_meanwhile_ends() {
    let mut scene = calling(Bitfield::full(5));
    scene.shelf.remove(Infohash([7; 20]));
    assert_eq!(scene.greet(true, true), Err(Close::UnknownInfohash));
}
