//! A block on its way out, header and all, and how much of it has left. Holds no content: whoever has
//! the file takes it from there.

use super::BlockRequest;

const HEADER_BYTES: u32 = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutgoingBlock {
    header: [u8; HEADER_BYTES as usize],
    /// Of the whole block in the content's file.
    offset: u64,
    length: u32,
    /// Of header and block together.
    sent: u32,
}

impl OutgoingBlock {
    pub fn new(block: BlockRequest, offset: u64) -> OutgoingBlock {
        OutgoingBlock { header: block.piece_header(), offset, length: block.length, sent: 0 }
    }

    /// What is left of the header, often nothing.
    pub fn header(&self) -> &[u8] {
        &self.header[self.sent.min(HEADER_BYTES) as usize..]
    }

    /// Where the rest of the block begins in the content's file.
    pub fn offset(&self) -> u64 {
        self.offset + u64::from(self.block_sent())
    }

    /// What is left of the block itself.
    pub fn length(&self) -> u32 {
        self.length - self.block_sent()
    }

    /// `bytes` more have left. Answers with the whole block's payload when it was the end of it.
    pub fn handle_sent(&mut self, bytes: u32) -> Option<u32> {
        self.sent += bytes;
        (self.sent == HEADER_BYTES + self.length).then_some(self.length)
    }

    /// Some of it has left, the header included.
    pub fn has_begun(&self) -> bool {
        self.sent > 0
    }

    fn block_sent(&self) -> u32 {
        self.sent.saturating_sub(HEADER_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_header_first_and_ends_with_its_payload() {
        let mut block = OutgoingBlock::new(BlockRequest { piece: 1, begin: 2, length: 100 }, 1000);
        assert_eq!((block.header().len(), block.offset(), block.length()), (13, 1000, 100));
        assert_eq!(block.handle_sent(10), None);
        assert_eq!((block.header(), block.offset(), block.length()), (&[0, 0, 2][..], 1000, 100));
        assert_eq!(block.handle_sent(43), None);
        assert_eq!((block.header().len(), block.offset(), block.length()), (0, 1040, 60));
        assert_eq!(block.handle_sent(60), Some(100));
    }
}
