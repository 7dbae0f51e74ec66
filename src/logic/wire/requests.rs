//! The blocks that one peer waits for, in the order in which it asked. Bounded; nothing twice.

use std::collections::VecDeque;

use super::{BlockRequest, MAX_QUEUED_REQUESTS};

#[derive(Debug, Default)]
pub struct RequestQueue {
    queue: VecDeque<BlockRequest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    Accepted,
    /// It waits already; the block will come once.
    Duplicate,
    Full,
}

impl RequestQueue {
    pub fn push(&mut self, block: BlockRequest) -> Queued {
        if self.queue.contains(&block) {
            return Queued::Duplicate;
        }
        if self.queue.len() >= MAX_QUEUED_REQUESTS {
            return Queued::Full;
        }
        self.queue.push_back(block);
        Queued::Accepted
    }

    pub fn pop(&mut self) -> Option<BlockRequest> {
        let block = self.queue.pop_front();
        if self.queue.is_empty() {
            // Idle connections hold no buffers.
            self.queue = VecDeque::new();
        }
        block
    }

    /// Whether it was still waiting.
    pub fn cancel(&mut self, block: BlockRequest) -> bool {
        let Some(at) = self.queue.iter().position(|b| *b == block) else { return false };
        self.queue.remove(at);
        true
    }

    /// Puts back what `pop` gave.
    pub fn push_front(&mut self, block: BlockRequest) {
        self.queue.push_front(block);
    }

    /// What `pop` would give.
    pub fn front(&self) -> Option<BlockRequest> {
        self.queue.front().copied()
    }

    /// Takes out what waits of one piece.
    pub fn take_piece(&mut self, piece: u32) -> Vec<BlockRequest> {
        let taken: Vec<_> = self.queue.iter().filter(|b| b.piece == piece).copied().collect();
        if !taken.is_empty() {
            self.queue.retain(|b| b.piece != piece);
        }
        taken
    }

    /// Empties the queue; what was in it may have to be rejected (BEP 6).
    pub fn take_all(&mut self) -> VecDeque<BlockRequest> {
        std::mem::take(&mut self.queue)
    }

    /// As `pop` will give them.
    pub fn iter(&self) -> impl Iterator<Item = &BlockRequest> {
        self.queue.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn kept_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<BlockRequest>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u32) -> BlockRequest {
        BlockRequest { piece: n, begin: 0, length: 16 }
    }

    #[test]
    fn keeps_order_ignores_duplicates_and_honours_cancel() {
        let mut queue = RequestQueue::default();
        assert_eq!([1, 2, 1, 3].map(|n| queue.push(block(n)))[2], Queued::Duplicate);
        assert!(queue.cancel(block(2)));
        assert!(!queue.cancel(block(2)));
        assert_eq!(queue.pop(), Some(block(1)));
        assert_eq!(queue.pop(), Some(block(3)));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.push(block(1)), Queued::Accepted, "asking again later is not a duplicate");
    }

    #[test]
    fn is_bounded() {
        let mut queue = RequestQueue::default();
        let accepted = (0..2000).filter(|n| queue.push(block(*n)) == Queued::Accepted).count();
        assert_eq!((accepted, queue.len()), (MAX_QUEUED_REQUESTS, MAX_QUEUED_REQUESTS));
    }
}
