//! The query strings of announce and scrape. Values are bytes, not text: `info_hash` and `peer_id`
//! are percent-encoded binary, so the usual form parsers would spoil them.

use percent_encoding::percent_decode_str;

use super::PeerId;
use crate::logic::infohash::Infohash;

/// Trackers see at most a few hundred bytes; scrapes name several infohashes.
const MAX_QUERY_BYTES: usize = 8 * 1024;
/// More infohashes than this in one scrape is not a client looking after its torrents.
const MAX_SCRAPE: usize = 74;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Started,
    Stopped,
    Completed,
    /// A partial seed (BEP 21): it lacks something and does not want it for now.
    Paused,
    /// A regular announce.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    pub infohash: Infohash,
    pub peer_id: PeerId,
    pub port: u16,
    /// Bytes still missing; unknown counts as missing something.
    pub left: u64,
    pub uploaded: u64,
    pub downloaded: u64,
    pub event: Event,
    pub numwant: Option<usize>,
    /// BEP 23; the default, as clients without it are rare and may ask.
    pub compact: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("the request is too long")]
    TooLong,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is not valid")]
    Invalid(&'static str),
    #[error("name at most {MAX_SCRAPE} torrents in one scrape")]
    TooMany,
}

pub fn parse_announce(query: &str) -> Result<Announce, QueryError> {
    let (mut infohash, mut peer_id, mut port) = (None, None, None);
    let (mut uploaded, mut downloaded) = (0, 0);
    let (mut left, mut event, mut numwant, mut compact) = (u64::MAX, Event::None, None, true);
    for (key, value) in pairs(query)? {
        match key {
            "info_hash" => infohash = Some(twenty(value, "info_hash")?),
            "peer_id" => peer_id = Some(twenty(value, "peer_id")?),
            "port" => port = Some(value.parse().map_err(|_| QueryError::Invalid("port"))?),
            "left" => left = value.parse().unwrap_or(u64::MAX),
            "uploaded" => uploaded = value.parse().unwrap_or(0),
            "downloaded" => downloaded = value.parse().unwrap_or(0),
            "numwant" => numwant = value.parse::<i64>().ok().and_then(|n| n.try_into().ok()),
            "compact" => compact = value != "0",
            "event" => {
                event = match value {
                    "started" => Event::Started,
                    "stopped" => Event::Stopped,
                    "completed" => Event::Completed,
                    "paused" => Event::Paused,
                    _ => Event::None,
                }
            }
            _ => {}
        }
    }
    Ok(Announce {
        infohash: Infohash(infohash.ok_or(QueryError::Missing("info_hash"))?),
        peer_id: peer_id.ok_or(QueryError::Missing("peer_id"))?,
        port: port.ok_or(QueryError::Missing("port"))?,
        left,
        uploaded,
        downloaded,
        event,
        numwant,
        compact,
    })
}

impl Announce {
    pub fn is_seed(&self) -> bool {
        self.left == 0
    }

    /// A client that has only a magnet link does not know what it lacks, and some say `left=0`.
    /// Who has moved no byte yet may be one of them.
    pub fn needs_nothing(&self) -> bool {
        let moved = self.uploaded > 0 || self.downloaded > 0;
        self.event == Event::Paused || self.is_seed() && (moved || self.event == Event::Completed)
    }
}

pub fn parse_scrape(query: &str) -> Result<Vec<Infohash>, QueryError> {
    let mut found = Vec::new();
    for (key, value) in pairs(query)? {
        if key == "info_hash" {
            found.push(Infohash(twenty(value, "info_hash")?));
        }
        if found.len() > MAX_SCRAPE {
            return Err(QueryError::TooMany);
        }
    }
    match found.is_empty() {
        true => Err(QueryError::Missing("info_hash")),
        false => Ok(found),
    }
}

fn pairs(query: &str) -> Result<impl Iterator<Item = (&str, &str)>, QueryError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong);
    }
    Ok(query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))))
}

fn twenty(value: &str, name: &'static str) -> Result<[u8; 20], QueryError> {
    let bytes: Vec<u8> = percent_decode_str(value).collect();
    bytes.try_into().map_err(|_| QueryError::Invalid(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
        &peer_id=-LD0001-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=0&event=started";

    #[test]
    fn reads_what_clients_send() {
        let announce = parse_announce(GOOD).expect("parses");
        assert_eq!(announce.infohash.to_string(), "123456789abcdef123456789abcdef123456789a");
        assert_eq!(&announce.peer_id, b"-LD0001-abcdefghijkl");
        assert_eq!((announce.port, announce.left), (6881, 0));
        assert_eq!((announce.event, announce.numwant), (Event::Started, None));
        assert!(announce.compact);
        let more = format!("{GOOD}&compact=0&numwant=-1&supportcrypto=1&key");
        let announce = parse_announce(&more).expect("parses");
        assert_eq!((announce.compact, announce.numwant), (false, None));
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |query: &str| parse_announce(query).expect_err("refused");
        assert_eq!(error(""), QueryError::Missing("info_hash"));
        assert_eq!(error("info_hash=abc"), QueryError::Invalid("info_hash"));
        assert_eq!(error(&GOOD.replace("6881", "70000")), QueryError::Invalid("port"));
        assert_eq!(error(&GOOD.replace("port=", "prt=")), QueryError::Missing("port"));
        assert_eq!(error(&"x".repeat(MAX_QUERY_BYTES + 1)), QueryError::TooLong);
        let many = "info_hash=aaaaaaaaaaaaaaaaaaaa&".repeat(MAX_SCRAPE + 1);
        assert_eq!(parse_scrape(&many), Err(QueryError::TooMany));
        assert_eq!(parse_scrape(&many[..30]), Ok(vec![Infohash([b'a'; 20])]));
    }

    proptest! {
        #[test]
        fn never_panics(query in ".{0,300}") {
            let _ = parse_announce(&query);
            let _ = parse_scrape(&query);
        }
    }
}
