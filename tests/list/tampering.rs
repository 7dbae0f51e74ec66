//! Whoever changes, replaces or forges a part of a publication.

use larder::logic::now::UnixSeconds;
use serde_json::{Value, json};

use crate::{
    publisher::{Key, LAST_YEAR, NOW, Publisher, Roles, sign},
    web::{Device, Web},
};

/// A device that follows epoch 1, is then shown a bad epoch 2, and at last a good epoch 3.
async fn refused(because: &str, spoil: impl FnOnce(&mut Publisher)) -> String {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let honest = publisher.clone();
    spoil(&mut publisher);
    web.show(&publisher);
    let sentence = device.refuses(because).await;
    assert_eq!(device.held.as_ref().map(|list| list.epoch), Some(1), "the old one stays");
    let mut publisher = honest;
    for epoch in [2, 3, 4] {
        publisher.publish(epoch);
    }
    web.show(&publisher);
    device.accepts(4..=4).await;
    sentence
}

fn edit(file: &mut Vec<u8>, change: impl FnOnce(&mut Value)) {
    let mut document: Value = serde_json::from_slice(file).expect("JSON");
    change(&mut document);
    *file = serde_json::to_vec(&document).expect("serialises");
}

#[tokio::test]
async fn refuses_a_timestamp_by_a_wrong_key_and_says_what_to_do() {
    let sentence = refused("0 of the operator's keys have signed it, 1 must", |publisher| {
        publisher.publish(2);
        let document: Value = serde_json::from_slice(publisher.timestamp()).expect("JSON");
        *publisher.timestamp() = sign(&document["signed"], &[Key::new(99)]);
    })
    .await;
    assert!(sentence.contains("the cached list stays in force"), "{sentence}");
    assert!(sentence.contains("new root.json"), "{sentence}");
}

#[tokio::test]
async fn refuses_a_timestamp_without_a_signature_and_one_that_was_changed() {
    refused("0 of the operator's keys", |publisher| {
        publisher.publish(2);
        edit(publisher.timestamp(), |document| document["signatures"] = json!([]));
    })
    .await;
    refused("0 of the operator's keys", |publisher| {
        publisher.publish(2);
        edit(publisher.timestamp(), |document| document["signed"]["version"] = json!(9));
    })
    .await;
}

#[tokio::test]
async fn one_key_twice_is_not_two_signatures() {
    refused("is not signed as it must be (Duplicate key", |publisher| {
        publisher.publish(2);
        edit(publisher.timestamp(), |document| {
            let twice = document["signatures"][0].clone();
            document["signatures"].as_array_mut().expect("signatures").push(twice);
        });
    })
    .await;
    // The root may name a key twice: it still signs once.
    let mut publisher = Publisher::new();
    let mut root = Roles::new(10).document(1);
    let id = root["roles"]["timestamp"]["keyids"][0].clone();
    root["roles"]["timestamp"] = json!({"keyids": [id, id], "threshold": 2});
    let root = sign(&root, &publisher.roles.root);
    publisher.files.insert("metadata/1.root.json".into(), root.clone());
    let web = Web::start(&publisher).await;
    Device::new(&web, root).refuses("1 of the operator's keys have signed it, 2 must").await;
}

#[tokio::test]
async fn refuses_a_root_that_needs_no_signatures() {
    refused("its root metadata cannot be read", |publisher| {
        let mut root = publisher.roles.document(2);
        root["roles"]["timestamp"]["threshold"] = json!(0);
        let root = sign(&root, &publisher.roles.root);
        publisher.files.insert("metadata/2.root.json".into(), root);
        publisher.publish(2);
    })
    .await;
}

#[tokio::test]
async fn refuses_a_root_whose_key_has_another_keys_id() {
    refused("its root metadata cannot be read", |publisher| {
        let mut root = publisher.roles.document(2);
        root["keys"]["00".repeat(32)] = Key::new(99).public();
        let root = sign(&root, &publisher.roles.root);
        publisher.files.insert("metadata/2.root.json".into(), root);
        publisher.publish(2);
    })
    .await;
}

