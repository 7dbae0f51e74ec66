//! What the books add up to: statements for devices, books for the operator. Only payload to the
//! internet is paid for; rounding is `logic::rating`'s business.

use std::collections::BTreeMap;

use crate::{
    api::{
        hub::{BookLine, Books, DeviceId, Statement, StatementLine},
        signed::{Signed, SigningKey},
    },
    hub::store::{BookRow, Store, StoreError},
    logic::{
        infohash::Infohash,
        now::{UnixSeconds, UtcMonth},
        rating,
        units::Micros,
        usage::PeerClass,
    },
};

pub fn statement(
    store: &Store,
    key: &SigningKey,
    currency: &str,
    device: &str,
    month: UtcMonth,
    now: UnixSeconds,
) -> Result<Signed, StoreError> {
    let (rows, reported_through) = store.settled(device, month.hours())?;
    let lines: Vec<StatementLine> = rows
        .iter()
        .filter(|row| row.class == PeerClass::Wan && row.usage.payload_bytes > 0)
        .map(|row| StatementLine {
            infohash: row.infohash,
            hour: row.hour,
            payload_bytes: row.usage.payload_bytes,
            price_per_gb: row.price_per_gb,
            amount: amount(row),
        })
        .collect();
    let statement = Statement {
        format: 1,
        device: device.to_owned(),
        month: month.to_string(),
        currency: currency.to_owned(),
        issued_at: now,
        reported_through,
        total: lines.iter().map(|line| line.amount).sum(),
        lines,
    };
    Ok(Signed::new(&statement, key))
}

pub fn books(store: &Store, currency: &str, month: UtcMonth) -> Result<Books, StoreError> {
    let mut sums: BTreeMap<(DeviceId, Infohash), BookLine> = BTreeMap::new();
    for row in store.book_rows(month.hours())? {
        let line = sums.entry((row.device.clone(), row.infohash)).or_insert_with(|| BookLine {
            device: row.device.clone(),
            infohash: row.infohash,
            payload_bytes: 0,
            wire_bytes: 0,
            amount: Micros(0),
        });
        line.payload_bytes = line.payload_bytes.saturating_add(row.usage.payload_bytes);
        line.wire_bytes = line.wire_bytes.saturating_add(row.usage.wire_bytes);
        line.amount = line.amount.saturating_add(amount(&row));
    }
    Ok(Books {
        month: month.to_string(),
        currency: currency.to_owned(),
        lines: sums.into_values().collect(),
    })
}

fn amount(row: &BookRow) -> Micros {
    match row.class {
        PeerClass::Wan => rating::per_gb(row.usage.payload_bytes, row.price_per_gb),
        PeerClass::Lan => Micros(0),
    }
}
