//! Whoever shows what was true once: old versions of every role, and old epochs under new signatures.

use crate::{
    publisher::{Files, Publisher, Versions},
    web::{Device, Web},
};

/// A device that has seen three publications; and the first two of them, as they lay on the server.
async fn after_three() -> (Web, Device, Publisher, [Files; 2]) {
    let mut publisher = Publisher::new();
    let first = publisher.files.clone();
    publisher.publish(2);
    let second = publisher.files.clone();
    publisher.publish(3);
    let web = Web::start(&publisher).await;
    let device = Device::following(&web, &publisher).await;
    (web, device, publisher, [first, second])
}

#[tokio::test]
async fn goes_back_to_no_older_timestamp_also_after_a_restart() {
    let (web, mut device, publisher, older) = after_three().await;
    for restarted in [false, true] {
        for files in &older {
            web.state().files = files.clone();
            if restarted {
                device.restart(&web);
            }
            let sentence = device.refuses("version 3 was here before").await;
            assert!(sentence.contains("tell the operator"), "{sentence}");
        }
    }
    web.show(&publisher);
    device.accepts(3..=3).await;
}

/// As somebody with the key of the timestamp alone, which lies on the server, would do.
#[tokio::test]
async fn goes_back_to_no_older_snapshot_or_targets_under_a_new_timestamp() {
    let (web, mut device, mut publisher, _) = after_three().await;
    let now = publisher.versions;
    publisher.versions = Versions { snapshot: 1, timestamp: 3, ..now };
    publisher.publish(4);
    web.show(&publisher);
    device.refuses("Snapshot version 2 in timestamp 4 is less than 3").await;
    publisher.versions = Versions { targets: 0, snapshot: 3, timestamp: 4 };
    publisher.publish(5);
    web.show(&publisher);
    device.refuses("targets.json version").await;
    publisher.versions = Versions { targets: 5, snapshot: 5, timestamp: 5 };
    publisher.publish(6);
    web.show(&publisher);
    device.accepts(6..=6).await;
}

#[tokio::test]
async fn goes_back_to_no_older_epoch_under_new_signatures() {
    let (web, mut device, mut publisher, _) = after_three().await;
    publisher.publish(2);
    web.show(&publisher);
    device.refuses("older than epoch 3").await;
    device.restart(&web);
    device.refuses("older than epoch 3").await;
    publisher.publish(4);
    web.show(&publisher);
    device.accepts(4..=4).await;
}

/// What `tough` keeps is not written in one step; half of it must not lock the device out.
#[tokio::test]
async fn survives_a_torn_memory() {
    let (web, mut device, mut publisher, _) = after_three().await;
    for name in ["root.json", "timestamp.json", "snapshot.json", "targets.json", "pinned-root"] {
        let path = device.memory().join(name);
        let whole = std::fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        for half in [&whole[..whole.len() / 2], &[]] {
            std::fs::write(&path, half).expect("writes");
            device.restart(&web);
            publisher.publish(publisher.versions.targets + 1);
            web.show(&publisher);
            device.accepts(4..).await;
        }
    }
}
