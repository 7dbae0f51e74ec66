//! Uploads, publishing and the origin.

use std::time::Duration;

use larder::{
    api::hub::{
        ApiError, OriginUsage, PublishRequest, Published, Revoked, UploadFile, UploadState,
    },
    logic::{hotlist::HotList, metainfo::Metainfo},
};
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::harness::{Hub, code, noise, publish_request, single, wait_for};

#[tokio::test]
async fn publishes_a_file_that_peers_can_verify() {
    let hub = Hub::start().await;
    let bytes = noise(1, 300_000);
    let published = hub.publish("film – ü.mp4", &bytes).await;
    assert!(!published.already_known);

    let torrent = reqwest::get(&published.metainfo_url).await.expect("answers");
    let torrent = torrent.bytes().await.expect("a body");
    let metainfo = Metainfo::parse_expecting(&torrent, published.infohash).expect("parses");
    assert_eq!(metainfo.announce, Some(format!("{}announce", hub.url)));
    for (piece, chunk) in bytes.chunks(metainfo.piece_length as usize).enumerate() {
        assert!(metainfo.verifies(piece as u32, chunk));
    }
    let seed = reqwest::get(&metainfo.web_seeds[0]).await.expect("answers");
    assert_eq!(seed.bytes().await.expect("a body"), bytes);

    let list: HotList = hub.ask("list").await.expect("answers");
    let entry = list.entry(published.infohash).expect("is listed");
    assert_eq!((entry.size_bytes, entry.name.as_str()), (300_000, "film – ü.mp4"));
    assert_eq!(entry.web_seeds[0].as_str(), metainfo.web_seeds[0]);
    assert_eq!(list.epoch, published.epoch);
    assert!(published.magnet.contains(&format!("xt=urn:btih:{}", published.infohash)));
}

#[tokio::test]
async fn publishing_again_renews_the_lease() {
    let hub = Hub::start().await;
    let bytes = noise(2, 100_000);
    let first = hub.publish("film.mp4", &bytes).await;
    let state: UploadState =
        hub.tell("uploads", &single("film.mp4", 100_000)).await.expect("opens");
    assert_eq!(state.received_bytes, 0, "the first upload is over");
    hub.put(&state.id, 0, &bytes).await.expect("arrives");
    let longer = PublishRequest { lease_seconds: 200_000, ..publish_request() };
    let path = format!("uploads/{}/publish", state.id);
    let again: Published = hub.tell(&path, &longer).await.expect("is published");
    assert!(again.already_known);
    assert_eq!((again.infohash, again.epoch), (first.infohash, first.epoch + 1));
    let list: HotList = hub.ask("list").await.expect("answers");
    assert_eq!(list.entries.len(), 1);
}

#[tokio::test]
async fn an_ended_lease_leaves_the_list() {
    let hub = Hub::start().await;
    let state: UploadState = hub.tell("uploads", &single("film.mp4", 5)).await.expect("opens");
    hub.put(&state.id, 0, b"12345").await.expect("arrives");
    let short = PublishRequest { lease_seconds: 1, ..publish_request() };
    let path = format!("uploads/{}/publish", state.id);
    let published: Published = hub.tell(&path, &short).await.expect("is published");
    let list = wait_for("the lease's end", || async {
        let list: HotList = hub.ask("list").await.expect("answers");
        list.entries.is_empty().then_some(list)
    })
    .await;
    assert!(list.epoch > published.epoch || published.epoch == 1);
}

#[tokio::test]
async fn serves_directories_by_the_web_seed_rules() {
    let hub = Hub::start().await;
    let bytes = noise(3, 90_000);
    let mut upload = single("season 1", 0);
    upload.directory = true;
    upload.files = vec![
        UploadFile { path: vec!["a".into(), "one.mp4".into()], length: 70_000 },
        UploadFile { path: vec!["empty".into()], length: 0 },
        UploadFile { path: vec!["two & three.srt".into()], length: 20_000 },
    ];
    let state: UploadState = hub.tell("uploads", &upload).await.expect("opens");
    hub.put(&state.id, 0, &bytes).await.expect("arrives");
    let path = format!("uploads/{}/publish", state.id);
    let published: Published = hub.tell(&path, &publish_request()).await.expect("is published");

    let torrent = hub.get(&format!("metainfo/{}.torrent", published.infohash), &[]).await;
    let metainfo = Metainfo::parse(&torrent.bytes().await.expect("a body")).expect("parses");
    let seed = &metainfo.web_seeds[0];
    assert!(seed.ends_with('/'), "{seed}");
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{seed}{path}")).await.expect("answers");
        (answer.status(), answer.bytes().await.expect("a body"))
    };
    assert_eq!(
        get("season%201/a/one.mp4").await,
        (StatusCode::OK, bytes[..70_000].to_vec().into())
    );
    assert_eq!(get("season 1/two & three.srt").await.1, bytes[70_000..]);
    assert_eq!(get("season%201/empty").await, (StatusCode::OK, "".into()));
    for absent in ["", "season%201/a", "a/one.mp4", "season%201/..%2f..%2f..%2fhub.sqlite3"] {
        assert_eq!(get(absent).await.0, StatusCode::NOT_FOUND, "{absent}");
    }
}

