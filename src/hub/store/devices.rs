//! Enrolled devices and the one-time codes that let them in.

use rusqlite::{OptionalExtension, Row, params};

use super::{Store, StoreError, signed, unsigned};
use crate::{
    api::hub::{DeviceId, DeviceRow},
    logic::now::UnixSeconds,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    /// Hex.
    pub public_key: String,
    /// Hex.
    pub peer_id: String,
    pub enrolled_at: UnixSeconds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolOutcome {
    Enrolled,
    /// The same key was here before; no code was used up.
    Again,
    UnknownOrUsedCode,
    /// Another device has this peer id.
    PeerIdTaken,
}

impl Store {
    pub fn add_claim_codes(&self, hashes: &[String], now: UnixSeconds) -> Result<(), StoreError> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        for hash in hashes {
            change.execute(
                "INSERT INTO claim_codes (hash, created_at) VALUES (?1, ?2)",
                params![hash, signed(now.0)],
            )?;
        }
        Ok(change.commit()?)
    }

    /// One transaction: two devices with one code cannot both get in.
    pub fn enrol(&self, device: &Device, code_hash: &str) -> Result<EnrolOutcome, StoreError> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        let taken = change
            .query_row(
                "SELECT 1 FROM devices WHERE peer_id = ?1 AND id <> ?2",
                params![device.peer_id, device.id],
                |_| Ok(()),
            )
            .optional()?;
        if taken.is_some() {
            return Ok(EnrolOutcome::PeerIdTaken);
        }
        let again = change.execute(
            "UPDATE devices SET peer_id = ?2 WHERE id = ?1",
            params![device.id, device.peer_id],
        )?;
        if again > 0 {
            change.commit()?;
            return Ok(EnrolOutcome::Again);
        }
        change.execute(
            "INSERT INTO devices (id, public_key, peer_id, enrolled_at) VALUES (?1, ?2, ?3, ?4)",
            params![device.id, device.public_key, device.peer_id, signed(device.enrolled_at.0)],
        )?;
        let used = change.execute(
            "UPDATE claim_codes SET used_by = ?2 WHERE hash = ?1 AND used_by IS NULL",
            params![code_hash, device.id],
        )?;
        if used == 0 {
            return Ok(EnrolOutcome::UnknownOrUsedCode);
        }
        change.commit()?;
        Ok(EnrolOutcome::Enrolled)
    }

    pub fn device(&self, id: &str) -> Result<Option<Device>, StoreError> {
        Ok(self
            .connection
            .lock()
            .query_row(
                "SELECT id, public_key, peer_id, enrolled_at FROM devices WHERE id = ?1",
                [id],
                read,
            )
            .optional()?)
    }

    pub fn device_rows(&self) -> Result<Vec<DeviceRow>, StoreError> {
        let connection = self.connection.lock();
        let mut query = connection.prepare(
            "SELECT id, enrolled_at, count(number) AS reports, max(received_at) AS last_report_at
             FROM devices LEFT JOIN reports ON reports.device = devices.id
             GROUP BY id ORDER BY enrolled_at, id",
        )?;
        let rows = query.query_map([], |row| {
            Ok(DeviceRow {
                device: row.get("id")?,
                enrolled_at: UnixSeconds(unsigned(row, "enrolled_at")?),
                last_report_at: row
                    .get::<_, Option<i64>>("last_report_at")?
                    .map(|at| UnixSeconds(at.max(0) as u64)),
                reports: unsigned(row, "reports")?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        id: row.get("id")?,
        public_key: row.get("public_key")?,
        peer_id: row.get("peer_id")?,
        enrolled_at: UnixSeconds(unsigned(row, "enrolled_at")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> Device {
        Device {
            id: format!("{n:032x}"),
            public_key: format!("{n:064x}"),
            peer_id: format!("{n:040x}"),
            enrolled_at: UnixSeconds(100),
        }
    }

    #[test]
    fn a_claim_code_lets_in_one_device_once() {
        let store = Store::in_memory();
        store.add_claim_codes(&["h1".into()], UnixSeconds(1)).expect("writes");
        let enrol = |d: &Device, code: &str| store.enrol(d, code).expect("answers");
        assert_eq!(enrol(&device(1), "h2"), EnrolOutcome::UnknownOrUsedCode);
        assert_eq!(store.device(&device(1).id).expect("reads"), None, "nothing is left behind");
        assert_eq!(enrol(&device(1), "h1"), EnrolOutcome::Enrolled);
        assert_eq!(enrol(&device(1), "h1"), EnrolOutcome::Again);
        assert_eq!(enrol(&device(2), "h1"), EnrolOutcome::UnknownOrUsedCode);
        let imitator = Device { peer_id: device(1).peer_id, ..device(2) };
        assert_eq!(enrol(&imitator, "h1"), EnrolOutcome::PeerIdTaken);
        assert_eq!(store.device_rows().expect("reads").len(), 1);
    }
}
