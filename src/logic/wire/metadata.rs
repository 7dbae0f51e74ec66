//! The pieces of metadata (BEP 9) that one peer waits for. Bounded by itself, and by what its address
//! may have. It holds numbers only.

use std::collections::VecDeque;

use super::{MAX_METADATA_ROUNDS, MAX_QUEUED_METADATA};

#[derive(Debug, Default)]
pub(super) struct MetadataQueue {
    waiting: VecDeque<u32>,
    /// Of those, the newest, which nobody has granted or refused yet.
    asked: u32,
    answered: u32,
    /// Of those, how many have been told by `take_count`.
    told: u32,
}

impl MetadataQueue {
    /// False if it is to be rejected: of `pieces`, the peer has had each a few times.
    pub fn push(&mut self, piece: u32, pieces: u32) -> bool {
        self.answered += 1;
        let allowed = pieces.saturating_mul(MAX_METADATA_ROUNDS);
        let accepted = self.answered <= allowed && self.waiting.len() < MAX_QUEUED_METADATA;
        if accepted {
            self.waiting.push_back(piece);
            self.asked += 1;
        }
        accepted
    }

    pub fn pop(&mut self) -> Option<u32> {
        let piece = self.waiting.pop_front();
        if self.waiting.is_empty() {
            // Idle connections hold no buffers.
            self.waiting = VecDeque::new();
        }
        piece
    }

    pub fn asked(&self) -> u32 {
        self.asked
    }

    /// Of those asked for, so many are granted. Takes out the rest, newest first.
    pub fn grant(&mut self, granted: u32) -> Vec<u32> {
        let refused = std::mem::take(&mut self.asked).saturating_sub(granted);
        (0..refused).map_while(|_| self.waiting.pop_back()).collect()
    }

    /// Requests since the last call.
    pub fn take_count(&mut self) -> u32 {
        let new = self.answered - self.told;
        self.told = self.answered;
        new
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn kept_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<u32>()
    }
}
