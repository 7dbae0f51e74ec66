//! The ledger: what is added, dated, reported and found again.

use super::*;

#[test]
fn adds_usage_by_content_hour_and_class() {
    let dir = folder();
    let store = open(&dir);
    let (a, b) = (Infohash([1; 20]), Infohash([2; 20]));
    let lan = UsageDelta { class: PeerClass::Lan, ..served(a, 5) };
    store.add_usage(dated(HOUR), &[served(a, 10), served(b, 1), lan]).expect("adds");
    store.add_usage(dated(HOUR), &[served(a, 30)]).expect("adds");
    store.add_usage(dated(UtcHour(HOUR.0 + 1)), &[served(a, 2)]).expect("adds");
    let lines = store.usage_between(HOUR, UtcHour(HOUR.0 + 1)).expect("reads");
    let told: Vec<_> = lines.iter().map(|l| (l.infohash, l.class, l.usage.payload_bytes)).collect();
    assert_eq!(told, [(a, PeerClass::Wan, 40), (a, PeerClass::Lan, 5), (b, PeerClass::Wan, 1)]);
    assert_eq!(store.egress(a).payload_bytes, 47);
}

#[test]
fn writes_nothing_while_nothing_happens() {
    let dir = folder();
    let store = open(&dir);
    store.set_setting("limit", &5).expect("writes");
    let log = dir.path().join("larder.db-wal");
    let before = fs::metadata(&log).expect("a log").len();
    store.add_usage(dated(HOUR), &[]).expect("adds");
    store
        .add_usage(
            dated(HOUR),
            &[served(Infohash([1; 20]), 0)].map(|mut d| {
                d.usage.wire_bytes = 0;
                d
            }),
        )
        .expect("adds");
    store.date_undated(&KNOWN).expect("dates");
    store.set_setting("limit", &5).expect("writes");
    let key = SigningKey::generate();
    assert_eq!(
        store.build_report("device", UnixSeconds(1), &key, &BTreeSet::new()).expect("builds"),
        None
    );
    assert_eq!(fs::metadata(&log).expect("a log").len(), before);
}

#[test]
fn keeps_to_itself_what_was_served_of_the_owners_own_contents() {
    let dir = folder();
    let store = open(&dir);
    let key = SigningKey::generate();
    let (own, listed) = (Infohash([1; 20]), Infohash([2; 20]));
    store.add_usage(dated(HOUR), &[served(own, 10), served(listed, 7)]).expect("adds");
    store.build_report("device", UnixSeconds(1), &key, &[own].into()).expect("builds");
    let reports = store.unsent_reports().expect("reads");
    let report: Report = reports[0].1.open_self_signed().expect("our own");
    assert_eq!(report.lines.iter().map(|l| l.infohash).collect::<Vec<_>>(), [listed]);
    let nothing = store.build_report("device", UnixSeconds(2), &key, &[own].into());
    assert_eq!(nothing.expect("builds"), None);
}

#[test]
fn never_reports_undated_usage_until_it_is_dated() {
    let dir = folder();
    let store = open(&dir);
    let key = SigningKey::generate();
    let hash = Infohash([1; 20]);
    store.add_usage(held(0), &[served(hash, 10)]).expect("adds");
    store.add_usage(held(0), &[served(hash, 5)]).expect("adds");
    assert_eq!(
        store.build_report("device", UnixSeconds(1), &key, &BTreeSet::new()).expect("builds"),
        None
    );
    assert_eq!(store.egress(hash).payload_bytes, 15);
    drop(store);
    let store = open(&dir);
    assert_eq!(store.egress(hash).payload_bytes, 15);
    assert_eq!(store.date_undated(&KNOWN).expect("dates"), 15);
    assert_eq!(store.date_undated(&KNOWN).expect("dates"), 0);
    assert_eq!(store.egress(hash).payload_bytes, 15);
    assert_eq!(
        store.build_report("device", UnixSeconds(1), &key, &BTreeSet::new()).expect("builds"),
        Some(1)
    );
}

#[test]
fn dates_what_was_held_to_the_hours_in_which_it_happened() {
    let dir = folder();
    let store = open(&dir);
    let hash = Infohash([1; 20]);
    store.add_usage(held(3500), &[served(hash, 10)]).expect("adds");
    store.add_usage(held(3660), &[served(hash, 5)]).expect("adds");
    drop(store);
    let store = open(&dir);
    assert!(store.has_undated());
    let known = KnownTime { now: UnixSeconds(500_003 * 3600), ..KNOWN };
    assert_eq!(store.date_undated(&known).expect("dates"), 15);
    assert!(!store.has_undated());
    let lines = store.usage_between(HOUR, UtcHour(HOUR.0 + 3)).expect("reads");
    let told: Vec<_> = lines.iter().map(|l| (l.hour.0, l.usage.payload_bytes)).collect();
    assert_eq!(told, [(HOUR.0, 10), (HOUR.0 + 1, 5)]);
}

