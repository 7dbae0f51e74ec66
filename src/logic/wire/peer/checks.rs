//! What a peer waits for until it is checked, and how it hears that a piece is gone. Checks nothing.

use super::{BlockRequest, Close, Content, PeerSession};

/// Pieces of one peer that are checked ahead of their turn: while blocks of the first leave, the next
/// is read. No more, so that a peer that asks all over a content cannot have all of it read at once.
const CHECKS_AHEAD: usize = 2;
/// How far into the queue to look for them.
const REQUESTS_AHEAD: usize = 256;
/// How often a peer may ask for pieces that we had to take back. A client that heard of it by rejects
/// asks elsewhere; one that keeps asking here is better off with a new bitfield.
const WITHDRAWN_REFUSALS_MAX: u32 = 64;

impl PeerSession {
    /// Pieces that have to be checked before the next blocks can leave.
    pub fn awaited(&self, content: &Content) -> Vec<u32> {
        let mut pieces: Vec<u32> = vec![];
        for block in self.requests.iter().take(REQUESTS_AHEAD) {
            if !content.may_leave(block.piece) && !pieces.contains(&block.piece) {
                pieces.push(block.piece);
                if pieces.len() == CHECKS_AHEAD {
                    break;
                }
            }
        }
        pieces
    }

    /// The piece of which a block has partly left.
    pub fn piece_under_way(&self, content: &Content) -> Option<u32> {
        let sending = self.sending.filter(|s| s.has_begun())?;
        Some(content.piece_at(sending.offset()))
    }

    /// The piece of the block that is to leave next, or has partly left.
    pub fn piece_in_hand(&self, content: &Content) -> Option<u32> {
        self.sending.map(|s| content.piece_at(s.offset()))
    }

    /// The block that was to leave next goes back into the queue if none of it has left and its piece
    /// has come into doubt meanwhile.
    pub(super) fn put_back_doubtful(&mut self, content: &Content) {
        let doubtful = |offset| !content.may_leave(content.piece_at(offset));
        if self.sending.is_some_and(|s| !s.has_begun() && doubtful(s.offset()))
            && let Some(block) = self.take_unbegun(content)
        {
            self.requests.push_front(block);
        }
    }

    /// A piece turned out bad. What waits of it is rejected (BEP 6). A `have` cannot be taken back, and
    /// half a block neither: then, and without BEP 6, the peer has to come again.
    pub fn handle_withdrawn(&mut self, piece: u32, content: &Content) -> Result<(), Close> {
        if self.piece_under_way(content) == Some(piece) {
            return Err(Close::PieceWithdrawn);
        }
        self.put_back_doubtful(content);
        let dropped = self.requests.take_piece(piece);
        if !dropped.is_empty() && !self.fast {
            return Err(Close::PieceWithdrawn);
        }
        dropped.into_iter().for_each(|block| self.refuse(block));
        Ok(())
    }

    /// No offence: it was told that the piece is here.
    pub(super) fn refuse_withdrawn(&mut self, block: BlockRequest) -> Result<(), Close> {
        self.withdrawn_refused += 1;
        if !self.fast || self.withdrawn_refused > WITHDRAWN_REFUSALS_MAX {
            return Err(Close::PieceWithdrawn);
        }
        self.refuse(block);
        Ok(())
    }

    fn take_unbegun(&mut self, content: &Content) -> Option<BlockRequest> {
        let next = self.sending.take_if(|s| !s.has_begun())?;
        let piece = content.piece_at(next.offset());
        let begin = next.offset() - content.piece_offset(piece);
        Some(BlockRequest { piece, begin: begin as u32, length: next.length() })
    }
}
