//! The ledger's chain in the database (`logic::ledger::chain` says what it is), and what is done when the
//! lines do not fit it: everything is kept, and said. Decides nothing about money.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    Store, StoreError,
    contents::as_integer,
    ledger::{bytes, class, to_text},
};
use crate::{
    api::{
        hub::LedgerHead,
        signed::{Signed, SigningKey},
    },
    logic::{
        infohash::Infohash,
        ledger::chain::{BEGINNING, Hash, entry_hash, lines_hash},
        now::UtcHour,
        usage::Usage,
    },
};

/// Something other than larderd has changed the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger in larder.db was changed by something other than larderd{}; nothing is lost, and the \
     next report tells the operator",
    .hour.map(|hour| format!(" (first in an hour of {})", hour.day())).unwrap_or_default()
)]
pub struct LedgerBreak {
    /// Whose lines are others than the chain says; none if the chain itself is broken.
    pub hour: Option<UtcHour>,
}

impl Store {
    /// Compares all lines with the chain, and the chain with what was last signed by `key` (hex). What
    /// does not fit is said once: the chain then begins anew with what is there.
    pub fn verify_ledger(&self, key: &str) -> Result<Option<LedgerBreak>, StoreError> {
        self.checkpoint_usage()?;
        let mut db = self.0.db.lock();
        let found = find_break(&db, key)?;
        if found.is_some() {
            let change = db.transaction()?;
            change.execute(
                "UPDATE total SET breaks = breaks + 1, head = NULL, pruned_reported_bytes =
                     pruned_report_bytes + (SELECT coalesce(sum(payload_bytes), 0) FROM report)
                     - (SELECT coalesce(sum(reported_payload_bytes), 0) FROM usage)",
                [],
            )?;
            begin(&change)?;
            change.commit()?;
        }
        Ok(found)
    }

    /// A ledger from before there was a chain.
    pub(super) fn begin_chain(&self) -> Result<(), StoreError> {
        let mut db = self.0.db.lock();
        let change = db.transaction()?;
        let begun: bool = change.query_row(
            "SELECT EXISTS (SELECT 1 FROM entry) OR head IS NOT NULL FROM total",
            [],
            |row| row.get(0),
        )?;
        if !begun {
            begin(&change)?;
            change.commit()?;
        }
        Ok(())
    }
}

