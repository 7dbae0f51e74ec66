//! Scenes with pieces that are checked before they leave.

use super::*;

/// Interested and unchoked at a shelf on which nothing is proven yet.
fn unproven(fast: bool) -> Scene {
    let mut scene = Scene::new(Bitfield::full(5));
    scene.shelf = Shelf::with_checks();
    scene.shelf.add(servable(Bitfield::full(5))).expect("fits");
    scene.greet(fast, true).expect("a fine handshake");
    scene.hear(&[Message::Interested]).expect("fine");
    scene.session.unchoke(at(0));
    scene.drain();
    scene
}

fn content(scene: &mut Scene) -> &mut Content {
    let key = scene.session.content().expect("named");
    scene.shelf.get_mut(key).expect("on the shelf")
}

fn awaited(scene: &mut Scene) -> Vec<u32> {
    let key = scene.session.content().expect("named");
    scene.session.awaited(scene.shelf.get(key).expect("on the shelf"))
}

fn withdraw(scene: &mut Scene, piece: u32) -> Result<(), Close> {
    assert!(content(scene).withdraw(piece));
    let key = scene.session.content().expect("named");
    scene.session.handle_withdrawn(piece, scene.shelf.get(key).expect("on the shelf"))
}

#[test]
fn a_request_waits_for_its_pieces_check_and_then_leaves_in_order() {
    let mut scene = unproven(true);
    let wanted = [block(2, 0, 100), block(2, 100, 100), block(0, 0, 100), block(1, 0, 100)];
    scene.hear(&wanted.map(Message::Request)).expect("fine");
    assert_eq!(scene.drain(), [""; 0], "and there is nothing to do meanwhile");
    assert_eq!(awaited(&mut scene), [2, 0], "the next two, whoever asks for more");
    content(&mut scene).prove(0);
    assert_eq!(scene.drain(), [""; 0], "in the order of the requests");
    content(&mut scene).prove(2);
    assert_eq!(scene.drain(), ["block 65536+100", "block 65636+100", "block 0+100"]);
    assert_eq!(awaited(&mut scene), [1]);
}

#[test]
fn a_block_in_hand_is_put_back_when_its_piece_comes_into_doubt_unless_it_has_begun() {
    let mut scene = unproven(true);
    scene.hear(&[Message::Request(block(1, 50, 100))]).expect("fine");
    content(&mut scene).prove(1);
    assert!(scene.session.poll_chunk(&scene.shelf).is_some());
    content(&mut scene).doubt_all(&[]);
    assert_eq!(scene.drain(), [""; 0]);
    assert_eq!(awaited(&mut scene), [1]);
    content(&mut scene).prove(1);
    assert!(scene.session.poll_chunk(&scene.shelf).is_some());
    scene.session.handle_sent(20, at(0));
    content(&mut scene).doubt(1);
    assert_eq!(scene.drain(), ["block 32825+93"], "half a block is of use to nobody");
}

#[test]
fn a_withdrawn_piece_is_rejected_and_the_others_are_served() {
    let mut scene = unproven(true);
    let wanted = [block(1, 0, 100), block(2, 0, 100), block(1, 100, 100)];
    scene.hear(&wanted.map(Message::Request)).expect("fine");
    content(&mut scene).prove(2);
    withdraw(&mut scene, 1).expect("it is told");
    let reject = |b| format!("{:?}", Message::Reject(b));
    assert_eq!(scene.drain(), [reject(wanted[0]), reject(wanted[2]), "block 65536+100".into()]);
    scene.hear(&[Message::Request(wanted[0])]).expect("it may not have heard yet");
    assert_eq!(scene.drain(), [reject(wanted[0])]);
    scene.shelf.have(Infohash([7; 20]), 1);
    content(&mut scene).prove(1);
    scene.hear(&[Message::Request(wanted[0])]).expect("fine");
    assert_eq!(scene.drain(), ["Have(1)", "block 32768+100"]);
}

#[test]
fn whoever_cannot_be_told_or_does_not_listen_has_to_come_again_without_offence() {
    let mut plain = unproven(false);
    plain.hear(&[Message::Request(block(1, 0, 100))]).expect("fine");
    assert_eq!(withdraw(&mut plain, 1), Err(Close::PieceWithdrawn));
    assert!(!Close::PieceWithdrawn.is_abuse());

    let mut begun = unproven(true);
    begun.hear(&[Message::Request(block(1, 0, 100))]).expect("fine");
    content(&mut begun).prove(1);
    assert!(begun.session.poll_chunk(&begun.shelf).is_some());
    begun.session.handle_sent(20, at(0));
    assert_eq!(withdraw(&mut begun, 1), Err(Close::PieceWithdrawn), "the rest may be wrong");

    let mut deaf = unproven(true);
    withdraw(&mut deaf, 1).expect("it has asked for nothing of it");
    let again = || Message::Request(block(1, 0, 100));
    let asks = (0..1_000).find_map(|_| deaf.hear(&[again()]).err());
    assert_eq!(asks, Some(Close::PieceWithdrawn));
}
