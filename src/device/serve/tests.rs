//! The engine over real sockets on loopback, against a small leecher that can also misbehave.

mod encrypted;
mod lan;
mod limits;
mod outreach;
mod stage;

use std::{
    fs::File,
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use self::stage::*;
use super::*;
use crate::logic::{
    bitfield::Bitfield,
    governor::WireCost,
    wire::{BlockRequest, ExtensionHandshake, Handshake, Message, MetadataMessage},
};

#[test]
fn a_full_download_matches_and_is_counted_to_the_byte() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = stage.leecher();
    leecher.hear("HaveAll");
    leecher.become_unchoked();
    wait_until("it shows", || stage.engine.stats().peers_unchoked == 1);
    leecher.download(&stage);
    let usage = stage.delivered(stage.data.len() as u64);
    let cost = WireCost::to(stage.address.ip(), LOOPBACK_SEGMENT);
    assert!(usage.wire_bytes >= cost.of(leecher.received_bytes), "{usage:?}");
    assert!(usage.wire_bytes as f64 <= 1.05 * cost.of(leecher.received_bytes) as f64, "{usage:?}");
    assert_eq!(stage.engine.stats().egress_wire_bytes_total, usage.wire_bytes);
    assert_eq!(stage.engine.stop(), [], "everything was told before");
}

/// Its window takes a block or two of a run of sixteen, so nearly every run is cut somewhere.
#[test]
fn a_reader_with_a_small_window_gets_every_byte_in_order() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = Leecher::with_small_window(&stage, 4096);
    leecher.become_unchoked();
    leecher.download(&stage);
    stage.delivered(stage.data.len() as u64);
}

#[test]
fn counts_what_is_under_way_when_it_stops() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    leecher.download(&stage);
    let last = stage.engine.stop();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].usage.payload_bytes, stage.data.len() as u64);
    leecher.expect_end();
}

#[test]
fn speaks_plain_bep_3_to_those_who_know_no_more() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = Leecher::connect(stage.address, stage.infohash, false);
    let bits = Bitfield::full(stage.pieces());
    leecher.hear(&format!("{:?}", Message::Bitfield(bits.as_bytes())));
    // Requests before the unchoke are ignored without BEP 6.
    leecher.request(&stage.blocks()[..3]);
    leecher.become_unchoked();
    leecher.download(&stage);
    stage.delivered(stage.data.len() as u64);
}

#[test]
fn serves_metadata_for_magnet_links() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = stage.leecher();
    leecher.hear("HaveAll");
    let Said::Extended { id: 0, payload } = leecher.next() else { panic!("BEP 10 comes next") };
    let ours = ExtensionHandshake::parse(&payload).expect("well-formed");
    assert!(ours.upload_only);
    assert_eq!(ours.metadata_size, Some(stage.info.len() as u32));
    assert_eq!(ours.your_ip, Some("127.0.0.1".parse().expect("an address")));
    let id = ours.ut_metadata.expect("offered");
    leecher.send(&[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" }]);
    let mut info = vec![];
    for piece in 0..3 {
        let payload = MetadataMessage::Request { piece }.encode();
        leecher.send(&[Message::Extended { id, payload: &payload }]);
        let Said::Extended { id: 9, payload } = leecher.next() else { panic!("our id") };
        let MetadataMessage::Data { data, .. } = MetadataMessage::parse(&payload).expect("fine")
        else {
            panic!("data")
        };
        info.extend_from_slice(data);
    }
    assert_eq!(Infohash::of_info(&info), stage.infohash);
    let usage = stage.engine.take_usage();
    assert_eq!(usage[0].usage.payload_bytes, 0, "metadata is not paid");
    assert!(usage[0].usage.wire_bytes > info.len() as u64, "but it counts on the wire");
    assert_eq!(stage.engine.stats().metadata_requests_total, 3);
}

#[test]
fn tells_of_new_pieces_and_serves_them() {
    let stage = Stage::with(Allowance::Unlimited, settings(), Timeouts::default(), false);
    let mut leecher = stage.leecher();
    leecher.hear("HaveNone");
    leecher.become_unchoked();
    let wanted = BlockRequest { piece: 3, begin: 100, length: 20_000 };
    leecher.request(&[wanted]);
    leecher.hear(&format!("{:?}", Message::Reject(wanted)));
    stage.engine.send(ServeCommand::Have { infohash: stage.infohash, piece: 3 });
    leecher.hear("Have(3)");
    leecher.request(&[wanted]);
    leecher.expect_block(&stage, wanted);
    stage.engine.send(ServeCommand::Add(stage.servable(true)));
    for piece in (0..stage.pieces()).filter(|p| *p != 3) {
        leecher.hear(&format!("Have({piece})"));
    }
    leecher.download(&stage);
    stage.delivered(stage.data.len() as u64 + 20_000);
}

#[test]
fn cancelled_and_repeated_requests_are_served_once_or_not_at_all() {
    // Slow enough that the first block goes out and the others wait for their tokens.
    let stage = Stage::new(Allowance::BytesPerSecond(100_000));
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    let b = stage.blocks();
    leecher.request(&[b[0], b[1], b[2], b[1], b[1], b[3]]);
    leecher.send(&[Message::Cancel(b[2]), Message::Cancel(b[40])]);
    let mut blocks = vec![];
    while blocks.len() < 3 {
        match leecher.next() {
            Said::Block { piece, begin, .. } => blocks.push((piece, begin / BLOCK_BYTES)),
            said => assert_eq!(said, Said::Message(format!("{:?}", Message::Reject(b[2])))),
        }
    }
    assert_eq!(blocks, [(0, 0), (0, 1), (0, 3)]);
    stage.delivered(3 * u64::from(BLOCK_BYTES));
}

#[test]
fn requests_before_the_unchoke_are_rejected() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = stage.leecher();
    let block = stage.blocks()[0];
    leecher.request(&[block]);
    loop {
        match leecher.next() {
            Said::Message(m) if m == format!("{:?}", Message::Reject(block)) => break,
            Said::Block { .. } => panic!("served while choked"),
            _ => {}
        }
    }
    leecher.become_unchoked();
    leecher.request(&[block]);
    leecher.expect_block(&stage, block);
}

