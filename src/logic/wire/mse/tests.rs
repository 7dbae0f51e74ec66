//! Encrypted handshakes in memory, with an initiator that can also misbehave.

use std::time::Duration;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{initiator::Initiator, *};
use crate::logic::{
    bitfield::Bitfield,
    infohash::Infohash,
    wire::{HANDSHAKE_BYTES, content::tests::servable},
};

const OURS: Infohash = Infohash([7; 20]);
const PLAINTEXT: u32 = 1;
const RC4: u32 = 2;
/// Longer than the stretches of a handshake, so that its end can be told from what follows.
const PAYLOAD: &[u8] = &[b'p'; 700];

fn shelf() -> Shelf {
    let mut shelf = Shelf::default();
    shelf.add(servable(Bitfield::full(5))).expect("fits");
    shelf
}

/// What a connection came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    opened: Vec<u8>,
    answer: Vec<u8>,
    encrypts: bool,
    result: Result<(), Close>,
}

/// Feeds a stream to a fresh connection of a device that always draws the same keys.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (shelf, mut keyring) = (shelf(), Keyring::new(StdRng::seed_from_u64(5)));
    let mut envelope = Envelope::default();
    let (mut opened, mut result) = (vec![], Ok(()));
    for piece in pieces {
        let mut piece = piece.to_vec();
        match envelope.open(&mut piece, &shelf, &mut keyring, Monotonic::START) {
            Ok(part) => {
                opened.extend_from_slice(part.start);
                opened.extend_from_slice(part.rest);
            }
            Err(why) => {
                result = Err(why);
                break;
            }
        }
    }
    let encrypts = envelope.outgoing().is_some();
    Outcome { opened, answer: envelope.answer().to_vec(), encrypts, result }
}

/// All that the initiator would say, with `PAYLOAD` cut in two: a part in IA, the rest after it.
fn stream(initiator: &mut Initiator, in_ia: usize) -> Vec<u8> {
    initiator.payload = PAYLOAD[..in_ia].to_vec();
    let mut bytes = initiator.hello();
    let theirs = feed([&bytes[..]]).answer;
    let mut reply = initiator.reply(theirs[..96].try_into().expect("a key"));
    bytes.extend(&reply.bytes);
    let mut rest = PAYLOAD[in_ia..].to_vec();
    if initiator.crypto_provide & PLAINTEXT == 0 {
        reply.outgoing.apply(&mut rest);
    }
    bytes.extend(rest);
    bytes
}

fn why(stream: &[u8]) -> Close {
    feed([stream]).result.expect_err("it must be refused")
}

#[test]
fn agrees_on_plaintext_when_it_is_offered_and_on_rc4_when_not() {
    for (provide, expected) in [(PLAINTEXT, 1), (RC4, 2), (PLAINTEXT | RC4, 1), (0xffff_fffe, 2)] {
        let mut initiator = Initiator::to(OURS, provide);
        let outcome = feed([&stream(&mut initiator, 68)[..]]);
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(outcome.opened, PAYLOAD);
        assert_eq!(outcome.encrypts, expected == RC4);
        let (key, rest) = outcome.answer.split_first_chunk().expect("a key");
        let mut reply = initiator.reply(key);
        let (pad_b, rest) = rest.split_at(rest.len() - 14);
        assert!(pad_b.len() <= PAD_BYTES_MAX);
        assert_eq!(rest[..8], reply.marker);
        let selection = rest[8..].try_into().expect("six bytes");
        assert_eq!(reply.read_selection(selection), (expected, 0));
    }
}

