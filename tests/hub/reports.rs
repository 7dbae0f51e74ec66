//! Reports, books and statements: what counts, and that it counts once.

use larder::{
    api::{
        hub::{Books, ReportReceipt, Statement, StatementRequest},
        signed::Signed,
    },
    logic::{
        hotlist::{HotList, Policy},
        infohash::Infohash,
        now::UtcHour,
        units::Micros,
        usage::PeerClass::{Lan, Wan},
    },
};

use crate::harness::{Answer, Device, Hub, code, line, noise, now, payload_hash};

/// The last hour that is in a month together with its predecessor: no test depends on the clock.
fn hour() -> UtcHour {
    let hour = now().hour();
    let earlier = UtcHour(hour.0 - 1);
    if earlier.day().month() == hour.day().month() { earlier } else { hour }
}

async fn statement(hub: &Hub, device: &Device) -> Statement {
    let request = StatementRequest {
        device: device.id.clone(),
        month: hour().day().month().to_string(),
        created_at: now(),
    };
    let signed: Signed =
        hub.tell_as("", "statement", &device.sign(&request)).await.expect("answers");
    let policy = policy(hub).await;
    signed.open(&policy.statement_keys).expect("signed by a key of the policy")
}

/// The policy, found through the repository's newest targets.
async fn policy(hub: &Hub) -> Policy {
    let dir = std::fs::read_dir(hub.data().join("tuf/targets")).expect("a folder");
    let newest = dir
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".policy.json"))
        .max_by_key(|entry| entry.metadata().expect("exists").modified().expect("a time"));
    let bytes = std::fs::read(newest.expect("a policy").path()).expect("reads");
    Policy::parse(&bytes).expect("parses")
}

async fn books(hub: &Hub) -> Books {
    let month = hour().day().month();
    hub.ask(&format!("books?month={month}")).await.expect("answers")
}

#[tokio::test]
async fn pays_for_payload_to_the_internet_line_by_line() {
    let hub = Hub::start().await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let mut device = Device::enrolled(&hub, 1).await;
    let payload = 64 * 1024 * 1024;
    let lines = vec![line(infohash, hour(), Wan, payload), line(infohash, hour(), Lan, 1000)];
    let receipt = device.send(&hub, lines).await.expect("is taken");
    assert_eq!((receipt.number, receipt.repeated), (1, false));
    device.send(&hub, vec![line(infohash, hour(), Wan, 5)]).await.expect("is taken");
    device.send(&hub, vec![]).await.expect("an empty report is one too");

    let statement = statement(&hub, &device).await;
    assert_eq!((statement.currency.as_str(), statement.reported_through), ("CNY", 3));
    assert_eq!(statement.lines.len(), 1, "one content, one hour, one price");
    let line = &statement.lines[0];
    assert_eq!((line.payload_bytes, line.price_per_gb), (payload + 5, Micros(100_000)));
    assert_eq!((line.amount, statement.total), (Micros(6_710), Micros(6_710)));

    let books = books(&hub).await;
    assert_eq!(books.lines.len(), 1);
    assert_eq!(books.lines[0].payload_bytes, payload + 1005, "the LAN is in the books, unpaid");
    assert_eq!(books.lines[0].amount, Micros(6_710));
}

#[tokio::test]
async fn a_report_counts_once_however_often_it_comes() {
    let hub = Hub::start().await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let mut device = Device::enrolled(&hub, 1).await;
    let send = async |signed: &Signed| -> Answer<ReportReceipt> {
        hub.tell_as("", "reports", signed).await
    };
    let first = device.sign(&device.report(vec![line(infohash, hour(), Wan, 1000)]));
    let (one, two) = tokio::join!(send(&first), send(&first));
    let repeated = [one.expect("is taken").repeated, two.expect("is taken").repeated];
    assert!(repeated.contains(&false) && repeated.contains(&true), "{repeated:?}");
    device.reported(&first);
    device.send(&hub, vec![line(infohash, hour(), Wan, 10)]).await.expect("is taken");
    assert!(send(&first).await.expect("is known").repeated, "also after its successor");
    assert_eq!(books(&hub).await.lines[0].payload_bytes, 1010);

    let mut changed = device.report(vec![line(infohash, hour(), Wan, 2000)]);
    changed.number = 1;
    changed.previous_hash = "0".repeat(64);
    let (status, error) = send(&device.sign(&changed)).await.expect_err("refused");
    assert_eq!((status, error.code.as_str(), error.expected), (409, "report_conflict", Some(3)));
    let mut early = device.report(vec![line(infohash, hour(), Wan, 2000)]);
    early.number = 7;
    let (status, error) = send(&device.sign(&early)).await.expect_err("refused");
    assert_eq!((status, error.code.as_str(), error.expected), (409, "report_gap", Some(3)));
    let mut broken = device.report(vec![line(infohash, hour(), Wan, 2000)]);
    broken.previous_hash = payload_hash(&first);
    assert_eq!(code(send(&device.sign(&broken)).await), (409, "report_conflict".into()));
    assert_eq!(books(&hub).await.lines[0].payload_bytes, 1010, "nothing of that counted");
    device.send(&hub, vec![]).await.expect("the chain goes on");
}

