//! The peer protocol as a seeder speaks it: BEP 3 with the fast extension (BEP 6), metadata for
//! magnet links (BEP 9), the extension protocol (BEP 10) and `upload_only` (BEP 21), plain or inside
//! Message Stream Encryption. Bytes in, bytes out; it opens nothing, and every length in it that a
//! stranger chooses has a limit.

mod close;
mod content;
mod delivery;
mod effort;
mod extension;
mod handshake;
mod message;
mod metadata;
pub mod mse;
mod outgoing;
mod peer;
mod requests;
mod standing;

pub use close::Close;
pub use content::{Content, ContentKey, Servable, Shelf, ShelfError};
pub use delivery::Deliveries;
pub use extension::{ExtensionHandshake, MetadataMessage, OurExtensionHandshake};
pub use handshake::{HANDSHAKE_BYTES, Handshake, peer_id};
pub use message::{Assembler, BlockRequest, Message};
pub use outgoing::OutgoingBlock;
pub use peer::{Chunk, LocalPeer, PeerSession, Timeouts};
pub use requests::{Queued, RequestQueue};
pub use standing::{IDLE_AFTER, Standing};

/// BEP 3's reserved bytes that we set and look at.
mod reserved {
    /// BEP 10: byte 5.
    pub const EXTENSIONS: (usize, u8) = (5, 0x10);
    /// BEP 6: byte 7.
    pub const FAST: (usize, u8) = (7, 0x04);
}

/// The largest request that is served. BEP 3 speaks of 16 KiB as everyone's size; libtorrent and
/// Transmission accept up to 128 KiB.
pub const MAX_REQUEST_BYTES: u32 = 128 * 1024;
/// Requests that one peer may have outstanding; `reqq` of the extension handshake (BEP 10). Some
/// clients refill their queue once a second (Transmission 3 does), so this bounds what one of them
/// can take: 1000 blocks of 16 KiB are 131 Mbit/s. A full queue is 12 kB of memory.
pub const MAX_QUEUED_REQUESTS: usize = 1_000;
/// The longest message that is kept while it comes in: a bitfield of 65,000 pieces, any sensible
/// extension handshake. Longer ones are counted and skipped, never stored.
pub const MAX_KEPT_MESSAGE_BYTES: u32 = 8 * 1024;
/// The longest message that is let pass at all: the bitfield of two million pieces.
pub const MAX_MESSAGE_BYTES: u32 = 256 * 1024;
/// Replies that wait for the peer to read them (rejects, metadata, HAVE). A peer that asks on and
/// on and reads nothing is cut.
pub const MAX_OUTBOX_BYTES: usize = 32 * 1024;
/// `ut_metadata` requests that may wait; clients ask for one to four at a time.
pub const MAX_QUEUED_METADATA: usize = 64;
/// How often a peer may fetch the whole metadata on one connection. More is a flood; BEP 9 lets us
/// reject.
pub const MAX_METADATA_ROUNDS: u32 = 4;
/// BEP 9: metadata goes in pieces of 16 KiB.
pub const METADATA_PIECE_BYTES: usize = 16 * 1024;

/// What one connection can make us keep, its content's bitfield apart: a full queue of requests (12
/// KiB), an outbox that nobody reads (a growing vector may be twice its content), half a message (8
/// KiB), the blocks in flight (4 KiB). An idle one keeps none of it.
pub const MAX_PEER_MEMORY_BYTES: usize = 112 * 1024;

/// Why bytes from a peer end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("not a BitTorrent handshake")]
    NotBitTorrent,
    #[error("a message of {0} bytes, more than the limit of {MAX_MESSAGE_BYTES}")]
    TooLong(u32),
    #[error("message {id} with a length of {length}")]
    Length { id: u8, length: u32 },
    #[error("a bencoded part that does not parse")]
    Bencoding,
}
