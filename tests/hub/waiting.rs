//! Questions for the list that the hub holds until there is news.

use larder::api::hub::{RevokeRequest, Revoked};
use reqwest::{Response, StatusCode};
use tokio::task::JoinHandle;

use crate::harness::{Hub, noise, wait_for};

const TIMESTAMP: &str = "tuf/metadata/timestamp.json";

async fn etag(hub: &Hub) -> String {
    let answer = hub.get(TIMESTAMP, &[]).await;
    answer.headers()["etag"].to_str().expect("text").to_owned()
}

/// Asks until there is news, or a place to wait for it, or no hub any more; the last answer.
fn wait_for_news(hub: &Hub, etag: &str) -> JoinHandle<Response> {
    let (url, etag) = (format!("{}{TIMESTAMP}", hub.url), etag.to_owned());
    tokio::spawn(async move {
        let mut last = None;
        loop {
            let request = reqwest::Client::new().get(&url).header("if-none-match", &etag);
            match request.header("prefer", "wait=20").send().await {
                Ok(answer) if is_sent_away(&answer) => last = Some(answer),
                Ok(answer) => return answer,
                Err(error) => return last.unwrap_or_else(|| panic!("no hub: {error}")),
            }
        }
    })
}

fn has_waited(answer: &Response) -> bool {
    answer.headers().get("preference-applied").is_some_and(|applied| applied == "wait")
}

fn is_sent_away(answer: &Response) -> bool {
    answer.status() == StatusCode::NOT_MODIFIED && !has_waited(answer)
}

/// Until one question more is answered at once, because all places are taken.
async fn all_places_taken(hub: &Hub, etag: &str) {
    wait_for("the places to be taken", || async {
        let answer = hub.get(TIMESTAMP, &[("if-none-match", etag), ("prefer", "wait=1")]).await;
        is_sent_away(&answer).then_some(())
    })
    .await;
}

#[tokio::test]
async fn answers_those_who_wait_in_the_moment_of_a_revocation() {
    let hub = Hub::start_with("[metadata]\nwaiters_max = 2\n").await;
    let published = hub.publish("film.mp4", &noise(1, 5000)).await;
    let etag = etag(&hub).await;
    let waiting = [wait_for_news(&hub, &etag), wait_for_news(&hub, &etag)];
    all_places_taken(&hub, &etag).await;
    let request = RevokeRequest { infohash: published.infohash, reason: "takedown".into() };
    let _: Revoked = hub.tell("list/revoke", &request).await.expect("is revoked");
    for answer in waiting {
        let answer = answer.await.expect("ends");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_ne!(answer.headers()["etag"].to_str().expect("text"), etag);
        assert!(has_waited(&answer), "they may ask again at once");
    }
}

#[tokio::test]
async fn holds_no_question_that_does_not_ask_for_it_or_has_an_answer() {
    let hub = Hub::start().await;
    let etag = etag(&hub).await;
    for (headers, status) in [
        (&[("if-none-match", etag.as_str())][..], StatusCode::NOT_MODIFIED),
        (&[("if-none-match", etag.as_str()), ("prefer", "wait=0")], StatusCode::NOT_MODIFIED),
        (&[("if-none-match", "\"old\""), ("prefer", "wait=20")], StatusCode::OK),
        (&[("prefer", "wait=20")], StatusCode::OK),
    ] {
        let answer = hub.get(TIMESTAMP, headers).await;
        assert_eq!(answer.status(), status, "{headers:?}");
        assert!(!has_waited(&answer), "{headers:?}");
    }
    let nobody = Hub::start_with("[metadata]\nwaiters_max = 0\n").await;
    let etag = self::etag(&nobody).await;
    all_places_taken(&nobody, &etag).await;
}

#[tokio::test]
async fn sends_away_those_who_wait_when_it_stops() {
    let mut hub = Hub::start_with("[metadata]\nwaiters_max = 1\n").await;
    let etag = etag(&hub).await;
    let waiting = wait_for_news(&hub, &etag);
    all_places_taken(&hub, &etag).await;
    let answered = tokio::join!(hub.stop(), waiting);
    assert!(answered.0.success());
    let answer = answered.1.expect("ends");
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    assert!(!has_waited(&answer), "they shall not all come back at once");
}