#[tokio::test]
async fn refuses_reports_that_cannot_be_true() {
    let hub = Hub::start().await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let mut device = Device::enrolled(&hub, 1).await;
    let good = line(infohash, hour(), Wan, 1000);
    let year_ago = UtcHour(hour().0 - 401 * 24);
    let bad_lines = [
        (line(infohash, UtcHour(hour().0 + 4), Wan, 1), "bad_report"),
        (line(infohash, year_ago, Wan, 1), "bad_report"),
        (line(infohash, hour(), Wan, u64::MAX), "bad_report"),
        (line(infohash, hour(), Wan, 5_000_000_000_001), "bad_report"),
        (line(Infohash([9; 20]), hour(), Wan, 1), "unknown_content"),
    ];
    for (bad, expected) in bad_lines {
        assert_eq!(code(device.send(&hub, vec![good, bad]).await), (422, expected.into()));
    }
    let many = vec![good; larder::api::hub::MAX_REPORT_LINES + 1];
    assert_eq!(code(device.send(&hub, many).await), (422, "bad_report".into()));
    let signed = device.sign(&device.report(vec![good]));
    let tampered = Signed { payload: signed.payload.replace("1000", "9000"), ..signed };
    let answer = hub.tell_as::<ReportReceipt>("", "reports", &tampered).await;
    assert_eq!(code(answer), (401, "bad_signature".into()));
    let mut ahead = device.report(vec![good]);
    ahead.created_at.0 += 3600;
    let answer = hub.tell_as::<ReportReceipt>("", "reports", &device.sign(&ahead)).await;
    assert_eq!(code(answer), (422, "clock_skew".into()));
    assert!(books(&hub).await.lines.is_empty());

    let mut late = device.report(vec![good]);
    late.created_at.0 -= 5 * 86_400;
    let signed = device.sign(&late);
    hub.tell_as::<ReportReceipt>("", "reports", &signed).await.expect("an outage loses nothing");
    device.reported(&signed);
    let full = vec![good; larder::api::hub::MAX_REPORT_LINES];
    device.send(&hub, full).await.expect("the largest report fits");
    assert_eq!(books(&hub).await.lines[0].payload_bytes, 5001 * 1000);
}

#[tokio::test]
async fn a_crash_keeps_the_books() {
    let mut hub = Hub::start().await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let mut device = Device::enrolled(&hub, 1).await;
    device.send(&hub, vec![line(infohash, hour(), Wan, 1000)]).await.expect("is taken");
    let before: HotList = hub.ask("list").await.expect("answers");
    hub.kill();
    hub.run().await;
    assert_eq!(books(&hub).await.lines[0].payload_bytes, 1000);
    device.send(&hub, vec![line(infohash, hour(), Wan, 10)]).await.expect("the chain goes on");
    assert_eq!(books(&hub).await.lines[0].payload_bytes, 1010);
    let after: HotList = hub.ask("list").await.expect("answers");
    assert_eq!(after.entries.len(), before.entries.len());
}

#[tokio::test]
async fn a_new_price_does_not_change_what_was_earned() {
    let mut hub = Hub::start_with("[policy.price_per_gb]\nstandard = 1000000\n").await;
    let infohash = hub.publish("film.mp4", &noise(1, 5000)).await.infohash;
    let mut device = Device::enrolled(&hub, 1).await;
    let gb = 1_000_000_000;
    device.send(&hub, vec![line(infohash, hour(), Wan, gb)]).await.expect("is taken");
    assert!(hub.stop().await.success());
    std::fs::write(hub.scratch().join("hub.toml"), "[policy.price_per_gb]\nstandard = 10\n")
        .expect("writes");
    hub.run().await;
    device.send(&hub, vec![line(infohash, hour(), Wan, gb)]).await.expect("is taken");
    let statement = statement(&hub, &device).await;
    let amounts: Vec<u64> = statement.lines.iter().map(|line| line.amount.0).collect();
    assert_eq!(amounts, [10, 1_000_000]);
    assert_eq!(statement.total, Micros(1_000_010));
}
