//! A tracker's answer to an announce (BEP 3, 7, 23): how long to wait, and who else is there. What it says
//! of peers is not judged here; a tracker may be anybody.

use std::{net::SocketAddr, time::Duration};

use bencode::{BencodeValue, ByteBuf};

use super::{NAMED_MAX, compact_v4, compact_v6};
use crate::logic::bencoding;

/// A few dozen peers, in the form that some trackers prefer to the compact one.
pub const MAX_ANSWER_BYTES: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    pub interval: Duration,
    /// As the tracker says; [`NAMED_MAX`] of each address family at most.
    pub peers: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Failure(String),
    #[error("an answer without an interval")]
    NoInterval,
}

impl Announced {
    /// Peers in a form that is not compact (BEP 23) are passed over: a tracker was asked for the other.
    pub fn parse(answer: &[u8]) -> Result<Announced, AnswerError> {
        type Value<'a> = BencodeValue<ByteBuf<'a>>;
        let malformed = |problem: String| AnswerError::Malformed(problem);
        if answer.len() as u64 > MAX_ANSWER_BYTES {
            return Err(malformed(format!("more than {MAX_ANSWER_BYTES} bytes")));
        }
        let answer: Value<'_> =
            bencoding::from_bytes(answer).map_err(|e| malformed(e.to_string()))?;
        let BencodeValue::Dict(answer) = answer else {
            return Err(malformed("not a dictionary".into()));
        };
        let bytes = |key: &[u8]| match answer.get(key) {
            Some(BencodeValue::Bytes(bytes)) => Some(bytes.0),
            _ => None,
        };
        if let Some(reason) = bytes(b"failure reason") {
            return Err(AnswerError::Failure(String::from_utf8_lossy(reason).into_owned()));
        }
        let seconds = match answer.get(&b"interval"[..]) {
            Some(BencodeValue::Integer(seconds)) => u64::try_from(*seconds).ok(),
            _ => None,
        };
        let seconds = seconds.ok_or(AnswerError::NoInterval)?;
        let v4 = compact_v4(bytes(b"peers").unwrap_or_default(), NAMED_MAX);
        let v6 = compact_v6(bytes(b"peers6").unwrap_or_default(), NAMED_MAX);
        Ok(Announced { interval: Duration::from_secs(seconds), peers: v4.chain(v6).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_peers_of_both_families_and_no_more_than_asked_for() {
        let many = "abcdef".repeat(NAMED_MAX + 5);
        let answer = format!(
            "d8:completei1e8:intervali1800e5:peers{}:{many}6:peers618:{}\x1a\x65e",
            many.len(),
            "b".repeat(16)
        );
        let announced = Announced::parse(answer.as_bytes()).expect("well-formed");
        assert_eq!(announced.interval, Duration::from_secs(1800));
        assert_eq!(announced.peers.len(), NAMED_MAX + 1);
        assert_eq!(announced.peers[0], "97.98.99.100:25958".parse().expect("an address"));
        assert!(announced.peers[NAMED_MAX].is_ipv6());
        assert_eq!(announced.peers[NAMED_MAX].port(), 0x1a65);
    }

    #[test]
    fn an_answer_without_readable_peers_is_an_answer_all_the_same() {
        for answer in ["d8:intervali60ee", "d8:intervali60e5:peersld2:ip7:1.2.3.44:porti1eeee"] {
            let announced = Announced { interval: Duration::from_secs(60), peers: vec![] };
            assert_eq!(Announced::parse(answer.as_bytes()), Ok(announced));
        }
        let refused = Announced::parse(b"d14:failure reason8:not heree");
        assert_eq!(refused, Err(AnswerError::Failure("not here".into())));
        assert_eq!(Announced::parse(b"d5:peers0:e"), Err(AnswerError::NoInterval));
        assert!(Announced::parse(b"<html>").is_err());
    }

    /// The library goes down into every list, but not for ever.
    #[test]
    fn refuses_lists_within_lists_within_lists() {
        let deep = [b"d1:a".as_slice(), &b"l".repeat(30_000), &b"e".repeat(30_001)].concat();
        assert!(matches!(Announced::parse(&deep), Err(AnswerError::Malformed(_))));
    }
}