#[test]
fn closes_on_nonsense_and_stays_silent_to_strangers() {
    let stage = Stage::new(Allowance::Unlimited);
    let shake = |infohash, peer_id| {
        Handshake { infohash, peer_id, fast: true, extensions: true }.encode().to_vec()
    };
    // What does not start like BitTorrent is taken for a key, and for padding after that.
    let silent = [
        vec![0; 200],
        shake(Infohash([1; 20]), [2; 20]),
        shake(stage.infohash, *b"-LA0001-0123456789ab"),
    ];
    for bytes in silent {
        let mut peer = Leecher::stranger(stage.address);
        peer.stream.write_all(&bytes).expect("writes");
        peer.expect_end();
    }
    let beyond = BlockRequest { piece: stage.pieces(), begin: 0, length: 1 };
    let mut request = vec![];
    Message::Request(beyond).encode(&mut request);
    let nonsense =
        [u32::MAX.to_be_bytes().to_vec(), vec![0x80, 0, 0, 0], vec![0, 8, 0, 0], request];
    for bytes in nonsense {
        let mut peer = stage.stranger();
        peer.become_unchoked();
        peer.stream.write_all(&bytes).expect("writes");
        peer.expect_end();
    }
    wait_until("all are gone", || stage.connected() == 0);
}

#[test]
fn cuts_slow_handshakes_and_silent_peers() {
    let quick = Duration::from_secs(1);
    let timeouts = Timeouts { handshake: quick, idle: quick, ..Timeouts::default() };
    let stage = Stage::with(Allowance::Unlimited, settings(), timeouts, true);
    let mut nothing = Leecher::stranger(stage.address);
    let mut some = Leecher::stranger(stage.address);
    some.stream.write_all(b"\x13BitTorrent").expect("writes");
    nothing.expect_end();
    some.expect_end();
    let mut silent = stage.stranger();
    silent.hear("HaveAll");
    assert!(matches!(silent.next(), Said::Extended { .. }));
    silent.expect_end();
}

#[test]
fn sends_keep_alives_to_those_who_send_theirs() {
    // Deadlines are looked at when the one for the handshake is over, not before.
    let handshake = Duration::from_secs(1);
    let timeouts = Timeouts { keep_alive: handshake / 2, handshake, ..Timeouts::default() };
    let stage = Stage::with(Allowance::Unlimited, settings(), timeouts, true);
    let mut leecher = stage.leecher();
    leecher.hear("HaveAll");
    assert!(matches!(leecher.next(), Said::Extended { .. }));
    leecher.hear("KeepAlive");
}

#[test]
fn limits_connections_in_all_and_by_address() {
    for (all, per_ip) in [(2, 50), (50, 2)] {
        let limits =
            ServeSettings { connections_max: all, connections_per_ip_max: per_ip, ..settings() };
        let stage = Stage::with(Allowance::Unlimited, limits, Timeouts::default(), true);
        let first = stage.leecher();
        let _second = stage.leecher();
        Leecher::raw(stage.address).expect_end();
        wait_until("it shows", || stage.engine.stats().connections_refused_total == 1);
        first.stream.shutdown(Shutdown::Both).expect("shuts");
        wait_until("a place is free", || stage.connected() == 1);
        stage.leecher();
    }
}

#[test]
fn a_peer_that_never_reads_does_not_hold_up_others() {
    let stage = Stage::new(Allowance::BytesPerSecond(8_000_000));
    let mut stuck = Leecher::with_small_window(&stage, 2_000);
    stuck.send(&[Message::Interested]);
    stuck.request(&stage.blocks()[..100]);
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    stuck.request(&stage.blocks()[..100]);
    leecher.download(&stage);
}

