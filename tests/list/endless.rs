//! Whoever sends without end, hardly at all, too much at once, or from elsewhere.

use larder::logic::hotlist::MAX_LIST_BYTES;
use serde_json::json;

use crate::{
    publisher::Publisher,
    web::{Device, Trick, Web},
};

const TIMESTAMP: &str = "metadata/timestamp.json";

async fn refused(path: &str, trick: Trick, because: &str) {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    publisher.publish(2);
    web.show(&publisher);
    let path = if path == "list" { publisher.list_path() } else { path.into() };
    web.trick(&path, trick);
    device.refuses(because).await;
    web.behave();
    device.accepts(2..=2).await;
}

#[tokio::test]
async fn reads_no_more_of_endless_data_than_is_allowed() {
    let [targets, list] = ["metadata/2.targets.json", "list"];
    for (path, limit) in [(TIMESTAMP, 131_072), (targets, 131_072), (list, MAX_LIST_BYTES)] {
        refused(path, Trick::Endless, &format!("more than {limit} bytes")).await;
        refused(path, Trick::Claims(1 << 40), &format!("more than {limit} bytes")).await;
    }
    // Whoever withholds the next root like this does not get the old one's keys believed.
    refused("metadata/2.root.json", Trick::Endless, "more than 131072 bytes").await;
    refused("metadata/2.root.json", Trick::Status(500, ""), "answered 500").await;
}

/// All at once, because each takes the 15 seconds that it is given.
#[tokio::test]
async fn waits_for_nobody_who_sends_nothing_or_hardly_anything() {
    tokio::join!(
        nothing_at_all(),
        refused(TIMESTAMP, Trick::Claims(5_000), "no answer within 15 seconds"),
        refused(TIMESTAMP, Trick::Trickle, "too slowly"),
        refused("metadata/2.snapshot.json", Trick::Trickle, "too slowly"),
        refused("metadata/2.root.json", Trick::Silent, "no answer within 15 seconds"),
        refused("list", Trick::Trickle, "too slowly"),
    );
}

/// To a device that knows nothing yet, and so does not wait for news.
async fn nothing_at_all() {
    let publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    web.trick(TIMESTAMP, Trick::Silent);
    let mut device = Device::new(&web, publisher.first_root());
    device.refuses("no answer within 15 seconds").await;
}

#[tokio::test]
async fn goes_nowhere_else() {
    for status in [301, 302, 307, 308] {
        let elsewhere = Trick::Status(status, "location: http://127.0.0.1:9/\r\n");
        refused(TIMESTAMP, elsewhere.clone(), "follows no redirects").await;
        refused("metadata/2.snapshot.json", elsewhere.clone(), "follows no redirects").await;
        refused("list", elsewhere, "follows no redirects").await;
    }
}

#[tokio::test]
async fn reads_no_list_that_is_signed_to_be_too_long() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    publisher.publish_bent(2, |role, document| {
        if role == "targets" {
            document["targets"]["hotlist.json"]["length"] = json!(MAX_LIST_BYTES + 1);
        }
    });
    web.show(&publisher);
    device.refuses("more than the limit").await;
    assert!(web.asked_for(&publisher.list_path()).is_empty(), "it is not even asked for");
    publisher.publish_bent(3, |role, document| {
        if role == "timestamp" {
            document["filler"] = json!("x".repeat(200_000));
        }
    });
    web.show(&publisher);
    device.refuses("more than 131072 bytes").await;
}
