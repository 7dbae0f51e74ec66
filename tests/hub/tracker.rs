//! The tracker, as BitTorrent clients and devices see it.

use std::net::SocketAddr;

use larder::{
    api::hub::{RevokeRequest, Revoked, SourcesRequest, SourcesResponse},
    logic::infohash::Infohash,
};

use crate::harness::{Answer, Device, Hub, code, noise, now};

struct Peer<'a> {
    id: [u8; 20],
    port: u16,
    left: u64,
    more: &'a str,
}

async fn announce(hub: &Hub, infohash: Infohash, peer: &Peer<'_>) -> Vec<u8> {
    let encode = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("%{b:02x}")).collect() };
    let path = format!(
        "announce?info_hash={}&peer_id={}&port={}&uploaded=0&downloaded=0&left={}{}",
        encode(&infohash.0),
        encode(&peer.id),
        peer.port,
        peer.left,
        peer.more
    );
    hub.get(&path, &[("x-forwarded-for", "203.0.113.9")])
        .await
        .bytes()
        .await
        .expect("a body")
        .into()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn introduces_peers_of_published_contents_only() {
    let hub = Hub::start().await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let seed = Peer { id: [1; 20], port: 258, left: 0, more: "&event=started" };
    let answer = announce(&hub, infohash, &seed).await;
    assert!(contains(&answer, b"8:intervali1800e"));
    assert!(contains(&answer, b"5:peers0:"));

    let leecher = Peer { id: [2; 20], port: 259, left: 10, more: "" };
    let answer = announce(&hub, infohash, &leecher).await;
    assert!(contains(&answer, &[b"5:peers6:".as_slice(), &[127, 0, 0, 1, 1, 2]].concat()));
    assert!(!contains(&answer, &[203, 0, 113, 9]), "headers are not believed");
    let long = announce(&hub, infohash, &Peer { more: "&compact=0", ..leecher }).await;
    assert!(contains(&long, b"2:ip9:127.0.0.17:peer id20:"));

    let scrape = format!("scrape?info_hash={}", "%".to_owned() + &hex_pairs(infohash));
    let scraped = hub.get(&scrape, &[]).await.bytes().await.expect("a body");
    assert!(contains(&scraped, b"8:completei1e10:downloadedi0e10:incompletei1e"));

    announce(&hub, infohash, &Peer { more: "&event=stopped", ..seed }).await;
    let answer = announce(&hub, infohash, &leecher).await;
    assert!(contains(&answer, b"5:peers0:"));

    let other = announce(&hub, Infohash([9; 20]), &leecher).await;
    assert!(other.starts_with(b"d14:failure reason"));
    let request = RevokeRequest { infohash, reason: "takedown".into() };
    hub.tell::<Revoked>("list/revoke", &request).await.expect("is revoked");
    let answer = announce(&hub, infohash, &leecher).await;
    assert!(answer.starts_with(b"d14:failure reason"));
}

fn hex_pairs(infohash: Infohash) -> String {
    infohash.0.map(|b| format!("{b:02x}")).join("%")
}

async fn sources(hub: &Hub, device: &Device, infohash: Infohash) -> Answer<SourcesResponse> {
    let request = SourcesRequest { device: device.id.clone(), infohash, created_at: now() };
    hub.tell_as("", "sources", &device.sign(&request)).await
}

#[tokio::test]
async fn names_enrolled_devices_as_sources_and_never_strangers() {
    let hub = Hub::start().await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let (partial, complete, asker) = (
        Device::enrolled(&hub, 1).await,
        Device::enrolled(&hub, 2).await,
        Device::enrolled(&hub, 3).await,
    );
    let peer = |id, port, left| Peer { id, port, left, more: "" };
    announce(&hub, infohash, &peer(partial.peer_id, 1001, 10)).await;
    announce(&hub, infohash, &peer(complete.peer_id, 1002, 0)).await;
    announce(&hub, infohash, &peer(asker.peer_id, 1003, 10)).await;
    announce(&hub, infohash, &peer(*b"-XX0000-not-enrolled", 1004, 0)).await;
    let answer = sources(&hub, &asker, infohash).await.expect("answers");
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(answer.peers, [at(1002), at(1001)]);

    let stranger = Device::new(9);
    assert_eq!(code(sources(&hub, &stranger, infohash).await), (401, "not_enrolled".into()));
}
