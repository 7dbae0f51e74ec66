//! How much of a content is wanted: the whole of it, or one run of its bytes. Arithmetic only: which
//! part is worth its room is the planner's decision, and where the bytes lie is the store's.

use std::ops::Range;

use crate::logic::bitfield::Bitfield;

/// A run of bytes of a content. Only whole pieces count, so a part that covers no whole piece is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Start and end, which is not in it; `None` is the whole, however large that is.
    run: Option<(u64, u64)>,
}

impl Part {
    pub const fn whole() -> Part {
        Part { run: None }
    }

    pub const fn of(bytes: Range<u64>) -> Part {
        Part { run: Some((bytes.start, bytes.end)) }
    }

    pub fn is_whole(self) -> bool {
        self.run.is_none()
    }

    /// The bytes meant, cut off at the content's end.
    pub fn bytes(self, total_bytes: u64) -> Range<u64> {
        match self.run {
            None => 0..total_bytes,
            Some((start, end)) => {
                let start = start.min(total_bytes);
                start..end.clamp(start, total_bytes)
            }
        }
    }

    /// The pieces that lie wholly within the part: never more bytes than were meant, so that a budget
    /// given in bytes holds. The content's last piece counts with the length that it has.
    pub fn piece_range(self, piece_length: u32, total_bytes: u64) -> Range<u32> {
        let length = u64::from(piece_length.max(1));
        let Range { start, end } = self.bytes(total_bytes);
        let first = start.div_ceil(length);
        let last = if end == total_bytes { end.div_ceil(length) } else { end / length };
        let piece = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        piece(first)..piece(last.max(first))
    }

    pub fn pieces(self, piece_length: u32, total_bytes: u64) -> Bitfield {
        let all = total_bytes.div_ceil(u64::from(piece_length.max(1)));
        let mut pieces = Bitfield::empty(u32::try_from(all).unwrap_or(u32::MAX));
        for piece in self.piece_range(piece_length, total_bytes) {
            pieces.set(piece);
        }
        pieces
    }

    /// The bytes of those pieces: what the part takes on disk.
    pub fn space(self, piece_length: u32, total_bytes: u64) -> Range<u64> {
        let pieces = self.piece_range(piece_length, total_bytes);
        let offset = |piece: u32| (u64::from(piece) * u64::from(piece_length)).min(total_bytes);
        offset(pieces.start)..offset(pieces.end)
    }

    /// The smallest run that has both; a part that is held grows and never moves.
    pub fn grown_to(self, other: Part) -> Part {
        match (self.run, other.run) {
            (Some(a), Some(b)) if a.0 >= a.1 => Part { run: Some(b) },
            (Some(a), Some(b)) if b.0 >= b.1 => Part { run: Some(a) },
            (Some(a), Some(b)) => Part { run: Some((a.0.min(b.0), a.1.max(b.1))) },
            _ => Part::whole(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_whole_has_every_piece_and_a_part_has_those_that_lie_within() {
        assert_eq!(Part::whole().piece_range(10, 95), 0..10);
        assert_eq!(Part::of(0..95).piece_range(10, 95), 0..10);
        assert_eq!(Part::of(0..94).piece_range(10, 95), 0..9);
        assert_eq!(Part::of(5..40).piece_range(10, 95), 1..4);
        assert_eq!(Part::of(41..49).piece_range(10, 95), 5..5);
        assert_eq!(Part::of(90..u64::MAX).piece_range(10, 95), 9..10);
        assert_eq!(Part::of(90..u64::MAX).space(10, 95), 90..95);
        assert!(Part::of(Range { start: 70, end: 20 }).pieces(10, 95).is_empty());
    }

    #[test]
    fn grows_but_never_shrinks() {
        let part = Part::of(10..20);
        assert_eq!(part.grown_to(Part::of(0..5)), Part::of(0..20));
        assert_eq!(part.grown_to(Part::of(12..15)), part);
        assert_eq!(part.grown_to(Part::of(90..90)), part);
        assert_eq!(part.grown_to(Part::whole()), Part::whole());
        assert_eq!(Part::whole().grown_to(part), Part::whole());
    }

    proptest! {
        #[test]
        fn never_takes_more_room_than_was_meant(
            start in 0u64..5000, length in 0u64..5000, piece_length in 1u32..300, total in 1u64..4000,
        ) {
            let part = Part::of(start..start + length);
            let space = part.space(piece_length, total);
            prop_assert!(space.end - space.start <= length);
            let pieces = part.pieces(piece_length, total);
            prop_assert_eq!(pieces.held() as usize, part.piece_range(piece_length, total).len());
            prop_assert_eq!(pieces.iter_held().collect::<Vec<_>>(),
                part.piece_range(piece_length, total).collect::<Vec<_>>());
        }
    }
}
