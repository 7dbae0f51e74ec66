use proptest::prelude::*;

use super::*;
use crate::logic::{hotlist::Entry, now::UnixSeconds};

const NOW: WallTime = WallTime::Synced(UnixSeconds(1_000_000));
const LATER: UnixSeconds = UnixSeconds(2_000_000);
const EARLIER: UnixSeconds = UnixSeconds(500_000);

fn hash(n: u8) -> Infohash {
    Infohash([n; 20])
}

fn entry(n: u8, size_bytes: u64, score: f64) -> Entry {
    Entry {
        infohash: hash(n),
        name: format!("film-{n}.mp4"),
        size_bytes,
        score,
        lease_end: LATER,
        price_class: "standard".into(),
        replicas: 1,
        private: false,
        metainfo_url: "http://hub.example/m".parse().expect("a URL"),
        tracker_tiers: vec![],
        web_seeds: vec![],
        holders: vec![],
    }
}

fn list(entries: Vec<Entry>) -> HotList {
    HotList { format: 1, epoch: 1, published_at: UnixSeconds(900_000), devices: None, entries }
}

fn held(n: u8, size_bytes: u64, complete: bool) -> Held {
    Held {
        infohash: hash(n),
        size_bytes,
        part: Part::whole(),
        complete,
        pinned: false,
        egress_bytes_per_second: None,
    }
}

fn pinned(n: u8, size_bytes: u64) -> Held {
    Held { pinned: true, ..held(n, size_bytes, true) }
}

fn quota(quota_bytes: u64) -> Here<'static> {
    Here::with_quota(quota_bytes)
}

fn filled(plan: &Plan) -> Vec<Infohash> {
    plan.fill.iter().map(|fill| fill.infohash).collect()
}

#[test]
fn fills_by_score_per_byte_then_infohash() {
    let list = list(vec![entry(3, 100, 5.0), entry(2, 10, 1.0), entry(1, 100, 5.0)]);
    let plan = plan(&list, &[], &quota(1000), NOW);
    assert_eq!(filled(&plan), [hash(2), hash(1), hash(3)]);
    assert_eq!((plan.evict, plan.refused), (vec![], vec![]));
}

#[test]
fn refuses_content_larger_than_the_quota_and_keeps_the_rest() {
    let list = list(vec![entry(1, 3 << 30, 100.0), entry(2, 1 << 20, 1.0)]);
    let plan = plan(&list, &[held(2, 1 << 20, true)], &quota(1 << 30), NOW);
    let [(infohash, refusal)] = plan.refused[..] else { panic!("{plan:?}") };
    assert_eq!(infohash, hash(1));
    assert_eq!(
        refusal.to_string(),
        "its 3.0 GiB do not fit into the disk quota of 1.0 GiB; raise cache.quota_bytes to hold it"
    );
    assert_eq!((filled(&plan), plan.evict), (vec![], vec![]));
}

#[test]
fn evicts_when_the_lease_has_ended_or_the_operator_took_it_off_the_list() {
    let mut ended = entry(1, 10, 9.0);
    ended.lease_end = EARLIER;
    let plan = plan(
        &list(vec![ended, entry(2, 10, 1.0)]),
        &[held(1, 10, true), held(2, 10, true), held(3, 10, true)],
        &quota(1000),
        NOW,
    );
    assert_eq!(plan.evict, [hash(1), hash(3)]);
    assert_eq!(plan.refused, [(hash(1), Refusal::LeaseEnded)]);
}

#[test]
fn keeps_what_is_held_against_content_that_is_only_slightly_better() {
    let held = [held(9, 100, true)];
    let slightly = list(vec![entry(1, 100, 1.2), entry(9, 100, 1.0)]);
    let stays = plan(&slightly, &held, &quota(100), NOW);
    assert_eq!((filled(&stays), stays.evict), (vec![], vec![]));
    assert_eq!(stays.refused, [(hash(1), Refusal::NoRoom)]);

    let clearly = list(vec![entry(1, 100, 2.0), entry(9, 100, 1.0)]);
    let moves = plan(&clearly, &held, &quota(100), NOW);
    assert_eq!((filled(&moves), moves.evict), (vec![hash(1)], vec![hash(9)]));
}

#[test]
fn goes_on_with_a_fill_that_was_begun() {
    let plan = plan(&list(vec![entry(1, 10, 1.0)]), &[held(1, 10, false)], &quota(10), NOW);
    assert_eq!((filled(&plan), plan.evict), (vec![hash(1)], vec![]));
}