#[tokio::test]
async fn answers_ranges_and_validators() {
    let hub = Hub::start().await;
    let bytes = noise(4, 1000);
    let published = hub.publish("film.mp4", &bytes).await;
    let path = format!("origin/{}/film.mp4", published.infohash);
    let whole = hub.get(&path, &[]).await;
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map(|v| v.to_str().expect("text").to_owned())
    };
    let etag = header(&whole, "etag").expect("an etag");
    let modified = header(&whole, "last-modified").expect("a date");
    assert_eq!(header(&whole, "accept-ranges").as_deref(), Some("bytes"));

    for (range, part, content_range) in [
        ("bytes=0-0", 0..1, "bytes 0-0/1000"),
        ("bytes=990-", 990..1000, "bytes 990-999/1000"),
        ("bytes=-10", 990..1000, "bytes 990-999/1000"),
        ("bytes=900-5000", 900..1000, "bytes 900-999/1000"),
    ] {
        let answer = hub.get(&path, &[("range", range)]).await;
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(header(&answer, "content-range").as_deref(), Some(content_range));
        assert_eq!(answer.bytes().await.expect("a body"), bytes[part]);
    }
    let answer = hub.get(&path, &[("range", "bytes=1000-")]).await;
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&answer, "content-range").as_deref(), Some("bytes */1000"));

    for (validator, status) in [
        (etag.as_str(), StatusCode::PARTIAL_CONTENT),
        (modified.as_str(), StatusCode::PARTIAL_CONTENT),
        ("\"other\"", StatusCode::OK),
    ] {
        let answer = hub.get(&path, &[("range", "bytes=0-1"), ("if-range", validator)]).await;
        assert_eq!(answer.status(), status, "{validator}");
    }
    let answer = hub.get(&path, &[("if-none-match", &etag)]).await;
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    let answer = hub.request(Method::HEAD, &path, &[]).await;
    assert_eq!(header(&answer, "content-length").as_deref(), Some("1000"));
    assert!(answer.bytes().await.expect("a body").is_empty());
}

#[tokio::test]
async fn counts_what_the_origin_sent() {
    let mut hub = Hub::start().await;
    let published = hub.publish("film.mp4", &noise(5, 5000)).await;
    let path = format!("origin/{}/film.mp4", published.infohash);
    for range in ["bytes=0-999", "bytes=0-9"] {
        hub.get(&path, &[("range", range)]).await.bytes().await.expect("a body");
    }
    hub.request(Method::HEAD, &path, &[]).await;
    let usage: OriginUsage = hub.ask("origin-usage").await.expect("answers");
    assert_eq!(usage.lines[0].egress_bytes, 1010);
    hub.get(&path, &[]).await.bytes().await.expect("a body");
    assert!(hub.stop().await.success());
    hub.run().await;
    let usage: OriginUsage = hub.ask("origin-usage").await.expect("answers");
    assert_eq!(usage.lines[0].egress_bytes, 6010, "a stop loses nothing");
}

#[tokio::test]
async fn continues_an_upload_after_a_lost_connection_and_a_crash() {
    let mut hub = Hub::start().await;
    let bytes = noise(6, 400_000);
    let upload = single("film.mp4", 400_000);
    let state: UploadState = hub.tell("uploads", &upload).await.expect("opens");
    let address = hub.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut connection = tokio::net::TcpStream::connect(&address).await.expect("connects");
    let head = format!(
        "PUT /api/v1/uploads/{}?offset=0 HTTP/1.1\r\nhost: {address}\r\ncontent-length: 400000\r\n\
         authorization: Bearer {}\r\n\r\n",
        state.id,
        hub.token()
    );
    connection.write_all(head.as_bytes()).await.expect("sends");
    connection.write_all(&bytes[..150_000]).await.expect("sends");
    drop(connection);
    let id = state.id.clone();
    wait_for("the bytes that were sent", || async {
        let state: UploadState = hub.ask(&format!("uploads/{id}")).await.expect("answers");
        (state.received_bytes == 150_000).then_some(())
    })
    .await;

    hub.kill();
    hub.run().await;
    let state: UploadState = hub.tell("uploads", &upload).await.expect("finds it again");
    assert_eq!((state.id.as_str(), state.received_bytes), (id.as_str(), 150_000));
    let (status, error) = hub.put(&id, 0, &bytes).await.expect_err("refused");
    assert_eq!(
        (status, error.code.as_str(), error.expected),
        (409, "upload_offset", Some(150_000))
    );
    let path = format!("uploads/{id}/publish");
    let early = hub.tell::<Published>(&path, &publish_request()).await;
    assert_eq!(code(early), (409, "upload_incomplete".into()));
    hub.put(&id, 150_000, &bytes[150_000..]).await.expect("arrives");
    let published: Published = hub.tell(&path, &publish_request()).await.expect("is published");
    let origin = hub.get(&format!("origin/{}/film.mp4", published.infohash), &[]).await;
    assert_eq!(origin.bytes().await.expect("a body"), bytes);
}

