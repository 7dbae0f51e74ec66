//! What a peer sees of us: follows the stream that a session sends, and panics where that breaks the
//! protocol: a block that nobody asked for or that comes to the choked, an answer too many, a HAVE of
//! a piece twice. Knows of the session nothing but its stream.

use std::collections::BTreeSet;

use larder::logic::wire::{
    Assembler, BlockRequest, ExtensionHandshake, HANDSHAKE_BYTES, Handshake, Message,
    MetadataMessage,
};

/// The id under which the peer wants `ut_metadata`.
pub const METADATA_ID: u8 = 3;

/// A block on its way, after its header.
struct Arriving {
    block: BlockRequest,
    left: u32,
}

#[derive(Default)]
pub struct Observer {
    greeting: Vec<u8>,
    assembler: Assembler,
    /// The start of a block's header.
    header: Vec<u8>,
    arriving: Option<Arriving>,
    may_request: bool,
    /// Requests that are to be answered.
    pub owed: Vec<BlockRequest>,
    /// Metadata requests that are to be answered.
    pub metadata_owed: u32,
    /// Pieces that we showed.
    pub shown: BTreeSet<u32>,
    pub blocks: u32,
    /// Who we say we are.
    pub greeted: Option<Handshake>,
    pub introduced: Option<ExtensionHandshake>,
}

impl Observer {
    /// Of a content whose pieces the first message shows, be it HAVE ALL or a bitfield.
    pub fn expecting(shown: impl IntoIterator<Item = u32>) -> Observer {
        Observer { shown: shown.into_iter().collect(), ..Observer::default() }
    }

    pub fn may_request(&self) -> bool {
        self.may_request
    }

    pub fn is_between_messages(&self) -> bool {
        self.header.is_empty() && self.arriving.is_none()
    }

    /// Bytes that are no part of a block.
    pub fn hear(&mut self, mut bytes: &[u8]) {
        assert!(self.is_between_messages(), "a block is cut by something else");
        let n = bytes.len().min(HANDSHAKE_BYTES - self.greeting.len());
        self.greeting.extend_from_slice(&bytes[..n]);
        bytes = &bytes[n..];
        if self.greeting.len() == HANDSHAKE_BYTES && self.greeted.is_none() {
            let shake = Handshake::parse(&self.greeting).expect("our handshake is one");
            assert!(shake.is_some_and(|shake| shake.fast && shake.extensions));
            self.greeted = shake;
        }
        let mut assembler = std::mem::take(&mut self.assembler);
        while let Some(message) = assembler.next(&mut bytes).expect("what we say is well formed") {
            self.understand(message);
        }
        self.assembler = assembler;
    }

    /// A part of a block's header and of the block.
    pub fn receive(&mut self, header: &[u8], length: u32) {
        self.header.extend_from_slice(header);
        if let Some(header) = self.header.first_chunk::<13>()
            && self.arriving.is_none()
        {
            let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| header[at + i]));
            let (piece, begin, length) = (word(5), word(9), word(0) - 9);
            let block = BlockRequest { piece, begin, length };
            assert_eq!(header, &block.piece_header());
            assert!(self.may_request, "a block for a choked peer");
            self.answered(block);
            self.arriving = Some(Arriving { block, left: length });
        }
        let Some(arriving) = &mut self.arriving else { return assert_eq!(length, 0) };
        arriving.left = arriving.left.checked_sub(length).expect("no more than was promised");
        if arriving.left == 0 {
            self.header.clear();
            self.arriving = None;
            self.blocks += 1;
        }
    }

    /// Where in its piece the next byte of the block belongs.
    pub fn arriving_at(&self) -> Option<(u32, u32)> {
        let Arriving { block, left } = self.arriving.as_ref()?;
        Some((block.piece, block.begin + block.length - left))
    }

    fn understand(&mut self, message: Message<'_>) {
        match message {
            Message::Choke => assert!(std::mem::replace(&mut self.may_request, false)),
            Message::Unchoke => assert!(!std::mem::replace(&mut self.may_request, true)),
            Message::Have(piece) => assert!(self.shown.insert(piece), "piece {piece} twice"),
            Message::Reject(block) => self.answered(block),
            Message::Extended { id: METADATA_ID, payload } => {
                let answer = MetadataMessage::parse(payload).expect("ours is well formed");
                assert!(matches!(
                    answer,
                    MetadataMessage::Data { .. } | MetadataMessage::Reject { .. }
                ));
                self.metadata_owed = self.metadata_owed.checked_sub(1).expect("someone asked");
            }
            // A message of ours that is longer than our own assembler keeps: metadata.
            Message::Other(20) => {
                self.metadata_owed = self.metadata_owed.checked_sub(1).expect("someone asked");
            }
            Message::Bitfield(bits) => {
                let bits = bits.to_vec();
                let has = |piece: &u32| bits[*piece as usize / 8] & (0x80 >> (piece % 8)) != 0;
                self.shown.extend((0..bits.len() as u32 * 8).filter(has));
            }
            Message::KeepAlive | Message::HaveNone | Message::HaveAll => {}
            Message::Extended { id: 0, payload } => {
                let ours = ExtensionHandshake::parse(payload).expect("ours is well formed");
                assert!(ours.upload_only && self.introduced.is_none());
                self.introduced = Some(ours);
            }
            other => panic!("a seeder does not say {other:?}"),
        }
    }

    fn answered(&mut self, block: BlockRequest) {
        let at = self.owed.iter().position(|owed| *owed == block);
        self.owed.swap_remove(at.unwrap_or_else(|| panic!("nobody waits for {block:?}")));
    }
}
