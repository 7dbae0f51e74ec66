//! The ledger in the database: usage by content, hour and class, the reports made of it, and the
//! operator's statements. What was served since the last checkpoint is in the journal; whoever reads
//! here moves it over first. A report and the mark "this is reported" are one transaction, so that a crash can
//! neither lose a byte nor tell it twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{Store, StoreError, chain, contents::as_integer, prune::HOURS_KEPT};
use crate::{
    api::{
        hub::{MAX_REPORT_LINES, Report},
        signed::{Signed, SigningKey},
    },
    logic::{
        infohash::Infohash,
        ledger::{
            self, LedgerRow, Link,
            dating::{BootId, BootMoment, KnownTime, date},
        },
        now::{UnixSeconds, UtcHour, UtcMonth},
        usage::{PeerClass, Usage, UsageDelta, UsageLine},
    },
};

const REPORT_FORMAT: u32 = 1;

impl Store {
    /// Once the time is known: puts all undated usage under the hours in which it happened, as far
    /// as that can be known. Returns the payload bytes that were dated.
    pub fn date_undated(&self, known: &KnownTime) -> Result<u64, StoreError> {
        self.checkpoint_usage()?;
        self.0.undated.store(false, Ordering::Relaxed);
        let dated = self.date_held(known);
        if dated.is_err() {
            self.0.undated.store(true, Ordering::Relaxed);
        }
        dated
    }

    /// Some usage may wait for its date.
    pub fn has_undated(&self) -> bool {
        self.0.undated.load(Ordering::Relaxed)
    }

    fn date_held(&self, known: &KnownTime) -> Result<u64, StoreError> {
        let mut db = self.0.db.lock();
        let lines = held_lines(&db, known)?;
        if lines.is_empty() {
            return Ok(0);
        }
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for UsageLine { infohash, hour, class, usage } in lines.iter().copied() {
            add_dated(&change, hour, &UsageDelta { infohash, class, usage })?;
        }
        chain::append(&change, &lines.iter().map(|line| line.hour).collect())?;
        change.execute("DELETE FROM held_usage", [])?;
        change.commit()?;
        Ok(lines.iter().map(|line| line.usage.payload_bytes).sum())
    }

    /// Undated usage, under the hours that it would get if the time were known to be this.
    pub fn undated_lines(&self, known: &KnownTime) -> Result<Vec<UsageLine>, StoreError> {
        self.checkpoint_usage()?;
        Ok(held_lines(&self.0.db.lock(), known)?)
    }

    /// The start of the newest hour that has usage.
    pub fn newest_entry(&self) -> Result<Option<UnixSeconds>, StoreError> {
        self.checkpoint_usage()?;
        let db = self.0.db.lock();
        let newest: Option<u32> =
            db.query_row("SELECT max(hour) FROM usage", [], |row| row.get(0))?;
        Ok(newest.map(|hour| UtcHour(hour).start()))
    }

