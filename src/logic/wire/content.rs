//! What can be asked for: the contents on offer, by infohash, and which of their pieces are held.

use std::{collections::BTreeMap, sync::Arc};

use super::{BlockRequest, METADATA_PIECE_BYTES, mse};
use crate::logic::{bitfield::Bitfield, infohash::Infohash};

/// A content to be served. Its pieces lie in one file, in order.
#[derive(Clone, Debug)]
pub struct Servable {
    pub infohash: Infohash,
    pub piece_length: u32,
    pub total_bytes: u64,
    /// The bencoded `info` value, for magnet links (BEP 9).
    pub info_bytes: Arc<[u8]>,
    pub have: Bitfield,
}

/// Names a content as long as the shelf lives; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentKey(u64);

#[cfg(test)]
impl ContentKey {
    pub const fn numbered(n: u64) -> ContentKey {
        ContentKey(n)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    #[error("content {0} cannot be served: its sizes do not fit its pieces")]
    Geometry(Infohash),
}

#[derive(Debug)]
pub struct Content {
    servable: Servable,
    /// Pieces that came while it was on the shelf, in order. A connection only remembers how far
    /// along it has told its peer.
    completed: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Shelf {
    keys: BTreeMap<Infohash, ContentKey>,
    /// By what an encrypted handshake names them with.
    disguised: BTreeMap<[u8; 20], ContentKey>,
    contents: BTreeMap<ContentKey, Content>,
    next_key: u64,
}

impl Shelf {
    /// Puts a content up. If it is there already, the pieces it did not have are added.
    pub fn add(&mut self, servable: Servable) -> Result<ContentKey, ShelfError> {
        let pieces = servable.total_bytes.div_ceil(u64::from(servable.piece_length.max(1)));
        if servable.total_bytes == 0
            || servable.piece_length == 0
            || u64::from(servable.have.pieces()) != pieces
        {
            return Err(ShelfError::Geometry(servable.infohash));
        }
        if let Some(key) = self.find(servable.infohash)
            && let Some(content) = self.contents.get_mut(&key)
        {
            servable.have.iter_held().for_each(|piece| content.complete(piece));
            return Ok(key);
        }
        let key = ContentKey(self.next_key);
        self.next_key += 1;
        self.keys.insert(servable.infohash, key);
        self.disguised.insert(mse::disguise(servable.infohash), key);
        self.contents.insert(key, Content { servable, completed: vec![] });
        Ok(key)
    }

    /// A piece is held now. Unknown contents and pieces are ignored.
    pub fn have(&mut self, infohash: Infohash, piece: u32) -> Option<ContentKey> {
        let key = self.find(infohash)?;
        self.contents.get_mut(&key)?.complete(piece);
        Some(key)
    }

    pub fn remove(&mut self, infohash: Infohash) -> Option<ContentKey> {
        let key = self.keys.remove(&infohash)?;
        self.disguised.remove(&mse::disguise(infohash));
        self.contents.remove(&key);
        Some(key)
    }

    pub fn find(&self, infohash: Infohash) -> Option<ContentKey> {
        self.keys.get(&infohash).copied()
    }

    /// By MSE's HASH('req2', infohash).
    pub fn find_disguised(&self, disguised: &[u8; 20]) -> Option<ContentKey> {
        self.disguised.get(disguised).copied()
    }

    pub fn get(&self, key: ContentKey) -> Option<&Content> {
        self.contents.get(&key)
    }
}

impl Content {
    pub fn infohash(&self) -> Infohash {
        self.servable.infohash
    }

    pub fn held(&self) -> &Bitfield {
        &self.servable.have
    }

    pub fn info_bytes(&self) -> &[u8] {
        &self.servable.info_bytes
    }

    /// BEP 9: how many pieces the metadata has.
    pub fn metadata_pieces(&self) -> u32 {
        self.info_bytes().len().div_ceil(METADATA_PIECE_BYTES) as u32
    }

    /// Pieces that came since the content was put up.
    pub fn completed(&self) -> &[u32] {
        &self.completed
    }

    /// Where the block lies in the file; `None` if it reaches over its piece's end (BEP 3 does not
    /// ask for alignment) or there is no such piece.
    pub fn offset_of(&self, block: BlockRequest) -> Option<u64> {
        let length = u64::from(self.servable.piece_length);
        let start = u64::from(block.piece) * length;
        let piece_bytes = self.servable.total_bytes.checked_sub(start)?.min(length);
        let end = u64::from(block.begin) + u64::from(block.length);
        (end <= piece_bytes).then(|| start + u64::from(block.begin))
    }

    fn complete(&mut self, piece: u32) {
        if self.servable.have.set(piece) {
            self.completed.push(piece);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 5 pieces of 32 KiB, the last of 100 bytes.
    pub fn servable(have: Bitfield) -> Servable {
        Servable {
            infohash: Infohash([7; 20]),
            piece_length: 32 * 1024,
            total_bytes: 4 * 32 * 1024 + 100,
            info_bytes: vec![b'x'; 20_000].into(),
            have,
        }
    }

    #[test]
    fn locates_blocks_within_their_piece_only() {
        let mut shelf = Shelf::default();
        let key = shelf.add(servable(Bitfield::full(5))).expect("fits");
        let content = shelf.get(key).expect("just added");
        let at = |piece, begin, length| content.offset_of(BlockRequest { piece, begin, length });
        assert_eq!(at(1, 100, 16_384), Some(32_868));
        assert_eq!(at(0, 16_385, 16_384), None);
        assert_eq!(at(4, 0, 100), Some(131_072));
        assert_eq!(at(4, 1, 100), None);
        assert_eq!(at(5, 0, 0), None);
        assert_eq!(at(u32::MAX, u32::MAX, u32::MAX), None);
    }

    #[test]
    fn refuses_a_bitfield_of_another_content() {
        let error = Shelf::default().add(servable(Bitfield::full(6)));
        assert_eq!(error, Err(ShelfError::Geometry(Infohash([7; 20]))));
    }

    #[test]
    fn adding_again_only_adds_pieces() {
        let mut shelf = Shelf::default();
        let key = shelf.add(servable(Bitfield::empty(5))).expect("fits");
        shelf.have(Infohash([7; 20]), 2);
        assert_eq!(shelf.add(servable(Bitfield::full(5))), Ok(key));
        assert_eq!(shelf.get(key).map(|c| c.completed().to_vec()), Some(vec![2, 0, 1, 3, 4]));
        shelf.remove(Infohash([7; 20]));
        assert!(shelf.get(key).is_none());
        assert_ne!(shelf.add(servable(Bitfield::full(5))), Ok(key));
    }
}