#[tokio::test]
async fn refuses_every_expired_role_by_the_devices_own_clock() {
    for role in ["timestamp", "snapshot", "targets"] {
        let sentence = refused(&format!("its {role} metadata has expired"), |publisher| {
            publisher.publish_bent(2, |which, document| {
                if which == role {
                    document["expires"] = json!(LAST_YEAR);
                }
            });
        })
        .await;
        assert!(sentence.contains("clock"), "{sentence}");
    }
    // In this device's view it is two years later, whatever the system's clock says.
    let publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let later = UnixSeconds(NOW.0 + 2 * 366 * 86_400);
    let error = device.ask_at(later).await.expect_err("it has expired meanwhile");
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn refuses_a_snapshot_of_another_publication() {
    refused("Hash mismatch", |publisher| {
        publisher.publish(2);
        let old = publisher.files[&publisher.newest("snapshot")].clone();
        publisher.publish(3);
        publisher.files.insert(publisher.newest("snapshot"), old);
    })
    .await;
}

#[tokio::test]
async fn refuses_targets_of_another_publication() {
    refused("Hash mismatch", |publisher| {
        publisher.publish(2);
        let old = publisher.files[&publisher.newest("targets")].clone();
        publisher.publish(3);
        publisher.files.insert(publisher.newest("targets"), old);
    })
    .await;
}

#[tokio::test]
async fn refuses_a_list_of_another_hash_or_length() {
    refused("Hash mismatch", |publisher| {
        publisher.publish(2);
        let path = publisher.list_path();
        let list = publisher.files.get_mut(&path).expect("a list");
        list[20] ^= 1;
    })
    .await;
    for length in [5, 5_000] {
        refused(if length == 5 { "exceeded" } else { "length" }, |publisher| {
            publisher.publish_bent(2, |role, document| {
                if role == "targets" {
                    document["targets"]["hotlist.json"]["length"] = json!(length);
                }
            });
        })
        .await;
    }
}

#[tokio::test]
async fn refuses_targets_of_another_length_than_the_snapshot_says() {
    refused("exceeded", |publisher| {
        publisher.publish_bent(2, |role, document| {
            if role == "snapshot" {
                document["meta"]["targets.json"]["length"] = json!(10);
            }
        });
    })
    .await;
}

#[tokio::test]
async fn refuses_a_publication_without_a_list() {
    refused("does not name hotlist.json", |publisher| {
        publisher.publish_bent(2, |role, document| {
            if role == "targets" {
                document["targets"].as_object_mut().expect("targets").remove("hotlist.json");
            }
        });
    })
    .await;
}

#[tokio::test]
async fn follows_no_delegations_and_asks_for_none() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    publisher.publish_bent(2, |role, document| match role {
        "targets" => {
            let roles: Vec<Value> = (0..100)
                .map(|n| {
                    let name = format!("bomb-{n}");
                    json!({"name": name, "keyids": [], "threshold": 1, "paths": ["*"], "terminating": false})
                })
                .collect();
            document["delegations"] = json!({"keys": {}, "roles": roles});
        }
        "snapshot" => {
            for n in 0..100 {
                document["meta"][format!("bomb-{n}.json")] = json!({"version": 1});
            }
        }
        _ => {}
    });
    web.show(&publisher);
    device.refuses("delegates to others").await;
    assert!(!web.state().asked.iter().any(|head| head.contains("bomb")));
}

#[tokio::test]
async fn refuses_a_list_that_no_operator_means() {
    refused("more than is plausible", |publisher| publisher.publish(60_000_000)).await;
    refused("not in the expected form", |publisher| publisher.publish_list(b"{}", |_, _| {})).await;
    refused("nests deeper than", |publisher| {
        publisher.publish_list("[".repeat(100_000).as_bytes(), |_, _| {});
    })
    .await;
}

#[tokio::test]
async fn refuses_the_same_epoch_with_other_content() {
    refused("epoch 1 again, but with other content", |publisher| {
        let list = json!({"format": 1, "epoch": 1, "published_at": 7, "entries": []});
        publisher.publish_list(list.to_string().as_bytes(), |_, _| {});
    })
    .await;
}

#[tokio::test]
async fn says_what_a_login_page_in_the_hubs_place_is() {
    let sentence = refused("cannot be read", |publisher| {
        *publisher.timestamp() = b"<html><title>Welcome to our hotel</title>".to_vec();
    })
    .await;
    assert!(sentence.contains("hub.url") && sentence.contains("login page"), "{sentence}");
}

#[tokio::test]
async fn nests_no_deeper_than_it_has_to() {
    let deep = format!(r#"{{"signed":{}1{}}}"#, "[".repeat(60), "]".repeat(60));
    refused("nests too deep", |publisher| *publisher.timestamp() = deep.into_bytes()).await;
    let deep = serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(50), "]".repeat(50)));
    let deep = deep.expect("JSON");
    refused("nests too deep", |publisher| {
        publisher.publish_bent(2, |role, document| {
            if role == "targets" {
                document["targets"]["hotlist.json"]["custom"] = json!({"a": deep});
            }
        });
    })
    .await;
}
