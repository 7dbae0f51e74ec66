//! Telling an HTTP tracker that we are here (BEP 3, 7, 12). The first tracker of the tiers that
//! answers is enough.

use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use url::Url;

use super::UpstreamError;
use crate::logic::{bencoding, infohash::Infohash, node::AnnounceEvent};

/// A seed asks for no peers, so an answer is tiny.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

pub struct AnnounceRequest<'a> {
    pub infohash: Infohash,
    pub peer_id: [u8; 20],
    pub port: u16,
    pub uploaded: u64,
    pub left: u64,
    pub event: AnnounceEvent,
    pub tracker_tiers: &'a [Vec<Url>],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    pub interval: Duration,
}

#[derive(Deserialize)]
struct Answer {
    interval: Option<u64>,
    #[serde(rename = "failure reason")]
    failure_reason: Option<ByteBuf>,
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
    let bytes = super::get(client, &url, MAX_ANSWER_BYTES).await?;
    let answer: Answer =
        bencoding::from_bytes(&bytes).map_err(|e| UpstreamError::bad_answer(tracker, e))?;
    if let Some(reason) = answer.failure_reason {
        return Err(UpstreamError::bad_answer(tracker, String::from_utf8_lossy(&reason)));
    }
    let seconds = answer
        .interval
        .ok_or_else(|| UpstreamError::bad_answer(tracker, "an answer without an interval"))?;
    Ok(Announced { interval: Duration::from_secs(seconds) })
}

impl AnnounceRequest<'_> {
    /// Keeps a query that the tracker's URL already has (a passkey, say).
    fn url(&self, tracker: &Url) -> Url {
        let mut query = tracker.query().map(|q| format!("{q}&")).unwrap_or_default();
        query += &format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded=0&left={}&compact=1&numwant=0",
            percent(&self.infohash.0),
            percent(&self.peer_id),
            self.port,
            self.uploaded,
            self.left,
        );
        query += match self.event {
            AnnounceEvent::Started => "&event=started",
            AnnounceEvent::Completed => "&event=completed",
            AnnounceEvent::Stopped => "&event=stopped",
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
            left: 0,
            event: AnnounceEvent::Started,
            tracker_tiers: &[],
        };
        let url = request.url(&"http://tracker.example/announce?key=1".parse().expect("a URL"));
        let query = url.query().expect("has one");
        assert!(query.starts_with("key=1&info_hash=%FF%FF"), "{query}");
        assert!(query.ends_with("&left=0&compact=1&numwant=0&event=started"), "{query}");
    }
}