/// A refusal that comes while the caller is still sending must not be lost in a reset.
#[tokio::test]
async fn refusals_reach_callers_that_are_still_sending() {
    let hub = Hub::start().await;
    let bytes = noise(7, 5_000_000);
    let text = "x".repeat(5_000_000);
    let upload = single("film.mp4", 5_000_000);
    let state: UploadState = hub.tell("uploads", &upload).await.expect("opens");
    for _ in 0..10 {
        let refused = hub.put(&state.id, 1, &bytes).await;
        assert_eq!(code(refused), (409, "upload_offset".into()));
        let refused = hub.tell_as::<UploadState>("wrong", "uploads", &text).await;
        assert_eq!(code(refused), (401, "bad_token".into()));
        let refused = hub.tell::<Revoked>("list/revoke", &text).await;
        assert_eq!(code(refused), (413, "body_too_large".into()));
    }
}

#[tokio::test]
async fn refuses_hostile_uploads() {
    let hub = Hub::start().await;
    for name in ["", "..", "../../x", "a/b", "a\u{7}b", "a\nb", &"x".repeat(300)] {
        let answer = hub.tell::<UploadState>("uploads", &single(name, 5)).await;
        assert_eq!(code(answer), (422, "bad_upload".into()), "{name:?}");
    }
    let answer = hub.tell::<UploadState>("uploads", &serde_json::json!({"name": 3})).await;
    assert_eq!(code(answer), (400, "bad_request".into()));
    let state: UploadState = hub.tell("uploads", &single("film.mp4", 5)).await.expect("opens");
    assert_eq!(code(hub.put(&state.id, 0, b"123456").await), (413, "upload_too_long".into()));
    assert_eq!(code(hub.put("nonsense", 0, b"1").await), (404, "unknown_upload".into()));
    let path = format!("uploads/{}/publish", state.id);
    hub.put(&state.id, 0, b"12345").await.expect("arrives");
    for bad in [
        PublishRequest { price_class: "gold".into(), ..publish_request() },
        PublishRequest { lease_seconds: 0, ..publish_request() },
        PublishRequest { replicas: 0, ..publish_request() },
        PublishRequest { score: -1.0, ..publish_request() },
    ] {
        assert_eq!(code(hub.tell::<Published>(&path, &bad).await).0, 422);
    }
    hub.tell::<Published>(&path, &publish_request()).await.expect("nothing was lost");
}

#[tokio::test]
async fn only_the_operator_may_publish() {
    let hub = Hub::start().await;
    for token in ["", "wrong", &hub.token()[1..], &hub.token().to_uppercase()] {
        let upload = single("film.mp4", 5);
        let answer = hub.tell_as::<UploadState>(token, "uploads", &upload).await;
        assert_eq!(code(answer), (401, "bad_token".into()));
    }
    for path in ["list", "devices", "books?month=2026-11", "origin-usage", "uploads/x"] {
        let answer = hub.get(&format!("api/v1/{path}"), &[]).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn every_refusal_is_an_api_error() {
    let hub = Hub::start().await;
    for (method, path, status) in [
        (Method::GET, "", 404),
        (Method::GET, "tuf/metadata/%ff", 404),
        (Method::GET, "origin/x/%ff", 404),
        (Method::GET, "metainfo/x.torrent", 404),
        (Method::GET, "api/v1/nope", 404),
        (Method::POST, "announce", 405),
        (Method::GET, "api/v1/enrol", 405),
        (Method::POST, "api/v1/enrol", 400),
        (Method::DELETE, "api/v1/uploads/x", 405),
    ] {
        let answer = hub.request(method, path, &[]).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let error: ApiError = answer.json().await.expect("an ApiError");
        assert!(!error.code.is_empty() && !error.message.is_empty());
    }
}

#[tokio::test]
async fn silent_connections_hold_nobody_up() {
    let hub = Hub::start().await;
    let address = hub.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut silent = Vec::new();
    for _ in 0..300 {
        let mut connection = tokio::net::TcpStream::connect(&address).await.expect("connects");
        connection.write_all(b"GET /live HTTP/1.1\r\nho").await.expect("sends");
        silent.push(connection);
    }
    assert_eq!(hub.get("live", &[]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn stops_in_order_and_says_so() {
    let mut hub = Hub::start().await;
    assert_eq!(hub.get("live", &[]).await.status(), StatusCode::OK);
    assert_eq!(hub.get("ready", &[]).await.status(), StatusCode::OK);
    let file = hub.data().join("endpoints.json");
    assert!(file.exists());
    let stopped = tokio::time::timeout(Duration::from_secs(30), hub.stop()).await;
    assert!(stopped.expect("in time").success());
    assert!(!file.exists());
}
