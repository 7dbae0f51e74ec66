//! Checked pieces in memory, for contents whose file somebody may write to while it is served: of those
//! nothing leaves but what was hashed, byte for byte. Few at a time; the others wait on the disk.

use std::sync::Arc;

use crate::logic::{
    units::MIB,
    wire::{ContentKey, Shelf},
};

/// Such contents are few: those that are being filled, and files that their owner has open. A dozen
/// pieces are enough for their peers, who mostly ask for the same ones.
const BYTES_MAX: usize = 12 * MIB as usize;
/// However large pieces are, one leaves while the next is checked.
const PIECES_MIN: usize = 2;

struct Entry {
    key: ContentKey,
    piece: u32,
    bytes: Arc<[u8]>,
}

#[derive(Default)]
pub(super) struct ProvenBytes {
    /// Used longest ago first.
    entries: Vec<Entry>,
}

impl ProvenBytes {
    /// The bytes from `offset` of the content's file to the end of the piece, if it is here.
    pub fn find(&mut self, shelf: &Shelf, key: ContentKey, offset: u64) -> Option<Arc<[u8]>> {
        if self.entries.is_empty() {
            return None;
        }
        let piece = shelf.get(key)?.piece_at(offset);
        let at = self.position(key, piece)?;
        self.entries[at..].rotate_left(1);
        self.entries.last().map(|entry| entry.bytes.clone())
    }

    pub fn insert(&mut self, key: ContentKey, piece: u32, bytes: Arc<[u8]>) {
        self.forget_piece(key, piece);
        self.entries.push(Entry { key, piece, bytes });
    }

    /// What has to go to make room, and is not `busy`. Whoever wants it again has it checked again.
    pub fn take_excess(
        &mut self,
        busy: impl Fn(ContentKey, u32) -> bool,
    ) -> Vec<(ContentKey, u32)> {
        let mut taken = vec![];
        let mut bytes: usize = self.entries.iter().map(|e| e.bytes.len()).sum();
        let mut at = 0;
        while bytes > BYTES_MAX && self.entries.len() > PIECES_MIN && at + 1 < self.entries.len() {
            let entry = &self.entries[at];
            if busy(entry.key, entry.piece) {
                at += 1;
                continue;
            }
            let gone = self.entries.remove(at);
            bytes -= gone.bytes.len();
            taken.push((gone.key, gone.piece));
        }
        taken
    }

    pub fn pieces_of(&self, key: ContentKey) -> Vec<u32> {
        self.entries.iter().filter(|e| e.key == key).map(|e| e.piece).collect()
    }

    pub fn has_any_of(&self, key: ContentKey) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    pub fn forget_piece(&mut self, key: ContentKey, piece: u32) {
        if let Some(at) = self.position(key, piece) {
            self.entries.remove(at);
        }
    }

    pub fn forget(&mut self, key: ContentKey) {
        self.entries.retain(|e| e.key != key);
    }

    fn position(&self, key: ContentKey, piece: u32) -> Option<usize> {
        self.entries.iter().position(|e| e.key == key && e.piece == piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ContentKey = ContentKey::numbered(1);

    fn with_pieces(count: u32, bytes: usize) -> ProvenBytes {
        let mut memory = ProvenBytes::default();
        (0..count).for_each(|piece| memory.insert(KEY, piece, vec![0; bytes].into()));
        memory
    }

    #[test]
    fn gives_up_what_was_used_longest_ago_and_is_not_on_its_way() {
        let mut memory = with_pieces(5, BYTES_MAX / 4);
        assert_eq!(memory.take_excess(|_, piece| piece == 0), [(KEY, 1)]);
        assert_eq!(memory.pieces_of(KEY), [0, 2, 3, 4]);
        assert_eq!(memory.take_excess(|_, _| false), []);
    }

    #[test]
    fn keeps_two_pieces_of_any_size() {
        let mut memory = with_pieces(3, BYTES_MAX);
        assert_eq!(memory.take_excess(|_, _| false), [(KEY, 0)]);
        memory.forget_piece(KEY, 1);
        memory.forget(KEY);
        assert!(!memory.has_any_of(KEY));
    }
}
