//! `.torrent` files: the operator's, and those that an owner preloads.

use larder::logic::{
    infohash::Infohash,
    metainfo::{Metainfo, wrap_info},
};

use super::Verdict;

/// Pieces whose sizes are added up, of a torrent that may claim millions.
const PIECES_LOOKED_AT: u32 = 1_000;

pub fn check(data: &[u8]) -> Verdict {
    let Ok(read) = Metainfo::parse(data) else { return Verdict::Refused };
    assert_eq!(read.infohash, Infohash::of_info(&read.info_bytes));
    assert_eq!(Metainfo::parse_expecting(data, read.infohash).as_ref(), Ok(&read));
    pieces_fill_the_content(&read);
    let lengths = read.files.iter().map(|file| file.length);
    assert_eq!(lengths.sum::<u64>(), read.total_bytes);
    // The hub puts other addresses around the same `info`: nothing else may change by that.
    let mut rewrapped = Metainfo::parse(&wrap_info(&read.info_bytes, &[], &[])).expect("was read");
    assert_eq!((rewrapped.announce.take(), rewrapped.web_seeds.len()), (None, 0));
    rewrapped.announce.clone_from(&read.announce);
    rewrapped.web_seeds.clone_from(&read.web_seeds);
    assert_eq!(rewrapped, read);
    Verdict::Accepted
}

fn pieces_fill_the_content(read: &Metainfo) {
    let pieces = read.piece_count();
    let mut end = 0;
    for piece in 0..pieces.min(PIECES_LOOKED_AT) {
        assert_eq!(read.piece_offset(piece), end);
        let bytes = read.piece_bytes(piece).expect("it is one of its pieces");
        assert!(bytes > 0);
        end += u64::from(bytes);
    }
    if pieces <= PIECES_LOOKED_AT {
        assert_eq!(end, read.total_bytes);
    }
    assert_eq!(read.piece_bytes(pieces), None);
    assert_eq!(read.piece_bytes(u32::MAX), None);
}