#[test]
fn what_goes_out_after_the_handshake_goes_on_in_the_same_key_stream() {
    let (shelf, mut keyring) = (shelf(), Keyring::new(StdRng::seed_from_u64(5)));
    let mut initiator = Initiator::to(OURS, RC4);
    let mut bytes = stream(&mut initiator, 0);
    let mut envelope = Envelope::default();
    envelope.open(&mut bytes, &shelf, &mut keyring, Monotonic::START).expect("a fine handshake");
    let answer = envelope.answer().to_vec();
    envelope.handle_answer_sent(100);
    assert_eq!(envelope.answer(), &answer[100..]);
    envelope.handle_answer_sent(answer.len() - 100);
    assert_eq!(envelope.answer(), b"");
    let mut said = *b"to the peer";
    envelope.outgoing().expect("encrypted").apply(&mut said);
    let mut reply = initiator.reply(answer[..96].try_into().expect("a key"));
    reply.incoming.skip(6);
    reply.incoming.apply(&mut said);
    assert_eq!(&said, b"to the peer");
    assert_eq!(envelope.content(), shelf.find(OURS));
}

#[test]
fn a_key_that_starts_like_a_plain_handshake_is_a_key() {
    let mut initiator = Initiator::to(OURS, RC4);
    let first = |i: &Initiator| i.hello()[0];
    let mut seeds = 0..u16::MAX;
    while first(&initiator) != PROTOCOL[0] {
        let seed = seeds.next().expect("one in 256 does").to_be_bytes();
        initiator.seed[..2].copy_from_slice(&seed);
    }
    let bytes = stream(&mut initiator, 68);
    assert_eq!(feed([&bytes[..1], &bytes[1..]]).opened, PAYLOAD);
}

#[test]
fn refuses_garbage_and_lies() {
    let made = |change: fn(&mut Initiator)| {
        let mut initiator = Initiator::to(OURS, RC4);
        change(&mut initiator);
        why(&stream(&mut initiator, 10))
    };
    assert_eq!(why(&[0; 200]), MseError::WeakKey.into());
    assert_eq!(why(&[255; 96]), MseError::WeakKey.into());
    assert_eq!(why(&[9; 96 + 512 + 20]), MseError::NoMarker.into(), "nothing but padding");
    assert_eq!(made(|i| i.pad_a = 513), MseError::NoMarker.into());
    assert_eq!(made(|i| i.infohash = Infohash([8; 20])), Close::UnknownInfohash);
    assert_eq!(made(|i| i.crypto_provide = 0), MseError::NoMethod(0).into());
    assert_eq!(made(|i| i.crypto_provide = 0x8c), MseError::NoMethod(0x8c).into());
    assert_eq!(made(|i| i.pad_c = 513), MseError::Padding(513).into());
    assert_eq!(made(|i| i.pad_c = 65_535), MseError::Padding(65_535).into());

    let mut initiator = Initiator::to(OURS, RC4);
    let mut wrong_vc = stream(&mut initiator, 10);
    wrong_vc[96 + 100 + 40] ^= 1;
    assert_eq!(why(&wrong_vc), MseError::WrongKey.into());
    assert!(why(&wrong_vc).is_abuse());
}

#[test]
fn accepts_the_longest_padding_and_none() {
    for (pad_a, pad_c) in [(0, 0), (512, 512), (0, 512), (512, 0)] {
        let mut initiator = Initiator { pad_a, pad_c, ..Initiator::to(OURS, RC4) };
        assert_eq!(feed([&stream(&mut initiator, 0)[..]]).opened, PAYLOAD);
    }
}

#[test]
fn a_flood_of_handshakes_is_cut_before_it_costs_anything() {
    let (shelf, mut keyring) = (shelf(), Keyring::new(StdRng::seed_from_u64(5)));
    let mut results = (0..HANDSHAKES_PER_SECOND_MAX + 1).map(|_| {
        let mut hello = Initiator::to(OURS, RC4).hello();
        let mut envelope = Envelope::default();
        envelope.open(&mut hello, &shelf, &mut keyring, Monotonic::START).map(|_| ())
    });
    assert!(results.by_ref().take(HANDSHAKES_PER_SECOND_MAX as usize).all(|r| r.is_ok()));
    let busy = Close::from(MseError::TooMany);
    assert_eq!(results.next(), Some(Err(busy)));
    assert!(!busy.is_abuse(), "it may be an honest peer");
}

