//! The length-prefixed messages of BEP 3, 6 and 10, and the assembler that finds them in a stream.
//! The assembler keeps at most one message of `MAX_KEPT_MESSAGE_BYTES`, and nothing when messages
//! arrive whole, as they nearly always do.

use super::{MAX_KEPT_MESSAGE_BYTES, MAX_MESSAGE_BYTES, WireError};

/// A block as BEP 3 names it in request, cancel and (BEP 6) reject; lengths and offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    pub piece: u32,
    pub begin: u32,
    pub length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    Bitfield(&'a [u8]),
    Request(BlockRequest),
    Cancel(BlockRequest),
    /// BEP 5: the peer's DHT port.
    Port(u16),
    /// BEP 6.
    SuggestPiece(u32),
    HaveAll,
    HaveNone,
    Reject(BlockRequest),
    AllowedFast(u32),
    /// BEP 10: 0 is the extension handshake, the rest was agreed in it.
    Extended {
        id: u8,
        payload: &'a [u8],
    },
    /// A block for us, who never asked for one. Its content is not looked at.
    Piece,
    /// An id that we do not know, or a message too long to keep: passed over.
    Other(u8),
}

mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST_PIECE: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

impl BlockRequest {
    /// The 13 bytes that go before the block itself: length, id 7, piece, begin.
    pub fn piece_header(self) -> [u8; 13] {
        let mut out = [0; 13];
        out[..4].copy_from_slice(&(9 + self.length).to_be_bytes());
        out[4] = id::PIECE;
        out[5..9].copy_from_slice(&self.piece.to_be_bytes());
        out[9..].copy_from_slice(&self.begin.to_be_bytes());
        out
    }

    fn parse(body: &[u8; 12]) -> BlockRequest {
        let word =
            |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        BlockRequest { piece: word(0), begin: word(4), length: word(8) }
    }
}