/// An entry for each hour that has just changed.
pub(super) fn append(change: &Transaction, hours: &BTreeSet<UtcHour>) -> rusqlite::Result<()> {
    for hour in hours {
        let (last, previous) = last_entry(change)?;
        let (number, lines) = (last + 1, hash_of(change, *hour)?);
        let hash = entry_hash(&previous, number, *hour, &lines);
        change
            .prepare_cached(
                "INSERT INTO entry (number, hour, lines_hash, hash) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![as_integer(number), hour.0, lines, hash])?;
    }
    Ok(())
}

/// For the next report, and kept signed: what is found at the next start is compared with it.
pub(super) fn sign_head(change: &Transaction, key: &SigningKey) -> rusqlite::Result<LedgerHead> {
    let (entries, hash) = last_entry(change)?;
    let breaks = change.query_row("SELECT breaks FROM total", [], |row| bytes(row, 0))?;
    let head = LedgerHead { entries, hash: HEXLOWER.encode(&hash), breaks };
    change.execute("UPDATE total SET head = ?1", [to_text(&Signed::new(&head, key))])?;
    Ok(head)
}

/// The numbers go on: what was signed before is not mistaken for this.
fn begin(change: &Transaction) -> rusqlite::Result<()> {
    let (last, _) = last_entry(change)?;
    change.execute("DELETE FROM entry WHERE number < ?1", [as_integer(last)])?;
    let hours = {
        let mut query = change.prepare(
            "SELECT DISTINCT hour FROM usage WHERE hour >= (SELECT pruned_before FROM total)",
        )?;
        let rows = query.query_map([], |row| Ok(UtcHour(row.get(0)?)))?;
        rows.collect::<Result<BTreeSet<_>, _>>()?
    };
    append(change, &hours)?;
    change.execute("DELETE FROM entry WHERE number = ?1", [as_integer(last)]).map(drop)
}

fn last_entry(db: &Connection) -> rusqlite::Result<(u64, Hash)> {
    let last = db
        .prepare_cached("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| Ok((bytes(row, 0)?, row.get(1)?)))
        .optional()?;
    Ok(last.unwrap_or((0, BEGINNING)))
}

fn hash_of(db: &Connection, hour: UtcHour) -> rusqlite::Result<Hash> {
    let mut query = db.prepare_cached(
        "SELECT infohash, class, payload_bytes, wire_bytes FROM usage WHERE hour = ?1
         ORDER BY infohash, class",
    )?;
    let lines = query.query_map([hour.0], |row| {
        let usage = Usage { payload_bytes: bytes(row, 2)?, wire_bytes: bytes(row, 3)? };
        Ok((Infohash(row.get(0)?), class(row, 1)?, usage))
    })?;
    Ok(lines_hash(lines.collect::<Result<Vec<_>, _>>()?))
}

fn find_break(db: &Connection, key: &str) -> rusqlite::Result<Option<LedgerBreak>> {
    let broken = Some(LedgerBreak { hour: None });
    let (pruned_before, head): (u32, Option<String>) =
        db.query_row("SELECT pruned_before, head FROM total", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let Some((chain, latest)) = walk(db)? else { return Ok(broken) };
    if head.is_some_and(|head| !fits(&head, key, &chain)) {
        return Ok(broken);
    }
    let mut hours: BTreeSet<UtcHour> = latest.keys().copied().collect();
    let mut query = db.prepare("SELECT DISTINCT hour FROM usage")?;
    for hour in query.query_map([], |row| row.get(0))? {
        hours.insert(UtcHour(hour?));
    }
    for hour in hours.into_iter().filter(|hour| hour.0 >= pruned_before) {
        if latest.get(&hour) != Some(&hash_of(db, hour)?) {
            return Ok(Some(LedgerBreak { hour: Some(hour) }));
        }
    }
    let told_otherwise: bool = db.query_row(
        "SELECT (SELECT coalesce(sum(payload_bytes), 0) FROM report) + pruned_report_bytes <>
             (SELECT coalesce(sum(reported_payload_bytes), 0) FROM usage) + pruned_reported_bytes
         FROM total",
        [],
        |row| row.get(0),
    )?;
    Ok(broken.filter(|_| told_otherwise))
}

type Chain = (BTreeMap<u64, Hash>, BTreeMap<UtcHour, Hash>);

/// The entries by number, and each hour's last word; `None` if one does not follow from the one before.
fn walk(db: &Connection) -> rusqlite::Result<Option<Chain>> {
    let mut query =
        db.prepare("SELECT number, hour, lines_hash, hash FROM entry ORDER BY number")?;
    let mut rows = query.query([])?;
    let (mut chain, mut latest) = Chain::default();
    // What came before the first that is kept was pruned.
    let mut previous: Option<(u64, Hash)> = None;
    while let Some(row) = rows.next()? {
        let (number, hour, lines) = (bytes(row, 0)?, UtcHour(row.get(1)?), row.get(2)?);
        let hash: Hash = row.get(3)?;
        let follows = previous.is_none_or(|(before, its_hash)| {
            number == before + 1 && hash == entry_hash(&its_hash, number, hour, &lines)
        });
        if !follows {
            return Ok(None);
        }
        previous = Some((number, hash));
        chain.insert(number, hash);
        latest.insert(hour, lines);
    }
    Ok(Some((chain, latest)))
}

/// What was signed is in the chain, or was pruned from its beginning.
fn fits(head: &str, key: &str, chain: &BTreeMap<u64, Hash>) -> bool {
    let signed: Option<Signed> = serde_json::from_str(head).ok();
    let head = signed.and_then(|signed| signed.open::<LedgerHead>(&[key.to_owned()]).ok());
    let Some(head) = head else { return false };
    match chain.get(&head.entries) {
        Some(hash) => HEXLOWER.encode(hash) == head.hash,
        None => head.entries == 0 || chain.keys().next().is_some_and(|first| head.entries < *first),
    }
}
