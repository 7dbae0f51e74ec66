//! What one line of the books counts: bytes of one content to one class of peer in one UTC hour.

use serde::{Deserialize, Serialize};

use super::{infohash::Infohash, now::UtcHour};

/// Who took the bytes; only `Wan` is limited by the uplink and paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerClass {
    Wan,
    Lan,
}

impl PeerClass {
    pub fn as_str(self) -> &'static str {
        match self {
            PeerClass::Wan => "wan",
            PeerClass::Lan => "lan",
        }
    }
}

/// `payload` is piece data that the peer's kernel acknowledged; `wire` adds the peer protocol's own
/// bytes and an estimate of the TCP/IP headers. Both in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub payload_bytes: u64,
    pub wire_bytes: u64,
}

impl Usage {
    pub fn add(&mut self, other: Usage) {
        self.payload_bytes = self.payload_bytes.saturating_add(other.payload_bytes);
        self.wire_bytes = self.wire_bytes.saturating_add(other.wire_bytes);
    }

    pub fn is_zero(&self) -> bool {
        *self == Usage::default()
    }
}

/// What the serving engine hands over each time it is asked: bytes since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageDelta {
    pub infohash: Infohash,
    pub class: PeerClass,
    pub usage: Usage,
}

/// A line of a report or of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageLine {
    pub infohash: Infohash,
    pub hour: UtcHour,
    pub class: PeerClass,
    #[serde(flatten)]
    pub usage: Usage,
}
