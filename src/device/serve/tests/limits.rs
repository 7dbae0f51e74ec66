//! What the engine does with those who ask for too much, over real sockets.

use std::net::Ipv4Addr;

use super::{stage::*, *};

/// So few places that the third of four handshakes displaces the first.
fn small_house() -> ServeSettings {
    ServeSettings { connections_max: 8, ..settings() }
}

fn stage_with(settings: ServeSettings) -> Stage {
    Stage::with(Allowance::Unlimited, settings, Timeouts::default(), true)
}

#[test]
fn silent_connections_make_room_for_each_other_and_for_honest_peers() {
    let stage = stage_with(small_house());
    let mut silent: Vec<_> = (0..20).map(|_| Leecher::stranger(stage.address)).collect();
    let mut leecher = stage.stranger();
    leecher.become_unchoked();
    leecher.download(&stage);
    // All but the last of them are gone, and nobody was refused.
    silent[..18].iter_mut().for_each(Leecher::expect_end);
    assert_eq!(stage.engine.stats().connections_refused_total, 0);
}

#[test]
fn an_address_that_breaks_the_protocol_twice_is_banned_and_its_neighbour_is_not() {
    let stage = Stage::new(Allowance::Unlimited);
    let home = Ipv4Addr::new(127, 2, 0, 1);
    for _ in 0..2 {
        let mut peer = Leecher::from(home, stage.address);
        peer.greet(stage.infohash, true);
        peer.stream.write_all(&u32::MAX.to_be_bytes()).expect("writes");
        while peer.stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        wait_until("it is closed", || stage.connected() == 0);
    }
    Leecher::from(home, stage.address).expect_end();
    assert_eq!(stage.engine.stats().connections_refused_total, 1);
    let mut neighbour = Leecher::from(Ipv4Addr::new(127, 2, 0, 2), stage.address);
    neighbour.greet(stage.infohash, true);
    neighbour.become_unchoked();
    neighbour.download(&stage);
}

#[test]
fn a_flood_of_requests_ends_the_connection_and_a_download_does_not() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut flooder = stage.stranger();
    flooder.become_unchoked();
    let block = stage.blocks()[0];
    let mut request = vec![];
    (0..1_000).for_each(|_| Message::Request(block).encode(&mut request));
    // Duplicates: they cost nothing in blocks, and are never rejected.
    while flooder.stream.write_all(&request).is_ok() {}
    wait_until("it is cut", || stage.connected() == 0);
    let mut leecher = stage.stranger();
    leecher.become_unchoked();
    (0..5).for_each(|_| leecher.download(&stage));
}

#[test]
fn metadata_is_rejected_when_an_address_has_had_plenty() {
    let stage = Stage::new(Allowance::Unlimited);
    let home = Ipv4Addr::new(127, 2, 0, 3);
    let (mut data, mut rejected) = (0, 0);
    // Four rounds of three pieces on each connection are its own limit.
    for _ in 0..25 {
        let mut leecher = Leecher::from(home, stage.address);
        leecher.greet(stage.infohash, true);
        leecher.send(&[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" }]);
        for piece in 0..12 {
            let payload = MetadataMessage::Request { piece: piece % 3 }.encode();
            leecher.send(&[Message::Extended { id: 1, payload: &payload }]);
        }
        let mut answers = 0;
        while answers < 12 {
            let Said::Extended { id: 9, payload } = leecher.next() else { continue };
            match MetadataMessage::parse(&payload).expect("well-formed") {
                MetadataMessage::Data { .. } => data += 1,
                MetadataMessage::Reject { .. } => rejected += 1,
                other => panic!("{other:?}"),
            }
            answers += 1;
        }
    }
    let metadata = crate::logic::admission::METADATA;
    assert!((metadata.at_once..300).contains(&data), "{data}");
    assert_eq!(data + rejected, 300);
}

#[test]
fn the_second_connection_of_a_peer_goes_while_the_first_works() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut first = stage.leecher();
    first.become_unchoked();
    let mut second = Leecher::raw(stage.address);
    second.peer_id = first.peer_id;
    second.shake(stage.infohash);
    second.expect_end();
    first.download(&stage);
}

#[test]
fn a_stranger_with_a_copied_id_neither_displaces_nor_blocks_anyone() {
    let stage = Stage::new(Allowance::Unlimited);
    let mut honest = stage.stranger();
    honest.become_unchoked();
    let mut copy = Leecher::stranger(stage.address);
    copy.peer_id = honest.peer_id;
    copy.greet(stage.infohash, true);
    honest.download(&stage);
    // And the other way round: the honest one comes second.
    let mut early = Leecher::stranger(stage.address);
    early.greet(stage.infohash, true);
    let mut late = Leecher::stranger(stage.address);
    late.peer_id = early.peer_id;
    late.greet(stage.infohash, true);
    late.become_unchoked();
    late.download(&stage);
}

#[test]
fn one_content_leaves_places_for_others() {
    let settings = ServeSettings { connections_per_content_max: 2, ..settings() };
    let stage = stage_with(settings);
    let other = Servable { infohash: Infohash([1; 20]), ..stage.servable(true) };
    stage.engine.send(ServeCommand::Add(other));
    let _here = [stage.stranger(), stage.stranger()];
    let mut third = Leecher::stranger(stage.address);
    third.shake(stage.infohash);
    third.expect_end();
    let mut other = Leecher::stranger(stage.address);
    other.greet(Infohash([1; 20]), true);
    assert_eq!(stage.connected(), 3);
}
