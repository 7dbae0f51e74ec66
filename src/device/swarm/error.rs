//! Why a fill ended early, whose problem that is, and whether to try again.

use std::{io, time::Duration};

use url::Url;

use crate::logic::{fault::Fault, reach::Refused, units::HumanBytes};

#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error("the fill was cancelled")]
    Cancelled,
    #[error("the list names no web seed for this content, and no other device has it")]
    NoSource,
    #[error("web seed {url}: {problem}")]
    WebSeed { url: Url, problem: WebSeedProblem },
    #[error("nothing arrived for {} seconds", .0.as_secs())]
    Stalled(Duration),
    #[error("other devices sent {} that did not verify", HumanBytes(*wasted_bytes))]
    BadPeers { wasted_bytes: u64 },
    #[error("cannot store what arrives: {0}")]
    Sink(#[source] io::Error),
    #[error("the metainfo cannot be used: {0}")]
    Metainfo(String),
    /// librqbit's own words: its types stay inside this folder.
    #[error("the BitTorrent engine failed: {0}")]
    Engine(String),
}

/// What is wrong with one web seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSeedProblem {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("answers with status {0}")]
    Status(u16),
    #[error("does not answer range requests")]
    NoRanges,
    #[error("has a file of {found} bytes where the metainfo says {expected}")]
    WrongLength { expected: u64, found: u64 },
    #[error("sent other bytes than were asked for")]
    WrongRange,
    #[error("sends the file compressed, though it was asked not to ({0})")]
    Encoded(String),
    #[error("closed the connection before all bytes had come")]
    Truncated,
    #[error("sends next to nothing")]
    Trickles,
    #[error("asks to be left alone for {} seconds", .0.as_secs())]
    Busy(Duration),
    /// Other bytes may be published under the same address by now; hashes will tell.
    #[error("has another file than a moment ago")]
    Changed,
    #[error("must not be used: {0}")]
    Refused(Box<Refused>),
    #[error(
        "sent bytes for piece {piece} that are not the published content; it is not used again"
    )]
    Poisoned { piece: u32 },
}

impl From<Refused> for WebSeedProblem {
    fn from(refused: Refused) -> WebSeedProblem {
        WebSeedProblem::Refused(Box::new(refused))
    }
}

impl FillError {
    pub fn fault(&self) -> Fault {
        match self {
            FillError::Cancelled | FillError::Sink(_) | FillError::Engine(_) => Fault::Local,
            FillError::NoSource | FillError::Metainfo(_) => Fault::Operator,
            FillError::WebSeed { problem, .. } => problem.fault(),
            FillError::Stalled(_) => Fault::Network,
            FillError::BadPeers { .. } => Fault::Peer,
        }
    }

    /// Whether the same fill may succeed later without anybody doing anything on this device. What
    /// the operator must repair counts: it will, and the device should notice.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, FillError::Cancelled | FillError::Metainfo(_))
    }
}

impl WebSeedProblem {
    pub fn fault(&self) -> Fault {
        match self {
            WebSeedProblem::Unreachable(_)
            | WebSeedProblem::Truncated
            | WebSeedProblem::Trickles => Fault::Network,
            _ => Fault::Operator,
        }
    }

    /// Worth another attempt within the same fill.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            WebSeedProblem::Unreachable(_)
            | WebSeedProblem::Truncated
            | WebSeedProblem::Trickles
            | WebSeedProblem::Changed => true,
            // Too early, too many requests, and the server's own troubles.
            WebSeedProblem::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}