impl<'a> Message<'a> {
    /// `message` is what follows the length prefix; it may be empty.
    pub fn decode(message: &'a [u8]) -> Result<Message<'a>, WireError> {
        let Some((&id, body)) = message.split_first() else { return Ok(Message::KeepAlive) };
        let wrong = WireError::Length { id, length: message.len() as u32 };
        let bare = |m: Message<'a>| if body.is_empty() { Ok(m) } else { Err(wrong) };
        let word = || <[u8; 4]>::try_from(body).map(u32::from_be_bytes).map_err(|_| wrong);
        let block = || <&[u8; 12]>::try_from(body).map(BlockRequest::parse).map_err(|_| wrong);
        match id {
            id::CHOKE => bare(Message::Choke),
            id::UNCHOKE => bare(Message::Unchoke),
            id::INTERESTED => bare(Message::Interested),
            id::NOT_INTERESTED => bare(Message::NotInterested),
            id::HAVE => word().map(Message::Have),
            id::BITFIELD => Ok(Message::Bitfield(body)),
            id::REQUEST => block().map(Message::Request),
            id::PIECE => Ok(Message::Piece),
            id::CANCEL => block().map(Message::Cancel),
            id::PORT => {
                let port = <[u8; 2]>::try_from(body).map_err(|_| wrong)?;
                Ok(Message::Port(u16::from_be_bytes(port)))
            }
            id::SUGGEST_PIECE => word().map(Message::SuggestPiece),
            id::HAVE_ALL => bare(Message::HaveAll),
            id::HAVE_NONE => bare(Message::HaveNone),
            id::REJECT => block().map(Message::Reject),
            id::ALLOWED_FAST => word().map(Message::AllowedFast),
            id::EXTENDED => {
                let (&id, payload) = body.split_first().ok_or(wrong)?;
                Ok(Message::Extended { id, payload })
            }
            other => Ok(Message::Other(other)),
        }
    }

    /// Appends the message with its length prefix. `Piece` and `Other` are never written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        match *self {
            Message::KeepAlive | Message::Piece | Message::Other(_) => {}
            Message::Choke => out.push(id::CHOKE),
            Message::Unchoke => out.push(id::UNCHOKE),
            Message::Interested => out.push(id::INTERESTED),
            Message::NotInterested => out.push(id::NOT_INTERESTED),
            Message::Have(piece) => put_word(out, id::HAVE, piece),
            Message::Bitfield(bits) => {
                out.push(id::BITFIELD);
                out.extend_from_slice(bits);
            }
            Message::Request(block) => put_block(out, id::REQUEST, block),
            Message::Cancel(block) => put_block(out, id::CANCEL, block),
            Message::Port(port) => {
                out.push(id::PORT);
                out.extend_from_slice(&port.to_be_bytes());
            }
            Message::SuggestPiece(piece) => put_word(out, id::SUGGEST_PIECE, piece),
            Message::HaveAll => out.push(id::HAVE_ALL),
            Message::HaveNone => out.push(id::HAVE_NONE),
            Message::Reject(block) => put_block(out, id::REJECT, block),
            Message::AllowedFast(piece) => put_word(out, id::ALLOWED_FAST, piece),
            Message::Extended { id, payload } => {
                out.extend_from_slice(&[id::EXTENDED, id]);
                out.extend_from_slice(payload);
            }
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

fn put_word(out: &mut Vec<u8>, id: u8, word: u32) {
    out.push(id);
    out.extend_from_slice(&word.to_be_bytes());
}

fn put_block(out: &mut Vec<u8>, id: u8, block: BlockRequest) {
    put_word(out, id, block.piece);
    out.extend_from_slice(&block.begin.to_be_bytes());
    out.extend_from_slice(&block.length.to_be_bytes());
}

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub struct Assembler {
    /// The start of a message whose rest has not come yet, prefix included.
    partial: Vec<u8>,
    /// `partial` was handed out whole by the last call.
    done: bool,
    /// Bytes to pass over, of a message too long to keep.
    skip: u32,
}

impl Assembler {
    /// The next message of the stream, taking from the front of `input`. `None`: `input` is used up.
    /// After an error the stream has lost its meaning; close it.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Message<'a>>, WireError> {
        if std::mem::take(&mut self.done) {
            self.partial = Vec::new();
        }
        self.pass_over(input);
        if self.skip > 0 {
            return Ok(None);
        }
        if self.partial.is_empty()
            && let Some((prefix, rest)) = input.split_first_chunk::<4>()
        {
            let length = u32::from_be_bytes(*prefix);
            if length <= MAX_KEPT_MESSAGE_BYTES && rest.len() >= length as usize {
                let (message, rest) = rest.split_at(length as usize);
                *input = rest;
                return Message::decode(message).map(Some);
            }
        }
        self.next_in_parts(input)
    }

    /// The slow way, for a message that ends in a later read.
    fn next_in_parts<'a>(
        &'a mut self,
        input: &mut &[u8],
    ) -> Result<Option<Message<'a>>, WireError> {
        if !self.collect(4, input) {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, 1, 2, 3].map(|i: usize| self.partial[i]));
        if length > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLong(length));
        }
        if length > MAX_KEPT_MESSAGE_BYTES {
            if !self.collect(5, input) {
                return Ok(None);
            }
            let id = self.partial[4];
            self.partial = Vec::new();
            self.skip = length - 1;
            self.pass_over(input);
            return match id {
                id::PIECE => Ok(Some(Message::Piece)),
                id::BITFIELD | id::EXTENDED => Ok(Some(Message::Other(id))),
                _ => Err(WireError::Length { id, length }),
            };
        }
        if !self.collect(4 + length as usize, input) {
            return Ok(None);
        }
        self.done = true;
        Message::decode(&self.partial[4..]).map(Some)
    }

    /// Bytes of memory that the unfinished message takes.
    pub fn kept_bytes(&self) -> usize {
        self.partial.capacity()
    }

    fn pass_over(&mut self, input: &mut &[u8]) {
        let n = input.len().min(self.skip as usize);
        *input = &input[n..];
        self.skip -= n as u32;
    }

    /// Whether `partial` has `wanted` bytes now.
    fn collect(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let n = wanted.saturating_sub(self.partial.len()).min(input.len());
        if n > 0 {
            self.partial.reserve_exact(wanted - self.partial.len());
            self.partial.extend_from_slice(&input[..n]);
            *input = &input[n..];
        }
        self.partial.len() >= wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out when `stream` arrives in pieces of the given sizes, round and round.
    fn feed(stream: &[u8], cuts: &[usize]) -> Result<Vec<String>, WireError> {
        let mut assembler = Assembler::default();
        let (mut out, mut rest, mut i) = (vec![], stream, 0);
        while !rest.is_empty() {
            let n = cuts[i % cuts.len()].clamp(1, rest.len());
            i += 1;
            let (mut now, later) = rest.split_at(n);
            rest = later;
            while let Some(message) = assembler.next(&mut now)? {
                out.push(format!("{message:?}"));
            }
            assert!(assembler.kept_bytes() <= 2 * (MAX_KEPT_MESSAGE_BYTES as usize + 4));
        }
        Ok(out)
    }

    fn encoded(messages: &[Message<'_>]) -> Vec<u8> {
        let mut out = vec![];
        messages.iter().for_each(|m| m.encode(&mut out));
        out
    }

    const BLOCK: BlockRequest = BlockRequest { piece: 1, begin: 2, length: 3 };

    fn all_kinds() -> Vec<Message<'static>> {
        vec![
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::Have(7),
            Message::Bitfield(&[0xf0, 1]),
            Message::Request(BLOCK),
            Message::Cancel(BLOCK),
            Message::Port(6881),
            Message::SuggestPiece(8),
            Message::HaveAll,
            Message::HaveNone,
            Message::Reject(BLOCK),
            Message::AllowedFast(9),
            Message::Extended { id: 3, payload: b"d1:ai1ee" },
        ]
    }

    proptest! {
        #[test]
        fn finds_the_same_messages_however_the_stream_is_cut(
            picks in prop::collection::vec(0usize..16, 0..40),
            cuts in prop::collection::vec(1usize..40, 1..10),
        ) {
            let kinds = all_kinds();
            let messages: Vec<_> = picks.into_iter().map(|i| kinds[i]).collect();
            let expected: Vec<_> = messages.iter().map(|m| format!("{m:?}")).collect();
            prop_assert_eq!(feed(&encoded(&messages), &cuts), Ok(expected));
        }

        #[test]
        fn survives_any_bytes(
            stream in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..4000),
            cuts in prop::collection::vec(1usize..900, 1..5),
        ) {
            let whole = feed(&stream, &[usize::MAX]);
            prop_assert_eq!(feed(&stream, &cuts).is_ok(), whole.is_ok());
        }
    }

    #[test]
    fn refuses_oversized_and_negative_lengths() {
        for length in [MAX_MESSAGE_BYTES + 1, u32::MAX, 0x8000_0000] {
            assert_eq!(feed(&length.to_be_bytes(), &[1]), Err(WireError::TooLong(length)));
        }
    }

    #[test]
    fn refuses_fixed_messages_of_another_length() {
        for bad in [&[0, 0, 0, 2, 2, 0][..], &[0, 0, 0, 5, 6, 0, 0, 0, 0], &[0, 0, 0, 1, 20]] {
            assert!(matches!(feed(bad, &[9]), Err(WireError::Length { .. })), "{bad:?}");
        }
        // A request of 9 KiB is not passed over as if it were a large bitfield.
        let long_request = [0, 0, 0x24, 0, 6];
        assert!(matches!(feed(&long_request, &[9]), Err(WireError::Length { id: 6, .. })));
    }

    #[test]
    fn passes_over_a_large_bitfield_without_keeping_it() {
        let bits = vec![0xff; 200_000];
        let stream = encoded(&[Message::Bitfield(&bits), Message::Interested]);
        for cut in [1, 1000, 65_536, usize::MAX] {
            assert_eq!(feed(&stream, &[cut]), Ok(vec!["Other(5)".into(), "Interested".into()]));
        }
    }

    #[test]
    fn writes_piece_headers_as_bep_3_has_them() {
        assert_eq!(BLOCK.piece_header(), [0, 0, 0, 12, 7, 0, 0, 0, 1, 0, 0, 0, 2]);
    }
}
