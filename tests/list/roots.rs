//! Roots that follow each other: keys are replaced, and what the replaced ones sign counts no more.

use crate::{
    publisher::{Key, Publisher, Roles},
    web::{Device, Web},
};

#[tokio::test]
async fn follows_the_chain_of_roots_from_the_pinned_one() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let latecomer = || Device::new(&web, Publisher::new().first_root());
    for seed in [20, 30, 40, 50] {
        publisher.rotate(Roles::new(seed));
    }
    publisher.publish(2);
    web.show(&publisher);
    device.accepts(2..=2).await;
    latecomer().accepts(2..=2).await;
    device.restart(&web);
    device.accepts(2..=2).await;
    let roots = web.asked_for("metadata/2.root.json").len();
    assert_eq!(roots, 3, "walked once by each, and known after the restart");
}

#[tokio::test]
async fn a_new_threshold_counts_from_the_next_publication_on() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let mut roles = Roles::new(20);
    for keys in [&mut roles.root, &mut roles.targets, &mut roles.snapshot, &mut roles.timestamp] {
        keys.push(Key::new(60 + keys[0].id().as_bytes()[0]));
    }
    roles.threshold = 2;
    publisher.rotate(roles.clone());
    let honest = publisher.clone();
    publisher.roles.timestamp.pop();
    publisher.publish(2);
    web.show(&publisher);
    device.refuses("1 of the operator's keys have signed it, 2 must").await;
    let mut publisher = honest;
    publisher.publish(2);
    web.show(&publisher);
    device.accepts(2..=2).await;
}

#[tokio::test]
async fn goes_no_further_than_a_link_that_is_missing_or_broken() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    for seed in [20, 30] {
        publisher.rotate(Roles::new(seed));
    }
    publisher.publish(2);
    let whole = publisher.files.clone();
    publisher.files.remove("metadata/2.root.json");
    web.show(&publisher);
    device.refuses("0 of the operator's keys").await;
    // Signed by the new keys alone, as if the old ones had nothing to say.
    let alone = crate::publisher::sign(&Roles::new(20).document(2), &Roles::new(20).root);
    publisher.files.insert("metadata/2.root.json".into(), alone);
    web.show(&publisher);
    device.refuses("its root metadata is not signed").await;
    // The third in the place of the second.
    publisher.files.insert("metadata/2.root.json".into(), whole["metadata/3.root.json"].clone());
    web.show(&publisher);
    device.refuses("its root metadata is not signed").await;
    web.state().files = whole;
    device.accepts(2..=2).await;
}

/// Whoever has stolen the old keys and stands in the line: they hide that the keys were replaced.
#[tokio::test]
async fn believes_replaced_keys_no_more_even_when_the_new_root_is_hidden() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let mut thief = publisher.clone();
    let mut roles = Roles::new(20);
    roles.root = publisher.roles.root.clone();
    publisher.rotate(roles);
    publisher.publish(2);
    web.show(&publisher);
    device.accepts(2..=2).await;
    for _ in 0..5 {
        thief.publish(3);
    }
    web.show(&thief);
    device.refuses("0 of the operator's keys").await;
    device.restart(&web);
    device.refuses("0 of the operator's keys").await;
    web.show(&publisher);
    device.accepts(2..=2).await;
}

#[tokio::test]
async fn still_goes_back_to_nothing_older_after_keys_were_replaced() {
    let mut publisher = Publisher::new();
    publisher.rotate(Roles::new(20));
    publisher.publish(2);
    let older = publisher.clone();
    publisher.publish(3);
    let web = Web::start(&publisher).await;
    let mut device = Device::new(&web, Publisher::new().first_root());
    device.accepts(3..=3).await;
    web.show(&older);
    device.held = None;
    device.refuses("was here before").await;
    device.restart(&web);
    device.refuses("was here before").await;
}

/// A thief with every online key has pushed versions and epoch as far as they go. New keys end that.
#[tokio::test]
async fn recovers_from_fast_forward_when_the_keys_are_replaced() {
    let mut publisher = Publisher::new();
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let mut thief = publisher.clone();
    thief.versions.timestamp = 1 << 60;
    thief.versions.snapshot = 1 << 60;
    thief.versions.targets = 1 << 60;
    thief.publish(40_000_000);
    web.show(&thief);
    device.accepts(40_000_000..).await;
    publisher.publish(2);
    web.show(&publisher);
    device.refuses("was here before").await;

    let mut roles = Roles::new(20);
    roles.root = publisher.roles.root.clone();
    publisher.rotate(roles);
    publisher.publish(3);
    web.show(&publisher);
    device.accepts(3..=3).await;
    publisher.publish(2);
    web.show(&publisher);
    device.refuses("older than epoch 3").await;
}

#[tokio::test]
async fn another_pinned_root_begins_another_chain() {
    let mut publisher = Publisher::new();
    publisher.rotate(Roles::new(20));
    publisher.publish(2);
    let web = Web::start(&publisher).await;
    let mut device = Device::following(&web, &publisher).await;
    let second = publisher.files["metadata/2.root.json"].clone();
    device.restart_with(&web, second);
    device.accepts(2..=2).await;
    let mut other = Publisher::new();
    other.roles = Roles::new(70);
    let root = crate::publisher::sign(&other.roles.document(1), &other.roles.root);
    other.files.insert("metadata/1.root.json".into(), root.clone());
    other.publish(3);
    web.show(&other);
    device.refuses("0 of the operator's keys").await;
    device.restart_with(&web, root);
    device.accepts(3..=3).await;
}
