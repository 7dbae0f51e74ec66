//! Telling an HTTP tracker that we are here, and hearing who else is (BEP 3, 7, 12, 23). The first
//! tracker of the tiers that answers is enough. What it says of peers is not judged here.

use url::Url;

use super::{super::outbound::Outbound, UpstreamError};
use crate::logic::{
    infohash::Infohash,
    node::AnnounceEvent,
    outreach::{Announced, MAX_ANSWER_BYTES, NAMED_MAX},
};

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

pub async fn announce(
    outbound: &Outbound,
    request: &AnnounceRequest<'_>,
) -> Result<Announced, UpstreamError> {
    let mut last = UpstreamError::Local("the hot list names no HTTP tracker".into());
    let http = |url: &&Url| matches!(url.scheme(), "http" | "https");
    for tracker in request.tracker_tiers.iter().flatten().filter(http) {
        match announce_to(outbound, tracker, request).await {
            Ok(announced) => return Ok(announced),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn announce_to(
    outbound: &Outbound,
    tracker: &Url,
    request: &AnnounceRequest<'_>,
) -> Result<Announced, UpstreamError> {
    let url = request.url(tracker);
    let answer = super::get_outside(outbound, &url, MAX_ANSWER_BYTES).await?;
    Announced::parse(&answer).map_err(|problem| UpstreamError::bad_answer(tracker, problem))
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
}