#[test]
fn counts_whole_delivered_blocks_only_when_a_peer_dies_in_the_middle() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = Leecher::with_small_window(&stage, 4_000);
    leecher.become_unchoked();
    let small = [
        BlockRequest { piece: 0, begin: 0, length: 16_384 },
        BlockRequest { piece: 1, begin: 7, length: 5_000 },
    ];
    leecher.request(&small);
    small.iter().for_each(|b| leecher.expect_block(&stage, *b));
    // The next one does not fit its window, and it never comes to read it to the end.
    leecher.request(&[BlockRequest { piece: 2, begin: 0, length: 128 * 1024 }]);
    leecher.stream.read_exact(&mut [0; 3_000]).expect("a part of it");
    socket2::SockRef::from(&leecher.stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a reset instead of a farewell");
    drop(leecher);
    wait_until("the reset is seen", || stage.connected() == 0);
    let sum: u64 = stage.engine.stop().iter().map(|d| d.usage.payload_bytes).sum();
    assert_eq!(sum, 16_384 + 5_000);
}

#[test]
fn bytes_in_the_send_buffer_of_a_dead_peer_are_not_counted() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = Leecher::with_small_window(&stage, 4_000);
    leecher.become_unchoked();
    leecher.request(&stage.blocks()[..20]);
    wait_until("more is written than the peer takes", || {
        stage.engine.stats().egress_wire_bytes_total > 5 * u64::from(BLOCK_BYTES)
    });
    leecher.expect_block(&stage, stage.blocks()[0]);
    socket2::SockRef::from(&leecher.stream).set_linger(Some(Duration::ZERO)).expect("sets");
    drop(leecher);
    wait_until("the reset is seen", || stage.connected() == 0);
    let sum: u64 = stage.engine.stop().iter().map(|d| d.usage.payload_bytes).sum();
    assert!((BLOCK_BYTES.into()..=3 * u64::from(BLOCK_BYTES)).contains(&sum), "{sum}");
}

#[test]
fn a_limit_holds_on_the_wire() {
    let rate = 2_000_000;
    let stage = Stage::new(Allowance::BytesPerSecond(rate));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut leecher = stage.leecher();
                leecher.become_unchoked();
                let some = &stage.blocks()[..40];
                leecher.request(some);
                some.iter().for_each(|b| leecher.expect_block(&stage, *b));
            });
        }
    });
    stage.engine.take_usage();
    let sent = stage.engine.stats().egress_wire_bytes_total;
    assert!(sent > 3 * 40 * u64::from(BLOCK_BYTES));
    let allowed = start.elapsed().as_secs_f64() * rate as f64 + 25_000.0;
    assert!(sent as f64 <= allowed, "{sent} of {allowed}");
}

#[test]
fn a_pause_is_silence_and_ends_where_it_began() {
    let stage = Stage::new(Allowance::BytesPerSecond(1_000_000));
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    let b = stage.blocks();
    leecher.request(&b[..50]);
    leecher.expect_block(&stage, b[0]);
    stage.engine.send(ServeCommand::SetAllowance(Allowance::Paused));
    stage.engine.take_usage();
    let sent = stage.engine.stats().egress_wire_bytes_total;
    assert_eq!(stage.engine.stats().peers_unchoked, 0);
    Leecher::raw(stage.address).expect_end();
    leecher.send(&[Message::NotInterested, Message::Interested, Message::KeepAlive]);
    // The wait is for nothing to happen; were anything sent, the figures would show it.
    let calm = Instant::now() + Duration::from_millis(100);
    wait_until("some time has passed", || Instant::now() > calm);
    stage.engine.take_usage();
    // A busy machine's kernel may have sent again what was under way: a block, of the 50.
    let after = stage.engine.stats().egress_wire_bytes_total - sent;
    assert!(after < 2 * u64::from(BLOCK_BYTES), "{after}");
    stage.engine.send(ServeCommand::SetAllowance(Allowance::Unlimited));
    // What was queued comes as a block, or is rejected after the choke.
    let mut next = 1;
    let mut rejected = 0;
    while next + rejected < 50 {
        match leecher.next() {
            Said::Block { data, .. } => {
                assert!(data == stage.expected(b[next]));
                next += 1;
            }
            Said::Message(m) if m.starts_with("Reject") => rejected += 1,
            Said::Message(m) => assert!(m == "Choke" || m == "Unchoke", "{m}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(rejected > 0);
    leecher.become_unchoked_again();
    leecher.download(&stage);
}

#[test]
fn removing_a_content_ends_its_connections() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    stage.engine.send(ServeCommand::Remove { infohash: stage.infohash });
    leecher.expect_end();
    let mut late = Leecher::raw(stage.address);
    let shake =
        Handshake { infohash: stage.infohash, peer_id: [1; 20], fast: true, extensions: true };
    late.stream.write_all(&shake.encode()).expect("writes");
    late.expect_end();
}

#[test]
fn a_file_that_is_gone_or_too_short_ends_the_connection_not_the_engine() {
    let stage = Stage::new(Allowance::Unlimited);
    let path = stage.content_path();
    let file = File::options().write(true).open(&path).expect("opens");
    file.set_len(10_000).expect("cuts");
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    leecher.request(&stage.blocks()[1..2]);
    wait_until("it is closed", || stage.connected() == 0);
    std::fs::write(&path, &stage.data).expect("back again");
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    leecher.download(&stage);
}