    /// The ledger's lines from the start of `from` to the start of `to`, in order.
    pub fn usage_between(&self, from: UtcHour, to: UtcHour) -> Result<Vec<UsageLine>, StoreError> {
        self.checkpoint_usage()?;
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(
            "SELECT hour, infohash, class, payload_bytes, wire_bytes FROM usage
             WHERE hour >= ?1 AND hour < ?2 ORDER BY hour, infohash, class",
        )?;
        let rows = query.query_map([from.0, to.0], |row| {
            Ok(UsageLine {
                hour: UtcHour(row.get(0)?),
                infohash: Infohash(row.get(1)?),
                class: class(row, 2)?,
                usage: Usage { payload_bytes: bytes(row, 3)?, wire_bytes: bytes(row, 4)? },
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Wire bytes to WAN peers that wait for the time to be known.
    pub fn undated_wan_wire_bytes(&self) -> Result<u64, StoreError> {
        self.checkpoint_usage()?;
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(
            "SELECT coalesce(sum(wire_bytes), 0) FROM held_usage WHERE class = ?1",
        )?;
        Ok(query.query_row([class_number(PeerClass::Wan)], |row| bytes(row, 0))?)
    }

    /// Adds to what was filled in this hour.
    pub fn add_ingress(&self, hour: UtcHour, ingress_bytes: u64) -> Result<(), StoreError> {
        self.0.db.lock().execute(
            "INSERT INTO ingress (hour, bytes) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET bytes = bytes + ?2",
            params![hour.0, as_integer(ingress_bytes)],
        )?;
        Ok(())
    }

    /// Wire bytes to WAN peers by hour, as far back as `hours` before `now`, or before the newest
    /// hour of all where that is older or `now` is not known.
    pub fn wan_wire_bytes_by_hour(
        &self,
        now: Option<UtcHour>,
        hours: u32,
    ) -> Result<Vec<(UtcHour, u64)>, StoreError> {
        self.checkpoint_usage()?;
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(
            "SELECT hour, sum(wire_bytes) FROM usage
             WHERE hour >= min(?1, (SELECT coalesce(max(hour), 0) FROM usage)) - ?2 AND class = ?3
             GROUP BY hour",
        )?;
        let now = now.unwrap_or(UtcHour(u32::MAX));
        let wan = u32::from(class_number(PeerClass::Wan));
        let rows = query
            .query_map([now.0, hours, wan], |row| Ok((UtcHour(row.get(0)?), bytes(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was filled, by hour, as far back as above.
    pub fn ingress_by_hour(
        &self,
        now: Option<UtcHour>,
        hours: u32,
    ) -> Result<Vec<(UtcHour, u64)>, StoreError> {
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(
            "SELECT hour, bytes FROM ingress
             WHERE hour >= min(?1, (SELECT coalesce(max(hour), 0) FROM ingress)) - ?2",
        )?;
        let now = now.unwrap_or(UtcHour(u32::MAX));
        let rows =
            query.query_map([now.0, hours], |row| Ok((UtcHour(row.get(0)?), bytes(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All that was ever served of a content, by the ledger.
    pub fn egress(&self, infohash: Infohash) -> Usage {
        self.0.egress.lock().get(&infohash).copied().unwrap_or_default()
    }

    /// The same of all contents, those that are gone among them.
    pub fn egress_total(&self) -> Usage {
        let mut total = Usage::default();
        self.0.egress.lock().values().for_each(|usage| total.add(*usage));
        total
    }

    /// Takes what no report tells yet, signs it as the next report, stores that, and marks the
    /// bytes as reported: one transaction. `None` when there is nothing to tell. What was served of
    /// `owners_own` contents, which no operator listed, stays in the house.
    pub fn build_report(
        &self,
        device: &str,
        now: UnixSeconds,
        key: &SigningKey,
        owners_own: &BTreeSet<Infohash>,
    ) -> Result<Option<u64>, StoreError> {
        self.checkpoint_usage()?;
        let mut db = self.0.db.lock();
        // Hubs refuse what is older, and with it everything else in the report.
        let oldest = UtcHour(now.hour().0.saturating_sub(HOURS_KEPT));
        let mut rows = unreported(&db, oldest)?;
        rows.retain(|row| !owners_own.contains(&row.infohash));
        let lines = ledger::lines_to_report(rows, MAX_REPORT_LINES);
        if lines.is_empty() {
            return Ok(None);
        }
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let link = next_link(&change)?;
        for line in &lines {
            mark_reported(&change, line)?;
        }
        let payload_bytes: u64 = lines.iter().map(|l| l.usage.payload_bytes).sum();
        let number = link.number;
        let report = Report {
            format: REPORT_FORMAT,
            device: device.to_owned(),
            number,
            previous_hash: link.previous_hash,
            created_at: now,
            ledger: Some(chain::sign_head(&change, key)?),
            lines,
        };
        let signed = Signed::new(&report, key);
        change.execute(
            "INSERT INTO report (number, payload_hash, payload_bytes, signed)
             VALUES (?1, ?2, ?3, ?4)",
            params![
                as_integer(number),
                ledger::payload_hash(&signed.payload),
                as_integer(payload_bytes),
                to_text(&signed)
            ],
        )?;
        change.commit()?;
        Ok(Some(number))
    }

    /// In order of number; the hub takes them only in that order.
    pub fn unsent_reports(&self) -> Result<Vec<(u64, Signed)>, StoreError> {
        let rows = {
            let db = self.0.db.lock();
            let mut query = db.prepare_cached(
                "SELECT number, signed FROM report WHERE signed IS NOT NULL ORDER BY number",
            )?;
            let rows = query.query_map([], |row| Ok((bytes(row, 0)?, row.get::<_, String>(1)?)))?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        rows.into_iter()
            .map(|(number, text)| Ok((number, from_text(&format!("report {number}"), &text)?)))
            .collect()
    }

    /// The hub has this report. Fine to repeat.
    pub fn report_accepted(&self, number: u64) -> Result<(), StoreError> {
        self.0.db.lock().execute(
            "UPDATE report SET signed = NULL WHERE number = ?1 AND signed IS NOT NULL",
            [as_integer(number)],
        )?;
        Ok(())
    }

    /// Payload bytes in all reports that the hub has accepted.
    pub fn reported_bytes(&self) -> Result<u64, StoreError> {
        let db = self.0.db.lock();
        let mut query = db.prepare_cached(
            "SELECT pruned_report_bytes + (SELECT coalesce(sum(payload_bytes), 0) FROM report
                 WHERE signed IS NULL) FROM total",
        )?;
        Ok(query.query_row([], |row| bytes(row, 0))?)
    }

    /// Keeps the operator's word as it was signed; the caller has checked the signature.
    pub fn save_statement(&self, month: UtcMonth, statement: &Signed) -> Result<(), StoreError> {
        self.0.db.lock().execute(
            "INSERT INTO statement (month, signed) VALUES (?1, ?2)
             ON CONFLICT (month) DO UPDATE SET signed = ?2 WHERE signed <> ?2",
            params![month.to_string(), to_text(statement)],
        )?;
        Ok(())
    }

    pub fn statement(&self, month: UtcMonth) -> Result<Option<Signed>, StoreError> {
        let text: Option<String> = {
            let db = self.0.db.lock();
            let mut query = db.prepare_cached("SELECT signed FROM statement WHERE month = ?1")?;
            query.query_row([month.to_string()], |row| row.get(0)).optional()?
        };
        text.map(|text| from_text(&format!("the statement of {month}"), &text)).transpose()
    }

    pub(super) fn load_egress(&self) -> Result<(), StoreError> {
        let mut sums: BTreeMap<Infohash, Usage> = BTreeMap::new();
        let db = self.0.db.lock();
        let mut query = db.prepare(
            "SELECT infohash, sum(payload_bytes), sum(wire_bytes) FROM (
                SELECT infohash, payload_bytes, wire_bytes FROM usage UNION ALL
                SELECT infohash, payload_bytes, wire_bytes FROM lifetime UNION ALL
                SELECT infohash, payload_bytes, wire_bytes FROM held_usage
             ) GROUP BY infohash",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let usage = Usage { payload_bytes: bytes(row, 1)?, wire_bytes: bytes(row, 2)? };
            sums.insert(Infohash(row.get(0)?), usage);
        }
        *self.0.egress.lock() = sums;
        Ok(())
    }
}

fn held_lines(db: &Connection, known: &KnownTime) -> rusqlite::Result<Vec<UsageLine>> {
    let mut query = db.prepare_cached(
        "SELECT boot, seconds, infohash, class, payload_bytes, wire_bytes FROM held_usage",
    )?;
    let rows = query.query_map([], |row| {
        let moment = BootMoment { boot: BootId(row.get(0)?), seconds: row.get(1)? };
        Ok(UsageLine {
            infohash: Infohash(row.get(2)?),
            hour: date(moment, known),
            class: class(row, 3)?,
            usage: Usage { payload_bytes: bytes(row, 4)?, wire_bytes: bytes(row, 5)? },
        })
    })?;
    rows.collect()
}

pub(super) fn add_dated(
    change: &Transaction,
    hour: UtcHour,
    delta: &UsageDelta,
) -> rusqlite::Result<()> {
    change
        .prepare_cached(
            "INSERT INTO usage (hour, infohash, class, payload_bytes, wire_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET
                payload_bytes = payload_bytes + ?4, wire_bytes = wire_bytes + ?5",
        )?
        .execute(params![
            hour.0,
            delta.infohash.0,
            class_number(delta.class),
            as_integer(delta.usage.payload_bytes),
            as_integer(delta.usage.wire_bytes)
        ])?;
    Ok(())
}

pub(super) fn add_undated(
    change: &Transaction,
    moment: BootMoment,
    delta: &UsageDelta,
) -> rusqlite::Result<()> {
    change
        .prepare_cached(
            "INSERT INTO held_usage (boot, seconds, infohash, class, payload_bytes, wire_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET
                payload_bytes = payload_bytes + ?5, wire_bytes = wire_bytes + ?6",
        )?
        .execute(params![
            moment.boot.0,
            moment.seconds,
            delta.infohash.0,
            class_number(delta.class),
            as_integer(delta.usage.payload_bytes),
            as_integer(delta.usage.wire_bytes)
        ])?;
    Ok(())
}

fn unreported(db: &Connection, oldest: UtcHour) -> rusqlite::Result<Vec<LedgerRow>> {
    let mut query = db.prepare_cached(
        "SELECT hour, infohash, class, payload_bytes, wire_bytes, reported_payload_bytes,
            reported_wire_bytes FROM usage
         WHERE (payload_bytes > reported_payload_bytes OR wire_bytes > reported_wire_bytes)
             AND hour >= ?2
         ORDER BY hour, infohash, class LIMIT ?1",
    )?;
    let rows = query.query_map(params![MAX_REPORT_LINES as u32, oldest.0], |row| {
        Ok(LedgerRow {
            hour: UtcHour(row.get(0)?),
            infohash: Infohash(row.get(1)?),
            class: class(row, 2)?,
            recorded: Usage { payload_bytes: bytes(row, 3)?, wire_bytes: bytes(row, 4)? },
            reported: Usage { payload_bytes: bytes(row, 5)?, wire_bytes: bytes(row, 6)? },
        })
    })?;
    rows.collect()
}

fn mark_reported(change: &Transaction, line: &UsageLine) -> rusqlite::Result<()> {
    change
        .prepare_cached(
            "UPDATE usage SET reported_payload_bytes = reported_payload_bytes + ?4,
                reported_wire_bytes = reported_wire_bytes + ?5
             WHERE hour = ?1 AND infohash = ?2 AND class = ?3",
        )?
        .execute(params![
            line.hour.0,
            line.infohash.0,
            class_number(line.class),
            as_integer(line.usage.payload_bytes),
            as_integer(line.usage.wire_bytes)
        ])?;
    Ok(())
}

fn next_link(change: &Transaction) -> rusqlite::Result<Link> {
    let last = change
        .query_row(
            "SELECT number, payload_hash FROM report ORDER BY number DESC LIMIT 1",
            [],
            |row| Ok((bytes(row, 0)?, row.get::<_, String>(1)?)),
        )
        .optional()?;
    Ok(last.map_or_else(Link::first, |(number, hash)| Link::after(number, &hash)))
}

pub(super) fn to_text(signed: &Signed) -> String {
    serde_json::to_string(signed).expect("three strings serialise")
}

fn from_text(name: &str, text: &str) -> Result<Signed, StoreError> {
    serde_json::from_str(text)
        .map_err(|e| StoreError::Value { name: name.to_owned(), detail: e.to_string() })
}

pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn class_number(class: PeerClass) -> u8 {
    match class {
        PeerClass::Wan => 0,
        PeerClass::Lan => 1,
    }
}

pub(super) fn class(row: &Row<'_>, column: usize) -> rusqlite::Result<PeerClass> {
    match row.get::<_, u8>(column)? {
        0 => Ok(PeerClass::Wan),
        1 => Ok(PeerClass::Lan),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(column, other.into())),
    }
}
