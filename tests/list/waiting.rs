//! What is asked when nothing has changed: conditions, waiting for news, and those who lie about either.

use std::time::Duration;

use larder::{device::upstream::Outcome, logic::now::WallTime};

use crate::{
    publisher::{LAST_YEAR, NOW, Publisher},
    web::{Device, Trick, Web},
};

const TIMESTAMP: &str = "metadata/timestamp.json";

async fn following() -> (Publisher, Web, Device) {
    let publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let device = Device::following(&web, &publisher).await;
    (publisher, web, device)
}

async fn unchanged(device: &mut Device) -> bool {
    let answer = device.ask().await.expect("an answer");
    assert!(matches!(answer.outcome, Outcome::Unchanged), "{:?}", answer.outcome);
    answer.held
}

#[tokio::test]
async fn an_unchanged_list_costs_one_request() {
    let (_, web, mut device) = following().await;
    web.state().asked.clear();
    assert!(!unchanged(&mut device).await, "a file server holds no questions");
    // Without validators, or with a new one each time, the bytes tell.
    web.trick(TIMESTAMP, Trick::Etag("\"another\""));
    assert!(!unchanged(&mut device).await);
    let asked = web.state().asked.clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].contains("\r\nif-none-match: \"") && asked[0].contains("\r\nprefer: wait=25\r\n")
    );
}

#[tokio::test]
async fn an_etag_that_lies_hides_a_list_only_until_it_expires() {
    let (mut publisher, web, mut device) = following().await;
    let answer = device.ask().await.expect("an answer");
    assert!(matches!(answer.outcome, Outcome::Unchanged));
    publisher.publish(2);
    web.show(&publisher);
    web.trick(TIMESTAMP, Trick::NotModified);
    assert!(!unchanged(&mut device).await, "it cannot know");
    let later = larder::logic::now::UnixSeconds(NOW.0 + 366 * 86_400);
    let error = device.ask_at(later).await.expect_err("asked without a condition");
    assert!(error.to_string().contains("had no condition"), "{error}");
    web.behave();
    device.accepts(2..=2).await;
}

#[tokio::test]
async fn refuses_not_modified_when_it_has_nothing() {
    let publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    web.trick(TIMESTAMP, Trick::NotModified);
    let mut device = Device::new(&web, publisher.first_root());
    device.refuses("had no condition").await;
    web.behave();
    device.accepts(1..=1).await;
}

/// What was refused once is fetched again, and its ETag is not taken for that of the accepted one.
#[tokio::test]
async fn asks_again_for_what_it_has_refused() {
    let (mut publisher, web, mut device) = following().await;
    publisher.publish_bent(2, |role, document| {
        if role == "snapshot" {
            document["expires"] = LAST_YEAR.into();
        }
    });
    web.show(&publisher);
    for _ in 0..3 {
        device.refuses("expired").await;
    }
}

#[tokio::test]
async fn a_list_is_followed_without_a_clock() {
    let publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let client = larder::device::upstream::client("0.0.0").expect("a client");
    let memory = tempfile::tempdir().expect("a folder");
    let root = publisher.first_root();
    let repository =
        larder::device::upstream::ListRepository::new(client, &web.url, root, memory.path());
    let mut repository = repository.expect("a folder");
    let answer = repository.fetch(None, WallTime::Unsynced).await.expect("an answer");
    let Outcome::News(fetched) = answer.outcome else { panic!("no list") };
    assert_eq!(fetched.list.epoch, 1);
}

#[tokio::test]
async fn knows_whoever_holds_a_question_by_what_they_do() {
    let (mut publisher, web, mut device) = following().await;
    web.trick(TIMESTAMP, Trick::PretendWaiting);
    assert!(!unchanged(&mut device).await, "it came at once");
    web.trick(TIMESTAMP, Trick::Wait(Duration::from_millis(100)));
    publisher.publish(2);
    web.show(&publisher);
    let answer = device.ask().await.expect("an answer");
    assert!(answer.held && matches!(answer.outcome, Outcome::News(_)));
}

#[tokio::test]
async fn a_proxy_that_cuts_long_questions_short_is_no_problem_and_is_asked_shorter_ones() {
    let (mut publisher, web, mut device) = following().await;
    web.trick(TIMESTAMP, Trick::CutWaiting(Duration::from_millis(2_100)));
    for _ in 0..2 {
        let answer = device.ask().await.expect("nothing is wrong");
        assert!(matches!(answer.outcome, Outcome::Cut) && !answer.held);
        // The next question is a plain one, which says what is the matter.
        assert!(!unchanged(&mut device).await);
    }
    let waits = |web: &Web| {
        let heads = web.asked_for(TIMESTAMP);
        heads.iter().filter(|head| head.contains("prefer: wait")).count()
    };
    assert_eq!(waits(&web), 2);
    assert!(!unchanged(&mut device).await, "cut after two seconds: not worth waiting for");
    assert_eq!(waits(&web), 2);
    publisher.publish(2);
    web.show(&publisher);
    device.accepts(2..=2).await;
}

#[tokio::test]
async fn a_hub_that_dies_while_a_question_is_held_is_a_problem_at_the_next_one() {
    let (_, web, mut device) = following().await;
    web.trick(TIMESTAMP, Trick::CutWaiting(Duration::from_millis(2_100)));
    assert!(matches!(device.ask().await.expect("an answer").outcome, Outcome::Cut));
    web.trick(TIMESTAMP, Trick::Status(503, ""));
    device.refuses("answered 503").await;
}
