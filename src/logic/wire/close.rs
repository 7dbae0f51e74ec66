//! Why connections end, and which of the reasons are a peer's offence. Ends none itself.

use super::{WireError, mse::MseError};

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Encryption(#[from] MseError),
    #[error("it asked for a content that is not served here")]
    UnknownInfohash,
    #[error("nobody answered our call as a peer of that content does")]
    NoAnswer,
    #[error("it is ourselves")]
    SelfConnection,
    #[error("it has everything already")]
    Seed,
    #[error("it sent a block that nobody asked for")]
    UnaskedBlock,
    #[error("it asked for a block that cannot exist")]
    ImpossibleRequest,
    #[error("it asks on and on without reading the answers")]
    Flood,
    #[error("it sends more than any client has use for")]
    TooMuch,
    #[error("its handshake did not come in time")]
    HandshakeTimeout,
    #[error("it was silent for too long")]
    Idle,
    #[error("it does not read what it asked for")]
    Stalled,
    #[error("it closed the connection")]
    ByPeer,
    #[error("the connection broke")]
    Broken,
    #[error("its content is not served any more")]
    ContentRemoved,
    #[error("the content's file cannot be read")]
    Unreadable,
    #[error("it wants a piece that turned out to be damaged here")]
    PieceWithdrawn,
    #[error("what it was sent could not be kept from changing")]
    Unsafe,
    #[error("its content has as many connections as it may")]
    ContentFull,
    #[error("the same peer is here already")]
    Duplicate,
    #[error("somebody else can use its place")]
    Displaced,
    #[error("serving has stopped")]
    Stopping,
}

impl Close {
    /// The peer broke the protocol; an honest client never does.
    pub fn is_abuse(self) -> bool {
        if self == Close::Encryption(MseError::TooMany) {
            return false;
        }
        matches!(
            self,
            Close::Wire(_)
                | Close::Encryption(_)
                | Close::UnaskedBlock
                | Close::ImpossibleRequest
                | Close::Flood
                | Close::TooMuch
                | Close::HandshakeTimeout
        )
    }
}
