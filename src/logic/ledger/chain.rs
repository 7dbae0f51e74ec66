//! The ledger's own chain: an entry for each change of an hour's lines, each naming the one before by its
//! hash. A report signs the last, so that what is changed later by another hand can be found. Must not
//! know about storage.

use aws_lc_rs::digest::{Context, SHA256};

use super::super::{
    infohash::Infohash,
    now::UtcHour,
    usage::{PeerClass, Usage},
};

pub type Hash = [u8; 32];

/// What the first entry names as the one before it.
pub const BEGINNING: Hash = [0; 32];

/// Over all lines of an hour, in order of content and class.
pub fn lines_hash(lines: impl IntoIterator<Item = (Infohash, PeerClass, Usage)>) -> Hash {
    let mut hash = Context::new(&SHA256);
    for (infohash, class, usage) in lines {
        hash.update(&infohash.0);
        hash.update(class.as_str().as_bytes());
        hash.update(&usage.payload_bytes.to_be_bytes());
        hash.update(&usage.wire_bytes.to_be_bytes());
    }
    finish(hash)
}

/// Of entry `number`, which says that the lines of `hour` have this hash.
pub fn entry_hash(previous: &Hash, number: u64, hour: UtcHour, lines: &Hash) -> Hash {
    let mut hash = Context::new(&SHA256);
    hash.update(previous);
    hash.update(&number.to_be_bytes());
    hash.update(&hour.0.to_be_bytes());
    hash.update(lines);
    finish(hash)
}

fn finish(hash: Context) -> Hash {
    *hash.finish().as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_line_and_of_an_entry_changes_the_hash() {
        let line = |content, class, payload_bytes, wire_bytes| {
            (Infohash([content; 20]), class, Usage { payload_bytes, wire_bytes })
        };
        let (wan, lan) = (PeerClass::Wan, PeerClass::Lan);
        let hashes = [
            lines_hash([]),
            lines_hash([line(1, wan, 5, 6)]),
            lines_hash([line(2, wan, 5, 6)]),
            lines_hash([line(1, lan, 5, 6)]),
            lines_hash([line(1, wan, 6, 6)]),
            lines_hash([line(1, wan, 5, 7)]),
            lines_hash([line(1, wan, 5, 6), line(2, wan, 5, 6)]),
            entry_hash(&BEGINNING, 1, UtcHour(7), &BEGINNING),
            entry_hash(&[1; 32], 1, UtcHour(7), &BEGINNING),
            entry_hash(&BEGINNING, 2, UtcHour(7), &BEGINNING),
            entry_hash(&BEGINNING, 1, UtcHour(8), &BEGINNING),
            entry_hash(&BEGINNING, 1, UtcHour(7), &[1; 32]),
        ];
        let different: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(different.len(), hashes.len());
    }
}
