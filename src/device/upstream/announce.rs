//! Telling an HTTP tracker that we are here, and hearing who else is (BEP 3, 7, 12, 23). The first
//! tracker of the tiers that answers is enough. What it says of peers is not judged here.

use std::{net::SocketAddr, time::Duration};

use bencode::{BencodeValue, ByteBuf};
use reqwest::Client;
use url::Url;

use super::UpstreamError;
use crate::logic::{
    bencoding,
    infohash::Infohash,
    node::AnnounceEvent,
    outreach::{NAMED_MAX, compact_v4, compact_v6},
};

/// A few dozen peers, in the form that some trackers prefer to the compact one.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

pub struct AnnounceRequest<'a> {
    pub infohash: Infohash,
    pub peer_id: [u8; 20],
    pub port: u16,
    pub uploaded: u64,
    pub left: u64,
    /// The bytes that are held. A seed that has moved nothing could be a client with a magnet link that
    /// does not know what it lacks, and would be told of other seeds.
    pub downloaded: u64,
    pub event: AnnounceEvent,
    pub tracker_tiers: &'a [Vec<Url>],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    pub interval: Duration,
    /// As the tracker says; [`NAMED_MAX`] of each address family at most.
    pub peers: Vec<SocketAddr>,
}

pub async fn announce(
    client: &Client,
    request: &AnnounceRequest<'_>,
) -> Result<Announced, UpstreamError> {
    let mut last = UpstreamError::Local("the hot list names no HTTP tracker".into());
    let http = |url: &&Url| matches!(url.scheme(), "http" | "https");
    for tracker in request.tracker_tiers.iter().flatten().filter(http) {
        match announce_to(client, tracker, request).await {
            Ok(announced) => return Ok(announced),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn announce_to(
    client: &Client,
    tracker: &Url,
    request: &AnnounceRequest<'_>,
) -> Result<Announced, UpstreamError> {
    let url = request.url(tracker);
    let answer = super::exchange::get(client, &url, MAX_ANSWER_BYTES).await?;
    read_answer(&answer).map_err(|problem| UpstreamError::bad_answer(tracker, problem))
}

/// Peers in a form that is not compact (BEP 23) are passed over: a tracker was asked for the other.
fn read_answer(answer: &[u8]) -> Result<Announced, String> {
    type Value<'a> = BencodeValue<ByteBuf<'a>>;
    let answer: Value<'_> = bencoding::from_bytes(answer).map_err(|e| e.to_string())?;
    let BencodeValue::Dict(answer) = answer else { return Err("not a dictionary".into()) };
    let bytes = |key: &[u8]| match answer.get(key) {
        Some(BencodeValue::Bytes(bytes)) => Some(bytes.0),
        _ => None,
    };
    if let Some(reason) = bytes(b"failure reason") {
        return Err(String::from_utf8_lossy(reason).into_owned());
    }
    let seconds = match answer.get(&b"interval"[..]) {
        Some(BencodeValue::Integer(seconds)) => u64::try_from(*seconds).ok(),
        _ => None,
    };
    let seconds = seconds.ok_or("an answer without an interval")?;
    let v4 = compact_v4(bytes(b"peers").unwrap_or_default(), NAMED_MAX);
    let v6 = compact_v6(bytes(b"peers6").unwrap_or_default(), NAMED_MAX);
    Ok(Announced { interval: Duration::from_secs(seconds), peers: v4.chain(v6).collect() })
}

impl AnnounceRequest<'_> {
    /// Keeps a query that the tracker's URL already has (a passkey, say).
    fn url(&self, tracker: &Url) -> Url {
        let mut query = tracker.query().map(|q| format!("{q}&")).unwrap_or_default();
        query += &format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact=1&numwant={}",
            percent(&self.infohash.0),
            percent(&self.peer_id),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
            if self.event == AnnounceEvent::Stopped { 0 } else { NAMED_MAX },
        );
        query += match self.event {
            AnnounceEvent::Started => "&event=started",
            AnnounceEvent::Completed => "&event=completed",
            AnnounceEvent::Stopped => "&event=stopped",
            // BEP 21: a partial seed, which wants nothing more for now.
            AnnounceEvent::None if self.left > 0 => "&event=paused",
            AnnounceEvent::None => "",
        };
        let mut url = tracker.clone();
        url.set_query(Some(&query));
        url
    }
}

/// Every byte escaped: correct for any value (RFC 3986 section 2.1), and nobody reads it.
fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("%{b:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_passkey_and_escapes_every_byte() {
        let request = AnnounceRequest {
            infohash: Infohash([0xff; 20]),
            peer_id: *b"-LD0100-abcdefghijkl",
            port: 6881,
            uploaded: 7,
            downloaded: 9,
            left: 0,
            event: AnnounceEvent::Started,
            tracker_tiers: &[],
        };
        let url = request.url(&"http://tracker.example/announce?key=1".parse().expect("a URL"));
        let query = url.query().expect("has one");
        assert!(query.starts_with("key=1&info_hash=%FF%FF"), "{query}");
        assert!(
            query.ends_with("&downloaded=9&left=0&compact=1&numwant=50&event=started"),
            "{query}"
        );
    }

    #[test]
    fn says_that_a_part_is_not_the_whole() {
        let announce = |left| {
            let request = AnnounceRequest {
                infohash: Infohash([1; 20]),
                peer_id: *b"-LD0100-abcdefghijkl",
                port: 6881,
                uploaded: 0,
                downloaded: 30,
                left,
                event: AnnounceEvent::None,
                tracker_tiers: &[],
            };
            request.url(&"http://tracker.example/announce".parse().expect("a URL")).to_string()
        };
        assert!(announce(70).ends_with("&downloaded=30&left=70&compact=1&numwant=50&event=paused"));
        assert!(announce(0).ends_with("&left=0&compact=1&numwant=50"));
    }

    #[test]
    fn reads_peers_of_both_families_and_no_more_than_asked_for() {
        let many = "abcdef".repeat(NAMED_MAX + 5);
        let answer = format!(
            "d8:completei1e8:intervali1800e5:peers{}:{many}6:peers618:{}\x1a\x65e",
            many.len(),
            "b".repeat(16)
        );
        let announced = read_answer(answer.as_bytes()).expect("well-formed");
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
            assert_eq!(read_answer(answer.as_bytes()), Ok(announced));
        }
        let refused = read_answer(b"d14:failure reason8:not heree");
        assert_eq!(refused, Err("not here".into()));
        assert!(read_answer(b"d5:peers0:e").is_err() && read_answer(b"<html>").is_err());
    }
}
