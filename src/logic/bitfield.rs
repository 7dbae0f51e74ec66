//! Which pieces are held: one bit a piece, most significant bit first, as BEP 3 puts it on the wire.

/// A fixed number of pieces; spare bits at the end are always zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    pieces: u32,
    held: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    #[error("a bitfield for {pieces} pieces is {expected} bytes, not {found}")]
    Length { pieces: u32, expected: usize, found: usize },
    #[error("a spare bit after the last piece is set")]
    SpareBits,
}

impl Bitfield {
    pub fn empty(pieces: u32) -> Bitfield {
        Bitfield { bytes: vec![0; byte_length(pieces)], pieces, held: 0 }
    }

    pub fn full(pieces: u32) -> Bitfield {
        let mut all = Bitfield::empty(pieces);
        (0..pieces).for_each(|p| {
            all.set(p);
        });
        all
    }

    /// Checks length and spare bits (BEP 3: "the spare bits at the end are set to zero").
    pub fn from_bytes(bytes: Vec<u8>, pieces: u32) -> Result<Bitfield, BitfieldError> {
        let expected = byte_length(pieces);
        if bytes.len() != expected {
            return Err(BitfieldError::Length { pieces, expected, found: bytes.len() });
        }
        let spare = expected as u32 * 8 - pieces;
        if spare > 0 && bytes[expected - 1] & ((1u8 << spare) - 1) != 0 {
            return Err(BitfieldError::SpareBits);
        }
        let held = bytes.iter().map(|b| b.count_ones()).sum();
        Ok(Bitfield { bytes, pieces, held })
    }

    /// False for a piece that does not exist.
    pub fn has(&self, piece: u32) -> bool {
        piece < self.pieces && self.bytes[piece as usize / 8] & (0x80 >> (piece % 8)) != 0
    }

    /// Returns whether the piece is new. Pieces past the end are ignored.
    pub fn set(&mut self, piece: u32) -> bool {
        if piece >= self.pieces || self.has(piece) {
            return false;
        }
        self.bytes[piece as usize / 8] |= 0x80 >> (piece % 8);
        self.held += 1;
        true
    }

    /// Returns whether the piece was held.
    pub fn clear(&mut self, piece: u32) -> bool {
        if !self.has(piece) {
            return false;
        }
        self.bytes[piece as usize / 8] &= !(0x80 >> (piece % 8));
        self.held -= 1;
        true
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    pub fn held(&self) -> u32 {
        self.held
    }

    pub fn is_complete(&self) -> bool {
        self.held == self.pieces
    }

    /// Whether every piece of `other` is held here too.
    pub fn has_all_of(&self, other: &Bitfield) -> bool {
        self.pieces == other.pieces && self.bytes.iter().zip(&other.bytes).all(|(a, b)| b & !a == 0)
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    pub fn iter_held(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.pieces).filter(|&p| self.has(p))
    }

    pub fn iter_missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.pieces).filter(|&p| !self.has(p))
    }
}

fn byte_length(pieces: u32) -> usize {
    pieces.div_ceil(8) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_wrong_length_and_spare_bits() {
        assert!(matches!(Bitfield::from_bytes(vec![0], 9), Err(BitfieldError::Length { .. })));
        assert_eq!(Bitfield::from_bytes(vec![0b0000_0001], 7), Err(BitfieldError::SpareBits));
        assert!(Bitfield::from_bytes(vec![0xff], 8).is_ok());
    }

    proptest! {
        #[test]
        fn counts_what_it_holds(pieces in 0u32..200, ops in prop::collection::vec((any::<bool>(), 0u32..220), 0..100)) {
            let mut field = Bitfield::empty(pieces);
            let mut model = std::collections::BTreeSet::new();
            for (set, piece) in ops {
                if set {
                    prop_assert_eq!(field.set(piece), piece < pieces && model.insert(piece));
                } else {
                    prop_assert_eq!(field.clear(piece), model.remove(&piece));
                }
            }
            prop_assert_eq!(field.held() as usize, model.len());
            prop_assert_eq!(field.iter_held().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Bitfield::from_bytes(field.as_bytes().to_vec(), pieces), Ok(field));
        }
    }
}
