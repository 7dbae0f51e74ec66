//! Forgets what nobody will ask for again, so that the database does not grow for ever: lines of the
//! ledger that are reported and older than a report may be, and the reports themselves. Sums stay.

use rusqlite::{Transaction, TransactionBehavior, params};

use super::{Store, StoreError, contents::as_integer};
use crate::logic::{infohash::Infohash, now::UtcHour};

/// Thirteen months, for whoever compares with last year; hubs take reports of so long ago.
pub const HOURS_KEPT: u32 = 400 * 24;
/// A month of them, at four an hour. Only the last is needed, for the chain.
const REPORTS_KEPT: u64 = 3_000;

impl Store {
    /// `now` has to be known for sure. Nobody waits for a report of what is `private`. What else is not
    /// reported stays, however old.
    pub fn prune(
        &self,
        now: UtcHour,
        private: impl Fn(Infohash) -> bool,
    ) -> Result<(), StoreError> {
        let before = UtcHour(now.0.saturating_sub(HOURS_KEPT));
        let mut db = self.0.db.lock();
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let contents: Vec<(Infohash, bool)> =
            old_contents(&change, before)?.into_iter().map(|i| (i, private(i))).collect();
        let filled = change.execute("DELETE FROM ingress WHERE hour < ?1", [before.0])?;
        if prune_usage(&change, before, &contents)? + prune_reports(&change)? + filled > 0 {
            change.commit()?;
        }
        Ok(())
    }
}

fn prune_usage(
    change: &Transaction,
    before: UtcHour,
    contents: &[(Infohash, bool)],
) -> rusqlite::Result<usize> {
    const OLD: &str = "FROM usage WHERE hour < ?1 AND infohash = ?2
        AND (?3 OR (reported_payload_bytes = payload_bytes AND reported_wire_bytes = wire_bytes))";
    let mut pruned = 0;
    for (infohash, is_private) in contents {
        let which = params![before.0, infohash.0, is_private];
        change.execute(
            &format!(
                "INSERT INTO lifetime (infohash, payload_bytes, wire_bytes)
                 SELECT ?2, coalesce(sum(payload_bytes), 0), coalesce(sum(wire_bytes), 0) {OLD}
                 ON CONFLICT DO UPDATE SET payload_bytes = payload_bytes + excluded.payload_bytes,
                     wire_bytes = wire_bytes + excluded.wire_bytes"
            ),
            which,
        )?;
        change.execute(
            &format!(
                "UPDATE total SET pruned_reported_bytes = pruned_reported_bytes
                     + (SELECT coalesce(sum(reported_payload_bytes), 0) {OLD})"
            ),
            which,
        )?;
        pruned += change.execute(&format!("DELETE {OLD}"), which)?;
    }
    if pruned > 0 {
        change.execute("UPDATE total SET pruned_before = max(pruned_before, ?1)", [before.0])?;
        // Only from the beginning: the rest has to hang together. The last entry stays.
        change.execute(
            "DELETE FROM entry WHERE number < (SELECT coalesce(
                 (SELECT min(number) FROM entry WHERE hour >= ?1), (SELECT max(number) FROM entry)))",
            [before.0],
        )?;
    }
    Ok(pruned)
}

fn old_contents(change: &Transaction, before: UtcHour) -> rusqlite::Result<Vec<Infohash>> {
    let mut query = change.prepare("SELECT DISTINCT infohash FROM usage WHERE hour < ?1")?;
    let rows = query.query_map([before.0], |row| Ok(Infohash(row.get(0)?)))?;
    rows.collect()
}

fn prune_reports(change: &Transaction) -> rusqlite::Result<usize> {
    const OLD: &str = "FROM report WHERE signed IS NULL
        AND number + ?1 <= (SELECT max(number) FROM report)";
    let kept = [as_integer(REPORTS_KEPT)];
    change.execute(
        &format!(
            "UPDATE total SET pruned_report_bytes = pruned_report_bytes
                 + (SELECT coalesce(sum(payload_bytes), 0) {OLD})"
        ),
        kept,
    )?;
    change.execute(&format!("DELETE {OLD}"), kept)
}