#[test]
fn fills_and_evicts_nothing_while_the_time_is_unknown() {
    let plan = plan(
        &list(vec![entry(1, 10, 1.0), entry(2, 10, 1.0)]),
        &[held(1, 10, true), held(3, 10, true)],
        &quota(1000),
        WallTime::Unsynced,
    );
    assert_eq!((filled(&plan), plan.evict), (vec![], vec![]));
    assert_eq!(plan.refused, [(hash(2), Refusal::TimeUnknown)]);
}

#[test]
fn never_evicts_a_pin_and_gives_the_rest_of_the_quota_to_the_list() {
    let mut ended = entry(2, 10, 9.0);
    ended.lease_end = EARLIER;
    let listed = list(vec![ended, entry(3, 30, 9.0), entry(4, 20, 1.0)]);
    let held = [pinned(1, 70), pinned(2, 10), held(4, 20, true)];
    let plan = plan(&listed, &held, &quota(100), NOW);
    assert_eq!((filled(&plan), plan.evict), (vec![], vec![]));
    assert_eq!(plan.refused, [(hash(3), Refusal::NoRoom)]);
}

#[test]
fn gives_up_listed_content_when_a_pin_needs_its_room() {
    let held = [pinned(1, 90), held(2, 20, true)];
    let plan = plan(&list(vec![entry(2, 20, 9.0)]), &held, &quota(100), NOW);
    assert_eq!((filled(&plan), plan.evict), (vec![], vec![hash(2)]));
}

#[test]
fn the_list_says_who_holds_which_part() {
    let shared = Entry { holders: vec![vec![5], vec![7, 8]], ..entry(1, 101, 1.0) };
    let list = list(vec![shared.clone()]);
    assert_eq!(share(&list, &shared, 5), Some(Part::of(0..50)));
    assert_eq!(share(&list, &shared, 8), Some(Part::of(50..101)));
    assert_eq!(share(&list, &shared, 6), None);
    let here = Here { tag: Some(8), ..quota(60) };
    let plan = plan(&list, &[], &here, NOW);
    assert_eq!(plan.fill, [Fill { infohash: hash(1), part: Part::of(50..101) }]);
}

#[test]
fn about_as_many_devices_hold_a_content_as_there_should_be_replicas() {
    let mut list = list((1..=200).map(|n| entry(n, 10, 1.0)).collect());
    list.devices = Some(1000);
    for entry in &mut list.entries {
        entry.replicas = 50;
    }
    let holders = |e: &Entry| (0..1000).filter(|tag| share(&list, e, *tag).is_some()).count();
    let counts: Vec<usize> = list.entries.iter().map(holders).collect();
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    assert!((48.0..52.0).contains(&mean), "{mean}");
    assert!(counts.iter().all(|count| (20..90).contains(count)), "{counts:?}");
}

#[test]
fn keeps_a_copy_too_many_only_while_there_is_room() {
    let elsewhere = Entry { holders: vec![vec![5]], ..entry(1, 60, 9.0) };
    let ours = Entry { holders: vec![vec![7]], ..entry(2, 60, 1.0) };
    let here = |quota_bytes| Here { tag: Some(7), ..quota(quota_bytes) };
    let held = [held(1, 60, true)];
    let roomy = plan(&list(vec![elsewhere.clone(), ours.clone()]), &held, &here(120), NOW);
    assert_eq!((filled(&roomy), roomy.evict), (vec![hash(2)], vec![]));
    let tight = plan(&list(vec![elsewhere, ours]), &held, &here(100), NOW);
    assert_eq!((filled(&tight), tight.evict), (vec![hash(2)], vec![hash(1)]));
}

#[test]
fn what_earns_more_and_what_peers_here_ask_for_comes_first() {
    let gold = Entry { price_class: "gold".into(), ..entry(1, 100, 1.0) };
    let prices = [("gold".to_owned(), Micros(300)), ("standard".to_owned(), Micros(100))].into();
    let here = Here { prices: Some(&prices), ..quota(100) };
    let plan_of =
        |entries: Vec<Entry>, held: &[Held], here: &Here| plan(&list(entries), held, here, NOW);
    assert_eq!(filled(&plan_of(vec![entry(2, 100, 2.0), gold], &[], &here)), [hash(1)]);

    let seen = |n, egress| Held { egress_bytes_per_second: Some(egress), ..held(n, 50, true) };
    let both = [seen(1, 9.0), seen(2, 1.0)];
    let entries = vec![entry(1, 50, 1.0), entry(2, 50, 1.2)];
    assert_eq!(plan_of(entries, &both, &quota(50)).evict, [hash(2)]);
}

