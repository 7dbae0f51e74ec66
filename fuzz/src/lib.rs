//! What is fuzzed: for each parser of bytes from elsewhere a `check`, which panics if the parser
//! breaks a promise and answers whether it accepted the bytes. libFuzzer calls them (`make fuzz`), and
//! so does tests/fuzz_replay, over the committed corpus; so they name nothing but `larder` and std.

pub mod extension;
pub mod handshake;
pub mod hotlist;
pub mod input;
pub mod journal;
pub mod messages;
pub mod metadata;
pub mod metainfo;
pub mod mse;
pub mod observer;
pub mod policy;
pub mod session;
pub mod tracker;

/// Whether the parser took the bytes for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Refused,
}
