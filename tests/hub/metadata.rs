//! The signed repository, as a device reads it.

use async_trait::async_trait;
use larder::{
    api::hub::{RevokeRequest, Revoked},
    logic::hotlist::{HotList, LIST_TARGET, POLICY_TARGET, Policy},
};
use reqwest::StatusCode;
use tough::{
    IntoVec, Repository, RepositoryLoader, TargetName, Transport, TransportError,
    TransportErrorKind, TransportStream,
};
use url::Url;

use crate::harness::{Hub, noise};

#[derive(Clone, Debug)]
struct Http;

#[async_trait]
impl Transport for Http {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let failed = |kind, e| TransportError::new_with_cause(kind, url.clone(), e);
        let answer =
            reqwest::get(url.clone()).await.map_err(|e| failed(TransportErrorKind::Other, e))?;
        let kind = match answer.status() {
            StatusCode::NOT_FOUND => TransportErrorKind::FileNotFound,
            _ => TransportErrorKind::Other,
        };
        let answer = answer.error_for_status().map_err(|e| failed(kind, e))?;
        let bytes = answer.bytes().await.map_err(|e| failed(TransportErrorKind::Other, e))?;
        Ok(Box::pin(futures_util::stream::once(async { Ok(bytes) })))
    }
}

async fn load(hub: &Hub) -> Repository {
    let root = std::fs::read(hub.data().join("root.json")).expect("the pinned root");
    let url = |folder: &str| format!("{}tuf/{folder}/", hub.url).parse().expect("a URL");
    RepositoryLoader::new(&root, url("metadata"), url("targets"))
        .transport(Http)
        .load()
        .await
        .expect("verifies")
}

async fn read(repository: &Repository, name: &str) -> Vec<u8> {
    let name = TargetName::new(name).expect("a name");
    let stream = repository.read_target(&name).await.expect("reads").expect("is there");
    stream.into_vec().await.expect("verifies")
}

async fn list(hub: &Hub) -> HotList {
    HotList::parse(&read(&load(hub).await, LIST_TARGET).await).expect("parses")
}

#[tokio::test]
async fn a_device_follows_publications_and_revocations() {
    let mut hub = Hub::start().await;
    let first = list(&hub).await;
    assert_eq!((first.epoch, first.entries.len()), (1, 0));
    let published = hub.publish("film.mp4", &noise(1, 5000)).await;
    let second = list(&hub).await;
    assert_eq!(second.epoch, published.epoch);
    assert!(second.may_replace(&first).is_ok());
    assert!(second.entry(published.infohash).is_some());

    let request = RevokeRequest { infohash: published.infohash, reason: "takedown".into() };
    let revoked: Revoked = hub.tell("list/revoke", &request).await.expect("is revoked");
    let third = list(&hub).await;
    assert_eq!((third.epoch, third.entries.len()), (revoked.epoch, 0));
    assert!(third.may_replace(&second).is_ok());
    let origin = hub.get(&format!("origin/{}/film.mp4", published.infohash), &[]).await;
    assert_eq!(origin.status(), StatusCode::NOT_FOUND);
    let again = hub.tell::<Revoked>("list/revoke", &request).await.expect_err("refused");
    assert_eq!((again.0, again.1.code.as_str()), (404, "unknown_content"));

    hub.kill();
    hub.run().await;
    assert_eq!(list(&hub).await, third);
}

#[tokio::test]
async fn the_policy_follows_the_configuration() {
    let mut hub = Hub::start_with("[policy.price_per_gb]\nstandard = 5\ngold = 7\n").await;
    let policy = Policy::parse(&read(&load(&hub).await, POLICY_TARGET).await).expect("parses");
    assert_eq!((policy.price("standard").0, policy.price("gold").0), (5, 7));
    assert!(hub.stop().await.success());
    std::fs::write(hub.scratch().join("hub.toml"), "[policy.price_per_gb]\nstandard = 6\n")
        .expect("writes");
    hub.run().await;
    let policy = Policy::parse(&read(&load(&hub).await, POLICY_TARGET).await).expect("parses");
    assert_eq!((policy.price("standard").0, policy.price("gold").0), (6, 0));
}

/// A hub that moves (here: gets another port) must not leave its old address in the list.
#[tokio::test]
async fn addresses_in_the_list_follow_the_public_url() {
    let mut hub = Hub::start().await;
    let published = hub.publish("film.mp4", &noise(1, 5000)).await;
    let before = hub.url.clone();
    // Taken by us or by a faster one: the hub cannot get its port again.
    assert!(hub.stop().await.success());
    let old = before.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let _taken = std::net::TcpListener::bind(&old);
    hub.run().await;
    assert_ne!(hub.url, before);
    let list = list(&hub).await;
    assert!(list.epoch > published.epoch);
    let entry = list.entry(published.infohash).expect("is listed");
    assert!(entry.metainfo_url.as_str().starts_with(&hub.url));
    assert!(entry.web_seeds[0].as_str().starts_with(&hub.url));
    assert!(entry.tracker_tiers[0][0].as_str().starts_with(&hub.url));
    let torrent = reqwest::get(entry.metainfo_url.clone()).await.expect("answers");
    assert_eq!(torrent.status(), StatusCode::OK);
}

#[tokio::test]
async fn conditional_requests_cost_next_to_nothing() {
    let hub = Hub::start().await;
    for (path, cached) in [
        ("tuf/metadata/timestamp.json", "public, max-age=5"),
        ("tuf/metadata/1.root.json", "public, max-age=31536000, immutable"),
        ("tuf/metadata/1.snapshot.json", "public, max-age=31536000, immutable"),
    ] {
        let answer = hub.get(path, &[]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()["cache-control"], cached, "{path}");
        let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
        assert!(etag.starts_with('"'), "strong");
        let again = hub.get(path, &[("if-none-match", &etag)]).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.bytes().await.expect("a body").is_empty());
        let head = hub.request(reqwest::Method::HEAD, path, &[]).await;
        assert_eq!(head.headers()["etag"], etag.as_str());
    }
    for path in
        ["tuf/metadata/99.root.json", "tuf/metadata/..%2f..%2fkeys%2froot.pk8", "tuf/targets/"]
    {
        assert_eq!(hub.get(path, &[]).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
