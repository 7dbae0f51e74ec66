//! Reports that came in and the books that they add up to. A report and its lines are one
//! transaction: after a crash it is either counted whole or not at all.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, parsed, signed, unsigned};
use crate::{
    api::hub::DeviceId,
    logic::{
        infohash::Infohash,
        now::{UnixSeconds, UtcHour},
        units::Micros,
        usage::{PeerClass, Usage, UsageLine},
    },
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastReport {
    pub number: u64,
    /// SHA-256 of its payload, hex.
    pub payload_hash: String,
}

pub struct NewReport<'a> {
    pub device: &'a str,
    pub number: u64,
    pub payload_hash: &'a str,
    pub received_at: UnixSeconds,
    /// With the price per GB in force for each.
    pub lines: &'a [(UsageLine, Micros)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportSaved {
    Saved,
    /// Another request of the same device was faster; look again.
    NumberTaken,
}

/// A row of the books: bytes of one content to one class in one hour at one price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookRow {
    pub device: DeviceId,
    pub infohash: Infohash,
    pub hour: UtcHour,
    pub class: PeerClass,
    pub price_per_gb: Micros,
    pub usage: Usage,
}

impl Store {
    pub fn last_report(&self, device: &str) -> Result<Option<LastReport>, StoreError> {
        Ok(last_report(&self.connection.lock(), device)?)
    }

    /// The payload hash of an earlier report.
    pub fn report_hash(&self, device: &str, number: u64) -> Result<Option<String>, StoreError> {
        Ok(self
            .connection
            .lock()
            .query_row(
                "SELECT payload_hash FROM reports WHERE device = ?1 AND number = ?2",
                params![device, signed(number)],
                |row| row.get(0),
            )
            .optional()?)
    }

    pub fn save_report(&self, report: &NewReport<'_>) -> Result<ReportSaved, StoreError> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        let new = change.execute(
            "INSERT INTO reports (device, number, payload_hash, received_at)
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![
                report.device,
                signed(report.number),
                report.payload_hash,
                signed(report.received_at.0)
            ],
        )?;
        if new == 0 {
            return Ok(ReportSaved::NumberTaken);
        }
        {
            let mut add = change.prepare(
                "INSERT INTO books (device, hour, infohash, class, price_per_gb,
                     payload_bytes, wire_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET payload_bytes = payload_bytes + excluded.payload_bytes,
                     wire_bytes = wire_bytes + excluded.wire_bytes",
            )?;
            for (line, price) in report.lines {
                add.execute(params![
                    report.device,
                    line.hour.0,
                    line.infohash.to_string(),
                    line.class.as_str(),
                    signed(price.0),
                    signed(line.usage.payload_bytes),
                    signed(line.usage.wire_bytes),
                ])?;
            }
        }
        change.commit()?;
        Ok(ReportSaved::Saved)
    }

    /// One device's rows, and the number of the last report that is in them.
    pub fn settled(
        &self,
        device: &str,
        hours: Range<UtcHour>,
    ) -> Result<(Vec<BookRow>, u64), StoreError> {
        let mut connection = self.connection.lock();
        let view = connection.transaction()?;
        let rows = book_rows(&view, Some(device), hours)?;
        let through = last_report(&view, device)?.map_or(0, |last| last.number);
        Ok((rows, through))
    }

    /// Everyone's rows, in order of device, hour and content.
    pub fn book_rows(&self, hours: Range<UtcHour>) -> Result<Vec<BookRow>, StoreError> {
        Ok(book_rows(&self.connection.lock(), None, hours)?)
    }
}

fn last_report(connection: &Connection, device: &str) -> rusqlite::Result<Option<LastReport>> {
    connection
        .query_row(
            "SELECT number, payload_hash FROM reports WHERE device = ?1
             ORDER BY number DESC LIMIT 1",
            [device],
            |row| {
                Ok(LastReport {
                    number: unsigned(row, "number")?,
                    payload_hash: row.get("payload_hash")?,
                })
            },
        )
        .optional()
}

fn book_rows(
    connection: &Connection,
    device: Option<&str>,
    hours: Range<UtcHour>,
) -> rusqlite::Result<Vec<BookRow>> {
    let mut query = connection.prepare(
        "SELECT device, infohash, hour, class, price_per_gb, payload_bytes, wire_bytes
         FROM books WHERE hour >= ?1 AND hour < ?2 AND (?3 IS NULL OR device = ?3)
         ORDER BY device, hour, infohash, class, price_per_gb",
    )?;
    let rows = query.query_map(params![hours.start.0, hours.end.0, device], |row| {
        let class: String = row.get("class")?;
        Ok(BookRow {
            device: row.get("device")?,
            infohash: parsed(row, "infohash")?,
            hour: UtcHour(row.get("hour")?),
            class: match class.as_str() {
                "lan" => PeerClass::Lan,
                _ => PeerClass::Wan,
            },
            price_per_gb: Micros(unsigned(row, "price_per_gb")?),
            usage: Usage {
                payload_bytes: unsigned(row, "payload_bytes")?,
                wire_bytes: unsigned(row, "wire_bytes")?,
            },
        })
    })?;
    rows.collect()
}
