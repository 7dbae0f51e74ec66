//! What has really reached a peer. Bytes handed to our kernel are not yet delivered: a peer that
//! vanishes leaves some in the send buffer. So every block's end in the stream is marked, and its
//! payload counts once the peer's kernel has acknowledged the stream up to there. Half a block
//! counts nothing: no peer can verify it.

use std::collections::VecDeque;

/// At 16 KiB a block this is 4 MiB in flight, a full send buffer. Beyond it neighbours are merged,
/// so tiny blocks cannot make the list long; they only count a little later.
const MAX_MARKS: usize = 256;
/// Ask the kernel this often even if nobody asks for the figures.
const SETTLE_AT: usize = 64;

#[derive(Debug, Default)]
pub struct Deliveries {
    written: u64,
    marks: VecDeque<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Stream offset just after the block.
    end: u64,
    payload_bytes: u32,
}

impl Deliveries {
    /// The kernel took `bytes` more of the stream, of whatever kind.
    pub fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// A block of `payload_bytes` ends where the stream now ends.
    pub fn block_written(&mut self, payload_bytes: u32) {
        let end = self.written;
        if self.marks.len() >= MAX_MARKS
            && let Some(last) = self.marks.back_mut()
            && let Some(sum) = last.payload_bytes.checked_add(payload_bytes)
        {
            *last = Mark { end, payload_bytes: sum };
        } else {
            self.marks.push_back(Mark { end, payload_bytes });
        }
    }

    /// Payload bytes that are newly delivered, given how much the kernel still holds unacknowledged
    /// (SIOCOUTQ).
    pub fn settle(&mut self, unacknowledged: u64) -> u64 {
        let acknowledged = self.written.saturating_sub(unacknowledged);
        let mut payload = 0;
        while let Some(mark) = self.marks.front()
            && mark.end <= acknowledged
        {
            payload += u64::from(mark.payload_bytes);
            self.marks.pop_front();
        }
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
        payload
    }

    pub fn in_flight(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Enough is in flight to be worth a look at the kernel's queue.
    pub fn wants_settling(&self) -> bool {
        self.marks.len() >= SETTLE_AT
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn kept_bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_a_block_only_when_its_last_byte_is_acknowledged() {
        let mut deliveries = Deliveries::default();
        deliveries.wrote(68);
        deliveries.wrote(13 + 100);
        deliveries.block_written(100);
        deliveries.wrote(13 + 50);
        assert_eq!(deliveries.settle(64), 0);
        assert_eq!(deliveries.settle(63), 100);
        assert_eq!(deliveries.settle(0), 0, "the second block is not written out yet");
        assert!(!deliveries.in_flight());
    }

    proptest! {
        #[test]
        fn never_counts_more_than_was_acknowledged_and_all_of_it_in_the_end(
            blocks in prop::collection::vec((1u32..5000, 0u64..=100), 0..800),
        ) {
            let mut deliveries = Deliveries::default();
            let (mut acknowledged, mut counted, mut written, mut payload) = (0u64, 0u64, 0u64, 0u64);
            for (length, percent) in blocks {
                deliveries.wrote(13 + u64::from(length));
                deliveries.block_written(length);
                written += 13 + u64::from(length);
                payload += u64::from(length);
                acknowledged += (written - acknowledged) * percent / 1000;
                if percent % 3 == 0 { counted += deliveries.settle(written - acknowledged); }
                prop_assert!(counted <= acknowledged);
                prop_assert!(deliveries.marks.len() <= MAX_MARKS);
            }
            prop_assert_eq!(counted + deliveries.settle(0), payload);
        }
    }
}