#[test]
fn a_lease_that_is_about_to_end_is_not_worth_a_fill() {
    let WallTime::Synced(now) = NOW else { panic!("known") };
    let ending = Entry { lease_end: UnixSeconds(now.0 + 3600), ..entry(1, 100, 3.0) };
    let plan = plan(&list(vec![ending, entry(2, 100, 1.0)]), &[], &quota(100), NOW);
    assert_eq!(filled(&plan), [hash(2)]);
}

/// Contents numbered without repeats, some of them held, sizes and scores small enough to tie often.
fn situation() -> impl Strategy<Value = (Vec<Entry>, Vec<Held>, u64)> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let one = (1u64..50, 0u32..6, flags);
    (prop::collection::vec(one, 0..20), 0u64..200).prop_map(|(contents, quota_bytes)| {
        let (mut entries, mut holds) = (vec![], vec![]);
        for (n, (size, score, flags)) in contents.into_iter().enumerate() {
            let (listed, is_held, complete, ended, is_pinned) = flags;
            let n = n as u8;
            if listed {
                let mut e = entry(n, size, f64::from(score));
                e.lease_end = if ended { EARLIER } else { LATER };
                entries.push(e);
            }
            if is_held {
                // Only what is complete is ever pinned.
                holds.push(if complete && is_pinned {
                    pinned(n, size)
                } else {
                    held(n, size, complete)
                });
            }
        }
        (entries, holds, quota_bytes)
    })
}

/// What is on disk once the plan has been carried out.
fn carried_out(plan: &Plan, list: &HotList, before: &[Held]) -> Vec<Held> {
    let stays = before.iter().filter(|h| !plan.evict.contains(&h.infohash)).copied();
    let mut after: BTreeMap<Infohash, Held> = stays.map(|h| (h.infohash, h)).collect();
    for Fill { infohash, part } in &plan.fill {
        let entry = list.entry(*infohash).expect("only listed content is filled");
        let bytes = part.bytes(entry.size_bytes);
        // What was held before may be of another size than the list says.
        let size_bytes = match after.get(infohash) {
            Some(held) if held.part == *part => held.size_bytes,
            _ => bytes.end - bytes.start,
        };
        let held = Held {
            infohash: *infohash,
            size_bytes,
            part: *part,
            complete: true,
            pinned: false,
            egress_bytes_per_second: None,
        };
        after.insert(*infohash, held);
    }
    after.into_values().collect()
}

proptest! {
    #[test]
    fn never_plans_above_the_quota((entries, held, quota_bytes) in situation()) {
        let list = list(entries);
        let plan = plan(&list, &held, &quota(quota_bytes), NOW);
        let total: u64 = carried_out(&plan, &list, &held).iter().map(|h| h.size_bytes).sum();
        // The quota may have been lowered after the owner pinned.
        let pinned: u64 = held.iter().filter(|h| h.pinned).map(|h| h.size_bytes).sum();
        prop_assert!(total <= quota_bytes.max(pinned), "{total} of {quota_bytes}");
    }

    #[test]
    fn never_evicts_a_pin((entries, held, quota_bytes) in situation()) {
        let plan = plan(&list(entries), &held, &quota(quota_bytes), NOW);
        let pinned = |infohash: &Infohash| held.iter().any(|h| h.pinned && h.infohash == *infohash);
        prop_assert!(!plan.evict.iter().any(pinned), "{:?}", plan.evict);
    }

    #[test]
    fn does_not_depend_on_the_order_of_its_input((entries, held, quota_bytes) in situation()) {
        let (mut reversed, mut held_reversed) = (entries.clone(), held.clone());
        reversed.reverse();
        held_reversed.reverse();
        prop_assert_eq!(
            plan(&list(entries), &held, &quota(quota_bytes), NOW),
            plan(&list(reversed), &held_reversed, &quota(quota_bytes), NOW)
        );
    }

    #[test]
    fn has_nothing_left_to_do_once_carried_out((entries, held, quota_bytes) in situation()) {
        let list = list(entries);
        let first = plan(&list, &held, &quota(quota_bytes), NOW);
        let after = carried_out(&first, &list, &held);
        let second = plan(&list, &after, &quota(quota_bytes), NOW);
        prop_assert_eq!((filled(&second), second.evict), (vec![], vec![]));
    }

    #[test]
    fn says_why_for_every_listed_content_that_is_not_held((entries, held, quota_bytes) in situation()) {
        let list = list(entries);
        let plan = plan(&list, &held, &quota(quota_bytes), NOW);
        let after = carried_out(&plan, &list, &held);
        for entry in &list.entries {
            let kept = after.iter().any(|h| h.infohash == entry.infohash);
            let refused = plan.refused.iter().any(|(infohash, _)| *infohash == entry.infohash);
            prop_assert!(kept != refused, "{:?}", entry.infohash);
        }
    }
}