#[test]
fn a_connection_that_failed_costs_nothing_more() {
    let (shelf, mut keyring) = (shelf(), Keyring::new(StdRng::seed_from_u64(5)));
    let mut envelope = Envelope::default();
    let mut open = |mut bytes: Vec<u8>, keyring: &mut Keyring| {
        envelope.open(&mut bytes, &shelf, keyring, Monotonic::START).map(|o| o.rest.len())
    };
    assert_eq!(open(vec![0; 96], &mut keyring), Err(MseError::WeakKey.into()));
    for _ in 0..2 * HANDSHAKES_PER_SECOND_MAX {
        assert_eq!(open(Initiator::to(OURS, RC4).hello(), &mut keyring), Ok(0));
    }
    let later = Monotonic(Duration::from_millis(1));
    let mut hello = Initiator::to(OURS, RC4).hello();
    assert!(Envelope::default().open(&mut hello, &shelf, &mut keyring, later).is_ok());
}

#[test]
fn a_half_open_handshake_is_small() {
    let hello = [Initiator::to(OURS, RC4).hello(), vec![1; 300]].concat();
    let outcome = feed(hello.chunks(1));
    assert_eq!(outcome.result, Ok(()));
    assert!(outcome.answer.len() <= 96 + PAD_BYTES_MAX);
    assert!(size_of::<Envelope>() <= 64, "{}", size_of::<Envelope>());
    assert!(size_of::<Responder>() <= 200, "{}", size_of::<Responder>());
    assert!(size_of::<Agreement>() <= 600, "{}", size_of::<Agreement>());
}

/// Cuts `bytes` at the places given, in whatever order.
fn cut<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = at.iter().map(|i| i.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_of_the_stream_gives_the_same(
        provide in 1u32..4,
        pads in (0..=PAD_BYTES_MAX, 0..=PAD_BYTES_MAX),
        in_ia in 0..=PAYLOAD.len(),
        at: Vec<prop::sample::Index>,
    ) {
        let (pad_a, pad_c) = pads;
        let mut initiator = Initiator { pad_a, pad_c, ..Initiator::to(OURS, provide) };
        let bytes = stream(&mut initiator, in_ia);
        let whole = feed([&bytes[..]]);
        prop_assert_eq!(&whole.opened, PAYLOAD);
        prop_assert_eq!(&feed(cut(&bytes, &at)), &whole);
        prop_assert_eq!(&feed(bytes.chunks(1)), &whole);
    }

    #[test]
    fn a_plain_stream_passes_untouched(rest: Vec<u8>, at: Vec<prop::sample::Index>) {
        let bytes = [&PROTOCOL[..], &rest].concat();
        let outcome = feed(cut(&bytes, &at));
        prop_assert_eq!(&outcome.opened, &bytes);
        prop_assert_eq!(outcome.answer, b"");
        prop_assert!(!outcome.encrypts);
    }

    #[test]
    fn random_bytes_never_panic_and_open_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..1_500),
        at: Vec<prop::sample::Index>,
    ) {
        let outcome = feed(cut(&bytes, &at));
        prop_assert!(outcome.opened.is_empty() || bytes.starts_with(PROTOCOL));
        prop_assert_eq!(outcome, feed(bytes.chunks(1)));
    }

    /// As the one before, but deep enough to reach the fields behind the key.
    #[test]
    fn a_damaged_handshake_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end: prop::sample::Index,
    ) {
        let mut bytes = stream(&mut Initiator::to(OURS, RC4), HANDSHAKE_BYTES);
        let length = bytes.len();
        damage.iter().for_each(|(at, byte)| bytes[at.index(length)] ^= byte);
        bytes.truncate(end.index(length + 1));
        prop_assert_eq!(feed([&bytes[..]]), feed(bytes.chunks(1)));
    }
}
