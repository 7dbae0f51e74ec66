//! What can be asked for: the contents on offer, by infohash, which of their pieces are held, and which
//! of those may leave. Checks no piece itself; it is told.

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
    /// Of the held pieces, those that may leave: each was checked, and nothing has happened since that
    /// could have changed its bytes.
    proven: Bitfield,
    /// Pieces that were on offer and turned out bad, until they are held again. Peers may still ask.
    withdrawn: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Shelf {
    /// Somebody checks pieces before they leave. If not, what is held may leave.
    checks: bool,
    keys: BTreeMap<Infohash, ContentKey>,
    /// By what an encrypted handshake names them with.
    disguised: BTreeMap<[u8; 20], ContentKey>,
    contents: BTreeMap<ContentKey, Content>,
    next_key: u64,
}

impl Shelf {
    /// On which a held piece waits until it is proven.
    pub fn with_checks() -> Shelf {
        Shelf { checks: true, ..Shelf::default() }
    }

    /// Puts a content up. If it is there already, the pieces it did not have are added.
    pub fn add(&mut self, servable: Servable) -> Result<ContentKey, ShelfError> {
        let pieces = servable.total_bytes.div_ceil(u64::from(servable.piece_length.max(1)));
        if servable.total_bytes == 0
            || servable.piece_length == 0
            || u64::from(servable.have.pieces()) != pieces
        {
            return Err(ShelfError::Geometry(servable.infohash));
        }
        let trusts = !self.checks;
        if let Some(key) = self.find(servable.infohash)
            && let Some(content) = self.contents.get_mut(&key)
        {
            servable.have.iter_held().for_each(|piece| content.complete(piece, trusts));
            return Ok(key);
        }
        let key = ContentKey(self.next_key);
        self.next_key += 1;
        self.keys.insert(servable.infohash, key);
        self.disguised.insert(mse::disguise(servable.infohash), key);
        let proven = match trusts {
            true => servable.have.clone(),
            false => Bitfield::empty(servable.have.pieces()),
        };
        let withdrawn = vec![];
        self.contents.insert(key, Content { servable, completed: vec![], proven, withdrawn });
        Ok(key)
    }

    /// A piece is held now. Unknown contents and pieces are ignored.
    pub fn have(&mut self, infohash: Infohash, piece: u32) -> Option<ContentKey> {
        let (key, trusts) = (self.find(infohash)?, !self.checks);
        self.contents.get_mut(&key)?.complete(piece, trusts);
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

    pub fn get_mut(&mut self, key: ContentKey) -> Option<&mut Content> {
        self.contents.get_mut(&key)
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

    /// Which piece the byte at `offset` of the file belongs to.
    pub fn piece_at(&self, offset: u64) -> u32 {
        u32::try_from(offset / u64::from(self.servable.piece_length)).unwrap_or(u32::MAX)
    }

    pub fn piece_offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.servable.piece_length)
    }

    pub fn piece_end(&self, piece: u32) -> u64 {
        self.piece_offset(piece.saturating_add(1)).min(self.servable.total_bytes)
    }

    /// Whether a piece is held and was checked: the one question before each block.
    pub fn may_leave(&self, piece: u32) -> bool {
        self.proven.has(piece)
    }

    pub fn all_may_leave(&self) -> bool {
        self.proven.held() == self.servable.have.held()
    }

    /// A held piece was checked. False if it is not held, or no longer.
    pub fn prove(&mut self, piece: u32) -> bool {
        let held = self.servable.have.has(piece);
        if held {
            self.proven.set(piece);
        }
        held
    }

    /// What was found out about a piece holds no longer: it waits for the next check.
    pub fn doubt(&mut self, piece: u32) {
        self.proven.clear(piece);
    }

    /// The same for all pieces but `except`.
    pub fn doubt_all(&mut self, except: &[u32]) {
        let kept = except.iter().filter(|piece| self.proven.has(**piece)).copied();
        let kept: Vec<u32> = kept.collect();
        self.proven = Bitfield::empty(self.servable.have.pieces());
        kept.iter().for_each(|piece| {
            self.proven.set(*piece);
        });
    }

    /// A piece turned out bad: it is not held any more. False if it was not held.
    pub fn withdraw(&mut self, piece: u32) -> bool {
        self.proven.clear(piece);
        let was_held = self.servable.have.clear(piece);
        if was_held {
            self.withdrawn.push(piece);
        }
        was_held
    }

    /// A peer that asks for it was told that it is here.
    pub fn is_withdrawn(&self, piece: u32) -> bool {
        self.withdrawn.contains(&piece)
    }

    fn complete(&mut self, piece: u32, trusted: bool) {
        if self.servable.have.set(piece) {
            self.completed.push(piece);
            self.withdrawn.retain(|gone| *gone != piece);
        }
        if trusted {
            self.prove(piece);
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

    #[test]
    fn with_checks_a_piece_leaves_only_once_it_is_proven_and_until_it_is_doubted() {
        let mut shelf = Shelf::with_checks();
        let key = shelf.add(servable(Bitfield::full(5))).expect("fits");
        let content = shelf.get_mut(key).expect("just added");
        assert!(!content.may_leave(1) && !content.all_may_leave());
        assert!(content.prove(1) && content.prove(2) && content.may_leave(1));
        content.doubt_all(&[2, 3]);
        assert_eq!([1, 2, 3].map(|piece| content.may_leave(piece)), [false, true, false]);
        content.doubt(2);
        assert!(!content.may_leave(2));
    }

    #[test]
    fn a_withdrawn_piece_is_gone_until_it_is_held_again_and_told_anew() {
        let mut shelf = Shelf::with_checks();
        let key = shelf.add(servable(Bitfield::full(5))).expect("fits");
        let content = shelf.get_mut(key).expect("just added");
        assert!(content.prove(3) && content.withdraw(3) && !content.withdraw(3));
        assert!(!content.may_leave(3) && !content.held().has(3) && content.is_withdrawn(3));
        assert!(!content.prove(3), "a check that was under way says nothing about a lost piece");
        shelf.have(Infohash([7; 20]), 3);
        let content = shelf.get(key).expect("still there");
        assert!(!content.is_withdrawn(3) && !content.may_leave(3));
        assert_eq!(content.completed(), [3]);
    }
}
