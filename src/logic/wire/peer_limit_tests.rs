//! What one peer may send, and what it can make us keep.

use super::*;
use crate::logic::wire::MAX_PEER_MEMORY_BYTES;

#[test]
fn a_peer_that_downloads_never_sends_too_much_and_one_that_only_asks_does() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    for _ in 0..20_000 {
        scene.hear(&[Message::Request(block(0, 0, 16_384))]).expect("it is served");
        scene.drain();
    }
    let mut asked = 0;
    let end = loop {
        match scene.hear(&[Message::Request(block(0, 0, 16_384)), Message::Have(1)]) {
            Ok(()) => asked += 1,
            Err(why) => break why,
        }
    };
    assert_eq!(end, Close::TooMuch);
    assert!((2_500..4_000).contains(&asked), "{asked}");
}

#[test]
fn a_peer_may_repeat_a_full_queue_after_a_choke_and_not_for_ever() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    scene.session.choke();
    scene.drain();
    let mut rejected = 0;
    let end = loop {
        match scene.hear(&[Message::Request(block(0, rejected, 100))]) {
            Ok(()) => rejected += 1,
            Err(why) => break why,
        }
        scene.drain();
    };
    assert_eq!(end, Close::TooMuch);
    assert!((MAX_QUEUED_REQUESTS as u32..2_000).contains(&rejected), "{rejected}");
}

#[test]
fn what_is_passed_over_has_a_limit_too() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let bits = vec![0; 200_000];
    let often = (0..100).find(|_| scene.hear(&[Message::Bitfield(&bits)]) == Err(Close::TooMuch));
    assert!(often.is_some_and(|n| n > 3), "{often:?}");
    let mut scene = Scene::ready(Bitfield::full(5), true);
    let single = (0..100_000).find(|_| scene.feed(&[0]).is_err());
    assert!(single.is_some(), "single bytes cost a wake-up each");
}

#[test]
fn metadata_beyond_the_budget_is_rejected_newest_first() {
    let mut scene = Scene::ready(Bitfield::full(5), true);
    scene.hear(&[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" }]).expect("fine");
    let ask = |piece| MetadataMessage::Request { piece }.encode();
    for piece in [0, 1, 1] {
        scene.hear(&[Message::Extended { id: 1, payload: &ask(piece) }]).expect("fine");
    }
    assert_eq!(scene.session.metadata_asked(), 3);
    scene.session.limit_metadata(1);
    assert_eq!(scene.session.metadata_asked(), 0);
    scene.session.limit_metadata(0);
    // Two rejections, then the data of the one that came first, too long for our own assembler.
    assert_eq!(scene.drain(), ["Extended(9)", "Extended(9)", "Other(20)"]);
    assert_eq!(scene.session.take_metadata_requests(), 3);
}

proptest! {
    #[test]
    fn nobody_makes_us_keep_more_than_the_limit(
        messages in prop::collection::vec((0u8..6, 0u32..5, any::<u8>()), 1..60),
    ) {
        let mut scene = Scene::ready(Bitfield::full(5), true);
        scene.hear(&[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" }]).expect("fine");
        let ask = MetadataMessage::Request { piece: 1 }.encode();
        let mut most = 0;
        for (kind, piece, n) in messages {
            let n = u32::from(n);
            let heard = match kind {
                0 => (0..n * 8).try_for_each(|i| scene.hear(&[Message::Request(block(piece % 4, i, 100 + n))])),
                1 => (0..n).try_for_each(|_| scene.hear(&[Message::Extended { id: 1, payload: &ask }])),
                2 => scene.feed(&[0, 0, 0x1f, 0xf0, 20, 5]),
                3 => { scene.session.choke(); Ok(()) }
                4 => { scene.session.unchoke(scene.now); Ok(()) }
                _ => {
                    // Some of it leaves, nothing arrives.
                    if let Some(bytes) = scene.session.poll_chunk(&scene.shelf).map(|c| c.stream_bytes()) {
                        scene.session.handle_sent(bytes, scene.now);
                    }
                    Ok(())
                }
            };
            most = most.max(scene.session.kept_bytes());
            prop_assert!(most <= MAX_PEER_MEMORY_BYTES, "{most}");
            if heard.is_err() { break }
        }
    }
}
