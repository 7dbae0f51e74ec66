//! The chain over the ledger, and what is forgotten of it.

use super::*;

/// A ledger of three hours of which the first two are reported.
fn reported_ledger(dir: &TempDir, key: &SigningKey) -> Store {
    let store = open(dir);
    let hash = Infohash([1; 20]);
    for hour in 0..2 {
        let deltas = [served(hash, 100), served(Infohash([2; 20]), 7)];
        store.add_usage(dated(UtcHour(HOUR.0 + hour)), &deltas).expect("adds");
    }
    let now = UtcHour(HOUR.0 + 1).start();
    store.build_report("d", now, key, &BTreeSet::new()).expect("builds").expect("something new");
    store.add_usage(dated(UtcHour(HOUR.0 + 2)), &[served(hash, 5)]).expect("adds");
    store
}

#[test]
fn finds_what_another_hand_has_changed_says_it_once_and_loses_nothing() {
    let key = SigningKey::generate();
    let look = |store: &Store| store.verify_ledger(&key.public_hex()).expect("reads");
    let at = |hour| Some(UtcHour(HOUR.0 + hour));
    let cases = [
        ("UPDATE usage SET payload_bytes = payload_bytes + 1 WHERE hour = 500000", at(0)),
        ("UPDATE usage SET wire_bytes = wire_bytes + 1 WHERE hour = 500001", at(1)),
        ("DELETE FROM usage WHERE hour = 500002", at(2)),
        ("UPDATE usage SET hour = 500009 WHERE hour = 500002", at(2)),
        ("INSERT INTO usage VALUES (500004, zeroblob(20), 0, 1, 1, 0, 0)", at(4)),
        ("UPDATE usage SET reported_payload_bytes = 0 WHERE hour = 500000", None),
        ("UPDATE entry SET lines_hash = zeroblob(32) WHERE number = 2", None),
        ("DELETE FROM entry", None),
        ("UPDATE total SET head = replace(head, '0', '1')", None),
    ];
    for (tampering, hour) in cases {
        let dir = folder();
        let store = reported_ledger(&dir, &key);
        assert_eq!(look(&store), None);
        drop(store);
        assert_eq!(look(&open(&dir)), None);
        let db = Connection::open(dir.path().join("larder.db")).expect("opens");
        assert!(db.execute(tampering, []).expect("SQL") > 0, "{tampering}");
        drop(db);
        let store = open(&dir);
        let sums = store.egress_total();
        let found = look(&store).unwrap_or_else(|| panic!("not found: {tampering}"));
        assert_eq!(found.hour, hour, "{tampering}");
        assert_eq!(look(&store), None, "said once: {tampering}");
        assert_eq!(store.egress_total(), sums);
        drop(store);
        let store = open(&dir);
        assert_eq!(look(&store), None, "said once: {tampering}");
        store.add_usage(dated(UtcHour(HOUR.0 + 2)), &[served(Infohash([3; 20]), 1)]).expect("adds");
        let now = UtcHour(HOUR.0 + 10).start();
        store.build_report("d", now, &key, &BTreeSet::new()).expect("builds");
        let reports = store.unsent_reports().expect("reads");
        let report: Report = reports.last().expect("one").1.open_self_signed().expect("ours");
        assert_eq!(report.ledger.expect("has a head").breaks, 1, "{tampering}");
    }
}

#[test]
fn forgets_old_lines_that_are_reported_but_no_sum() {
    let dir = folder();
    let key = SigningKey::generate();
    let store = reported_ledger(&dir, &key);
    let (total, reported) = (store.egress_total(), store.reported_bytes().expect("sums"));
    store.report_accepted(1).expect("accepts");
    store.add_ingress(HOUR, 5).expect("adds");
    let year_later = |hours| UtcHour(HOUR.0 + 400 * 24 + hours);
    let hours = |store: &Store| -> Vec<u32> {
        let lines = store.usage_between(UtcHour(0), UtcHour(u32::MAX)).expect("reads");
        lines.iter().map(|line| line.hour.0 - HOUR.0).collect()
    };
    store.prune(year_later(0), |_| false).expect("prunes");
    assert_eq!(hours(&store), [0, 0, 1, 1, 2]);
    store.prune(year_later(1), |_| false).expect("prunes");
    assert_eq!(hours(&store), [1, 1, 2]);
    assert_eq!(store.ingress_by_hour(None, 1).expect("reads"), []);
    // What is not reported stays; whom nobody waits for goes.
    store.prune(year_later(9), |_| false).expect("prunes");
    assert_eq!(hours(&store), [2]);
    assert_eq!(store.verify_ledger(&key.public_hex()).expect("reads"), None);
    store.prune(year_later(9), |_| true).expect("prunes");
    assert_eq!(hours(&store), [] as [u32; 0]);
    drop(store);
    let store = open(&dir);
    assert_eq!(store.egress_total(), total);
    assert_eq!(reported, 0);
    assert_eq!(store.reported_bytes().expect("sums"), 214);
    assert_eq!(store.verify_ledger(&key.public_hex()).expect("reads"), None);
}

#[test]
fn begins_a_chain_over_a_ledger_that_had_none() {
    let dir = folder();
    let key = SigningKey::generate();
    drop(reported_ledger(&dir, &key));
    let db = Connection::open(dir.path().join("larder.db")).expect("opens");
    db.execute_batch("DELETE FROM entry; UPDATE total SET head = NULL").expect("as before it");
    drop(db);
    let store = open(&dir);
    assert_eq!(store.verify_ledger(&key.public_hex()).expect("reads"), None);
}
