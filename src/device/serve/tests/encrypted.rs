//! Encrypted connections over real sockets: whole downloads in both forms, and what must end them.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use super::{super::*, stage::*};
use crate::logic::{
    governor::WireCost,
    infohash::Infohash,
    wire::{BlockRequest, Handshake, mse::HANDSHAKES_PER_SECOND_MAX, mse::initiator::Initiator},
};

const PLAINTEXT: u32 = 1;
const RC4: u32 = 2;

#[test]
fn a_full_download_is_counted_to_the_byte_in_both_forms() {
    for form in [PLAINTEXT, RC4] {
        let stage = Stage::new(Allowance::Unlimited);
        let mut leecher = Leecher::encrypted(stage.address, stage.infohash, form);
        leecher.hear("HaveAll");
        leecher.become_unchoked();
        leecher.download(&stage);
        let usage = stage.delivered(stage.data.len() as u64);
        let least = WireCost::to(stage.address.ip(), LOOPBACK_SEGMENT).of(leecher.received_bytes);
        assert!(usage.wire_bytes >= least, "{usage:?}");
        assert!(usage.wire_bytes as f64 <= 1.05 * least as f64, "{usage:?}");
        assert_eq!(stage.engine.stats().egress_wire_bytes_total, usage.wire_bytes);
        assert_eq!(stage.engine.stop(), [], "everything was told before");
    }
}

#[test]
fn takes_a_handshake_without_initial_payload() {
    for form in [PLAINTEXT, RC4] {
        let stage = Stage::new(Allowance::Unlimited);
        let mut leecher = Leecher::raw(stage.address);
        leecher.encrypt(&Initiator::to(stage.infohash, form), form);
        leecher.greet(stage.infohash, true);
        leecher.become_unchoked();
        leecher.request(&stage.blocks()[..1]);
        leecher.expect_block(&stage, stage.blocks()[0]);
    }
}

/// Every socket that is full cuts a chunk in the middle of the key stream.
#[test]
fn a_slow_reader_gets_an_unbroken_key_stream() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = Leecher::slow_and_encrypted(&stage, 4_000);
    leecher.become_unchoked();
    let blocks: Vec<_> = stage.blocks()[..100].to_vec();
    leecher.request(&blocks);
    wait_until("more is written than the peer takes", || {
        stage.engine.stats().egress_wire_bytes_total > 5 * u64::from(BLOCK_BYTES)
    });
    blocks.iter().for_each(|b| leecher.expect_block(&stage, *b));
    stage.delivered(blocks.iter().map(|b| u64::from(b.length)).sum());
}

#[test]
fn a_limit_holds_for_encrypted_bytes_too() {
    let rate = 2_000_000;
    let stage = Stage::new(Allowance::BytesPerSecond(rate));
    let start = Instant::now();
    let mut leecher = Leecher::encrypted(stage.address, stage.infohash, RC4);
    leecher.become_unchoked();
    let large = BlockRequest { piece: 2, begin: 5, length: 100_000 };
    leecher.request(&[large]);
    leecher.expect_block(&stage, large);
    leecher.request(&stage.blocks()[..60]);
    stage.blocks()[..60].iter().for_each(|b| leecher.expect_block(&stage, *b));
    stage.engine.take_usage();
    let sent = stage.engine.stats().egress_wire_bytes_total;
    assert!(sent > 60 * u64::from(BLOCK_BYTES) + 100_000);
    let allowed = start.elapsed().as_secs_f64() * rate as f64 + 25_000.0;
    assert!(sent as f64 <= allowed, "{sent} of {allowed}");
}

#[test]
fn a_pause_chokes_an_encrypted_peer_in_its_own_key_stream() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut leecher = Leecher::encrypted(stage.address, stage.infohash, RC4);
    leecher.become_unchoked();
    stage.engine.send(ServeCommand::SetAllowance(Allowance::Paused));
    leecher.hear("Choke");
    stage.engine.send(ServeCommand::SetAllowance(Allowance::Unlimited));
    leecher.hear("Unchoke");
    leecher.download(&stage);
}

#[test]
fn lies_in_the_handshake_end_the_connection() {
    let stage = Stage::new(Allowance::Unlimited);
    let mine = |provide| Initiator::to(stage.infohash, provide);
    let lies = [
        Initiator::to(Infohash([1; 20]), RC4),
        Initiator { pad_a: 513, ..mine(RC4) },
        Initiator { pad_c: 513, ..mine(RC4) },
        mine(0),
        mine(4),
    ];
    for lie in lies {
        let mut peer = Leecher::stranger(stage.address);
        peer.write(lie.hello());
        let mut key = [0; 96];
        peer.stream.read_exact(&mut key).expect("our key");
        // It may be closed before all of it is written.
        let _ = peer.stream.write_all(&lie.reply(&key).bytes);
        peer.expect_cut();
    }
    wait_until("all are gone", || stage.connected() == 0);
    assert_eq!(stage.engine.take_usage(), [], "no content, no usage");
}

#[test]
fn the_handshake_inside_must_name_the_same_content() {
    let stage = Stage::new(Allowance::Unlimited);
    let other = Servable { infohash: Infohash([1; 20]), ..stage.servable(true) };
    stage.engine.send(ServeCommand::Add(other));
    let mut peer = Leecher::raw(stage.address);
    peer.encrypt(&Initiator::to(stage.infohash, RC4), RC4);
    let peer_id = *b"-TT0001-leecherleech";
    let infohash = Infohash([1; 20]);
    peer.write(Handshake { infohash, peer_id, fast: true, extensions: true }.encode().to_vec());
    peer.expect_end();
}

#[test]
fn cuts_slow_encrypted_handshakes() {
    let timeouts = Timeouts { handshake: Duration::from_secs(1), ..Timeouts::default() };
    let stage = Stage::with(Allowance::Unlimited, settings(), timeouts, true);
    let hello = Initiator::to(stage.infohash, RC4).hello();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &hello[..50], &hello] {
        let mut peer = Leecher::stranger(stage.address);
        peer.write(bytes.to_vec());
        peer.expect_cut();
    }
}

#[test]
fn a_flood_of_handshakes_is_turned_away_and_plain_peers_are_not() {
    const FLOOD: u32 = 5 * HANDSHAKES_PER_SECOND_MAX;
    let room = ServeSettings { connections_max: 800, connections_per_ip_max: 200, ..settings() };
    let stage = Stage::with(Allowance::Unlimited, room, Timeouts::default(), true);
    let hello = Initiator::to(stage.infohash, RC4).hello();
    // All ask before the first answer is read, so long before so many are due.
    let mut peers: Vec<_> = (0..FLOOD).map(|_| Leecher::raw(stage.address)).collect();
    peers.iter_mut().for_each(|p| p.write(hello.clone()));
    let answered = peers.iter_mut().map(|p| p.stream.read_exact(&mut [0; 96]));
    let answered = answered.filter(Result::is_ok).count() as u32;
    assert!((HANDSHAKES_PER_SECOND_MAX..FLOOD).contains(&answered), "{answered} of {FLOOD}");
    let mut leecher = stage.leecher();
    leecher.become_unchoked();
    leecher.download(&stage);
}