#[test]
fn keeps_counts_through_a_kill_and_never_doubles_them() {
    let dir = folder();
    let store = open(&dir);
    let (hash, mut served_bytes) = (Infohash([1; 20]), 0);
    for n in 1..=1_000u64 {
        store.add_usage(dated(HOUR), &[served(hash, n)]).expect("adds");
        served_bytes += n;
        match n % 7 {
            3 => store.sync_usage().expect("syncs"),
            5 if n % 35 == 5 => store.checkpoint_usage().expect("moves"),
            _ => {}
        }
        if n % 100 == 0 {
            // A kill leaves what the kernel has; the copy is opened twice.
            let copy = crashed_copy(&dir);
            assert_eq!(open(&copy).egress(hash).payload_bytes, served_bytes);
            assert_eq!(open(&copy).egress(hash).payload_bytes, served_bytes);
        }
    }
    drop(store);
    let lines = open(&dir).usage_between(HOUR, UtcHour(HOUR.0 + 1)).expect("reads");
    assert_eq!(lines.iter().map(|l| l.usage.payload_bytes).sum::<u64>(), served_bytes);
}

#[test]
fn moves_the_journal_into_the_database_before_it_is_full() {
    let dir = folder();
    let store = open(&dir);
    let hash = Infohash([1; 20]);
    for _ in 0..1_000 {
        store.add_usage(dated(HOUR), &[served(hash, 1)]).expect("adds");
        store.sync_usage().expect("syncs");
    }
    assert_eq!(store.egress(hash).payload_bytes, 1_000);
    let many = |n: u16| {
        let mut infohash = [0; 20];
        infohash[..2].copy_from_slice(&n.to_be_bytes());
        served(Infohash(infohash), 1)
    };
    for _ in 0..5 {
        let deltas: Vec<_> = (0..20_000).map(many).collect();
        store.add_usage(dated(HOUR), &deltas).expect("adds");
    }
    drop(store);
    let lines = open(&dir).usage_between(HOUR, UtcHour(HOUR.0 + 1)).expect("reads");
    assert_eq!(lines.iter().map(|l| l.usage.payload_bytes).sum::<u64>(), 1_000 + 5 * 20_000);
}

#[test]
fn starts_without_a_journal_and_without_a_new_one_that_is_not_its_own() {
    let dir = folder();
    let store = open(&dir);
    let hash = Infohash([1; 20]);
    store.add_usage(dated(HOUR), &[served(hash, 7)]).expect("adds");
    store.checkpoint_usage().expect("moves");
    store.add_usage(dated(HOUR), &[served(hash, 5)]).expect("adds");
    drop(store);
    let journal = dir.path().join("ledger.journal");
    let ours = fs::read(&journal).expect("reads");
    fs::remove_file(&journal).expect("removes");
    assert_eq!(open(&dir).egress(hash).payload_bytes, 7);
    fs::write(&journal, &ours[..13_000]).expect("writes");
    assert_eq!(open(&dir).egress(hash).payload_bytes, 12);

    let other = folder();
    drop(open(&other));
    fs::write(other.path().join("ledger.journal"), &ours).expect("writes");
    assert_eq!(open(&other).egress(hash).payload_bytes, 0);
}

#[test]
fn numbers_and_chains_reports_and_sends_each_until_it_is_accepted() {
    let dir = folder();
    let store = open(&dir);
    let key = SigningKey::generate();
    let trusted = [key.public_hex()];
    let hash = Infohash([1; 20]);
    for bytes in [100, 20] {
        store.add_usage(dated(HOUR), &[served(hash, bytes)]).expect("adds");
        store.build_report("device", UnixSeconds(bytes), &key, &BTreeSet::new()).expect("builds");
    }
    let unsent = store.unsent_reports().expect("lists");
    let [(1, first), (2, second)] = &unsent[..] else { panic!("{unsent:?}") };
    let opened: Vec<Report> =
        [first, second].map(|r| r.open(&trusted).expect("signed by us")).into();
    assert_eq!(opened[0].previous_hash, ledger::NO_PREVIOUS_HASH);
    assert_eq!(opened[1].previous_hash, ledger::payload_hash(&first.payload));
    assert_eq!(opened[1].lines[0].usage, Usage { payload_bytes: 20, wire_bytes: 86 });

    store.report_accepted(1).expect("accepts");
    store.report_accepted(1).expect("accepts again");
    assert_eq!(store.reported_bytes().expect("sums"), 100);
    let left: Vec<_> = store.unsent_reports().expect("lists").iter().map(|(n, _)| *n).collect();
    assert_eq!(left, [2]);
}

#[test]
fn splits_a_long_ledger_into_several_reports() {
    let dir = folder();
    let store = open(&dir);
    let key = SigningKey::generate();
    let lines = crate::api::hub::MAX_REPORT_LINES as u32 + 1;
    let deltas: Vec<_> = (0..lines)
        .map(|n| {
            let mut hash = [0; 20];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            served(Infohash(hash), 1)
        })
        .collect();
    store.add_usage(dated(HOUR), &deltas).expect("adds");
    let mut numbers = vec![];
    while let Some(number) =
        store.build_report("d", UnixSeconds(1), &key, &BTreeSet::new()).expect("builds")
    {
        numbers.push(number);
    }
    assert_eq!(numbers, [1, 2]);
    (1..=2).for_each(|n| store.report_accepted(n).expect("accepts"));
    assert_eq!(store.reported_bytes().expect("sums"), u64::from(lines));
}

#[test]
fn keeps_the_latest_statement_of_each_month() {
    let dir = folder();
    let store = open(&dir);
    let key = SigningKey::generate();
    let month = UtcMonth { year: 2026, month: 11 };
    assert_eq!(store.statement(month).expect("reads"), None);
    let newer = Signed::new(&"newer", &key);
    store.save_statement(month, &Signed::new(&"older", &key)).expect("saves");
    store.save_statement(month, &newer).expect("saves");
    assert_eq!(store.statement(month).expect("reads"), Some(newer));
}
