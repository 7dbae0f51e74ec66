//! `ut_metadata` (BEP 9): messages as they may come, and our answers read back.

use larder::logic::wire::{METADATA_PIECE_BYTES, MetadataMessage};

use super::Verdict;

pub fn check(data: &[u8]) -> Verdict {
    answers_carry_all_of_it(data);
    let Ok(message) = MetadataMessage::parse(data) else { return Verdict::Refused };
    if message != MetadataMessage::Unknown {
        assert_eq!(MetadataMessage::parse(&message.encode()), Ok(message));
    }
    Verdict::Accepted
}

/// Takes the same bytes for the metadata that someone asks us for.
fn answers_carry_all_of_it(info: &[u8]) {
    let pieces = info.len().div_ceil(METADATA_PIECE_BYTES) as u32;
    let mut got = vec![];
    for piece in 0..pieces {
        let answer = MetadataMessage::answer(info, piece).encode();
        match MetadataMessage::parse(&answer) {
            Ok(MetadataMessage::Data { piece: n, total_bytes, data }) => {
                assert_eq!((n, total_bytes as usize), (piece, info.len()));
                got.extend_from_slice(data);
            }
            other => panic!("piece {piece} of {pieces} is answered with {other:?}"),
        }
    }
    assert_eq!(got, info);
    for beyond in [pieces, u32::MAX] {
        let answer = MetadataMessage::answer(info, beyond);
        assert_eq!(answer, MetadataMessage::Reject { piece: beyond });
    }
}
