//! Tracker answers as bencoding. Dictionaries are sorted by key (BEP 3): keep the fields in order.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Serialize;
use serde_bytes::{ByteBuf, Bytes};

use super::{Peers, QueryError};
use crate::logic::infohash::Infohash;

#[derive(Serialize)]
struct AnnounceAnswer<'a, P: Serialize> {
    complete: u64,
    /// BEP 24: what the asker looks like from here.
    #[serde(rename = "external ip")]
    external_ip: &'a Bytes,
    incomplete: u64,
    interval: u64,
    #[serde(rename = "min interval")]
    min_interval: u64,
    peers: P,
    /// BEP 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    peers6: Option<ByteBuf>,
}

#[derive(Serialize)]
struct LongPeer<'a> {
    ip: String,
    #[serde(rename = "peer id")]
    peer_id: &'a Bytes,
    port: u16,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(rename = "failure reason")]
    failure_reason: &'a str,
}

#[derive(Serialize)]
struct ScrapeAnswer {
    files: BTreeMap<ByteBuf, ScrapeFile>,
}

#[derive(Serialize)]
struct ScrapeFile {
    complete: u64,
    downloaded: u64,
    incomplete: u64,
}

pub fn announce_answer(peers: &Peers, compact: bool, asker: IpAddr, interval: Duration) -> Vec<u8> {
    let (v4, v6);
    let external_ip = match asker {
        IpAddr::V4(ip) => {
            v4 = ip.octets();
            Bytes::new(&v4)
        }
        IpAddr::V6(ip) => {
            v6 = ip.octets();
            Bytes::new(&v6)
        }
    };
    let interval = interval.as_secs();
    let (complete, incomplete) = (peers.seeds as u64, peers.leechers as u64);
    let min_interval = interval.div_ceil(2);
    if compact {
        let (peers, peers6) = compact_peers(peers);
        let peers6 = (!peers6.is_empty()).then_some(peers6);
        return encode(&AnnounceAnswer {
            complete,
            external_ip,
            incomplete,
            interval,
            min_interval,
            peers,
            peers6,
        });
    }
    let peers: Vec<LongPeer<'_>> = peers
        .peers
        .iter()
        .map(|(id, at)| LongPeer {
            ip: at.ip().to_string(),
            peer_id: Bytes::new(id),
            port: at.port(),
        })
        .collect();
    let peers6 = None;
    encode(&AnnounceAnswer {
        complete,
        external_ip,
        incomplete,
        interval,
        min_interval,
        peers,
        peers6,
    })
}

fn compact_peers(peers: &Peers) -> (ByteBuf, ByteBuf) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for (_, address) in &peers.peers {
        match address {
            SocketAddr::V4(at) => {
                four.extend(at.ip().octets());
                four.extend(at.port().to_be_bytes());
            }
            SocketAddr::V6(at) => {
                six.extend(at.ip().octets());
                six.extend(at.port().to_be_bytes());
            }
        }
    }
    (ByteBuf::from(four), ByteBuf::from(six))
}

pub fn scrape_answer(found: &[(Infohash, Peers)]) -> Vec<u8> {
    let file = |peers: &Peers| ScrapeFile {
        complete: peers.seeds as u64,
        downloaded: peers.completed,
        incomplete: peers.leechers as u64,
    };
    encode(&ScrapeAnswer {
        files: found.iter().map(|(hash, p)| (ByteBuf::from(hash.0), file(p))).collect(),
    })
}

/// The one form of error that BitTorrent clients show.
pub fn failure(reason: &str) -> Vec<u8> {
    encode(&Failure { failure_reason: reason })
}

impl QueryError {
    pub fn answer(&self) -> Vec<u8> {
        failure(&self.to_string())
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    bencode::bencode_serialize_to_writer(value, &mut out)
        .expect("writing plain values to memory cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        Peers {
            seeds: 1,
            leechers: 1,
            completed: 3,
            peers: vec![
                ([b'a'; 20], "1.2.3.4:258".parse().expect("an address")),
                ([b'b'; 20], "[::1]:258".parse().expect("an address")),
            ],
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        bytes.iter().map(|b| char::from(*b)).collect()
    }

    #[test]
    fn writes_compact_peers_of_both_families() {
        let asker = "9.8.7.6".parse().expect("an address");
        let answer = announce_answer(&peers(), true, asker, Duration::from_secs(1800));
        assert_eq!(
            text(answer),
            "d8:completei1e11:external ip4:\x09\x08\x07\x0610:incompletei1e8:intervali1800e\
             12:min intervali900e5:peers6:\x01\x02\x03\x04\x01\x02\
             6:peers618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02e"
        );
    }

    #[test]
    fn writes_long_peers_for_those_who_ask() {
        let asker = "9.8.7.6".parse().expect("an address");
        let answer = text(announce_answer(&peers(), false, asker, Duration::from_secs(60)));
        assert!(answer.contains(
            "5:peersld2:ip7:1.2.3.47:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti258eed2:ip3:::17:peer id"
        ));
    }

    #[test]
    fn writes_scrapes_and_failures() {
        let answer = text(scrape_answer(&[(Infohash([b'h'; 20]), peers())]));
        assert_eq!(
            answer,
            "d5:filesd20:hhhhhhhhhhhhhhhhhhhhd8:completei1e10:downloadedi3e10:incompletei1eeee"
        );
        assert_eq!(text(failure("no")), "d14:failure reason2:noe");
    }
}
