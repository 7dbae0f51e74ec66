//! What was published, and the epoch of the hot list that says so.

use rusqlite::{OptionalExtension, Row, named_params, params};

use super::{Store, StoreError, parsed, signed, unsigned};
use crate::{
    api::hub::{NewUpload, OriginUsageLine, PublishRequest},
    logic::{infohash::Infohash, now::UnixSeconds},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    pub infohash: Infohash,
    pub name: String,
    pub directory: bool,
    pub size_bytes: u64,
    pub private: bool,
    pub price_class: String,
    pub score: f64,
    pub replicas: u32,
    pub published_at: UnixSeconds,
    pub lease_end: UnixSeconds,
    pub revoked: bool,
}

pub struct NewContent<'a> {
    pub infohash: Infohash,
    pub layout: &'a NewUpload,
    pub size_bytes: u64,
    pub request: &'a PublishRequest,
    pub published_at: UnixSeconds,
}

const COLUMNS: &str = "infohash, name, directory, size_bytes, private, price_class, score, replicas, \
     published_at, lease_end, revoked_at IS NOT NULL AS revoked";

impl NewContent<'_> {
    /// As it will be once it is stored.
    pub fn content(&self) -> Content {
        Content {
            infohash: self.infohash,
            name: self.layout.name.clone(),
            directory: self.layout.directory,
            size_bytes: self.size_bytes,
            private: self.request.private,
            price_class: self.request.price_class.clone(),
            score: self.request.score,
            replicas: self.request.replicas,
            published_at: self.published_at,
            lease_end: UnixSeconds(self.published_at.0.saturating_add(self.request.lease_seconds)),
            revoked: false,
        }
    }
}

impl Store {
    /// Adds the content or renews its lease. True when it was known already.
    pub fn publish(&self, new: &NewContent<'_>) -> Result<bool, StoreError> {
        let layout = serde_json::to_string(new.layout).expect("our own types serialise");
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        let known = change
            .query_row(
                "SELECT 1 FROM contents WHERE infohash = ?1",
                [new.infohash.to_string()],
                |_| Ok(()),
            )
            .optional()?
            .is_some();
        change.execute(
            "INSERT INTO contents (infohash, name, directory, size_bytes, layout, private, price_class,
                 score, replicas, published_at, lease_end)
             VALUES (:infohash, :name, :directory, :size_bytes, :layout, :private, :price_class,
                 :score, :replicas, :published_at, :lease_end)
             ON CONFLICT (infohash) DO UPDATE SET price_class = excluded.price_class,
                 score = excluded.score, replicas = excluded.replicas,
                 lease_end = excluded.lease_end, revoked_at = NULL, revoke_reason = NULL",
            named_params! {
                ":infohash": new.infohash.to_string(),
                ":name": new.layout.name,
                ":directory": new.layout.directory,
                ":size_bytes": signed(new.size_bytes),
                ":layout": layout,
                ":private": new.request.private,
                ":price_class": new.request.price_class,
                ":score": new.request.score,
                ":replicas": new.request.replicas,
                ":published_at": signed(new.published_at.0),
                ":lease_end": signed(new.published_at.0.saturating_add(new.request.lease_seconds)),
            },
        )?;
        change.commit()?;
        Ok(known)
    }

    /// False when there is no such content, or it was revoked before.
    pub fn revoke(
        &self,
        infohash: Infohash,
        reason: &str,
        now: UnixSeconds,
    ) -> Result<bool, StoreError> {
        let changed = self.connection.lock().execute(
            "UPDATE contents SET revoked_at = ?2, revoke_reason = ?3
             WHERE infohash = ?1 AND revoked_at IS NULL",
            params![infohash.to_string(), signed(now.0), reason],
        )?;
        Ok(changed > 0)
    }

    pub fn content(&self, infohash: Infohash) -> Result<Option<Content>, StoreError> {
        Ok(self
            .connection
            .lock()
            .query_row(
                &format!("SELECT {COLUMNS} FROM contents WHERE infohash = ?1"),
                [infohash.to_string()],
                read,
            )
            .optional()?)
    }

    /// Its files, in order.
    pub fn layout(&self, infohash: Infohash) -> Result<Option<NewUpload>, StoreError> {
        Ok(self
            .connection
            .lock()
            .query_row(
                "SELECT layout FROM contents WHERE infohash = ?1",
                [infohash.to_string()],
                |row| {
                    let text: String = row.get("layout")?;
                    serde_json::from_str(&text).map_err(|e| {
                        let kind = rusqlite::types::Type::Text;
                        rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(e))
                    })
                },
            )
            .optional()?)
    }

    /// What belongs on the list: leased and not revoked, in order of infohash.
    pub fn listed(&self, now: UnixSeconds) -> Result<Vec<Content>, StoreError> {
        let connection = self.connection.lock();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM contents WHERE revoked_at IS NULL AND lease_end > ?1
             ORDER BY infohash"
        ))?;
        let rows = query.query_map([signed(now.0)], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Counted up before anything is signed with it, so that no epoch is ever used twice. Always
    /// above `published`, also when this database is an older copy than the repository.
    pub fn next_epoch(&self, published: u64) -> Result<u64, StoreError> {
        let connection = self.connection.lock();
        Ok(connection.query_row(
            "UPDATE epoch SET epoch = max(epoch, ?1) + 1 RETURNING epoch",
            [signed(published)],
            |row| unsigned(row, "epoch"),
        )?)
    }

    pub fn add_origin_egress(&self, served: &[(Infohash, u64)]) -> Result<(), StoreError> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        for (infohash, bytes) in served {
            change.execute(
                "UPDATE contents SET origin_egress_bytes = origin_egress_bytes + ?2
                 WHERE infohash = ?1",
                params![infohash.to_string(), signed(*bytes)],
            )?;
        }
        Ok(change.commit()?)
    }

    pub fn origin_egress(&self) -> Result<Vec<OriginUsageLine>, StoreError> {
        let connection = self.connection.lock();
        let mut query = connection
            .prepare("SELECT infohash, origin_egress_bytes FROM contents ORDER BY infohash")?;
        let rows = query.query_map([], |row| {
            Ok(OriginUsageLine {
                infohash: parsed(row, "infohash")?,
                egress_bytes: unsigned(row, "origin_egress_bytes")?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Content> {
    Ok(Content {
        infohash: parsed(row, "infohash")?,
        name: row.get("name")?,
        directory: row.get("directory")?,
        size_bytes: unsigned(row, "size_bytes")?,
        private: row.get("private")?,
        price_class: row.get("price_class")?,
        score: row.get("score")?,
        replicas: row.get("replicas")?,
        published_at: UnixSeconds(unsigned(row, "published_at")?),
        lease_end: UnixSeconds(unsigned(row, "lease_end")?),
        revoked: row.get("revoked")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(store: &Store, n: u8, at: u64, lease_seconds: u64) -> bool {
        let layout = NewUpload {
            name: "film.mp4".into(),
            directory: false,
            files: vec![],
            fingerprint: String::new(),
        };
        let request = PublishRequest {
            lease_seconds,
            replicas: 2,
            price_class: "standard".into(),
            score: 1.5,
            private: false,
        };
        store
            .publish(&NewContent {
                infohash: Infohash([n; 20]),
                layout: &layout,
                size_bytes: 7,
                request: &request,
                published_at: UnixSeconds(at),
            })
            .expect("writes")
    }

    #[test]
    fn lists_what_is_leased_and_not_revoked() {
        let store = Store::in_memory();
        assert!(!publish(&store, 2, 100, 50));
        assert!(!publish(&store, 1, 100, 50));
        let at = |now| -> Vec<u8> {
            let listed = store.listed(UnixSeconds(now)).expect("reads");
            listed.iter().map(|c| c.infohash.0[0]).collect()
        };
        assert_eq!(at(149), [1, 2]);
        assert_eq!(at(150), [0u8; 0]);
        assert!(publish(&store, 1, 140, 50), "known already: the lease is renewed");
        assert_eq!(at(150), [1]);
        assert!(store.revoke(Infohash([1; 20]), "takedown", UnixSeconds(150)).expect("writes"));
        assert!(!store.revoke(Infohash([1; 20]), "again", UnixSeconds(151)).expect("writes"));
        assert_eq!(at(150), [0u8; 0]);
        assert!(publish(&store, 1, 160, 50));
        assert_eq!(at(170), [1], "publishing again takes the revocation back");
    }

    #[test]
    fn never_gives_an_epoch_twice() {
        let store = Store::in_memory();
        assert_eq!(store.next_epoch(1).expect("writes"), 2);
        assert_eq!(store.next_epoch(1).expect("writes"), 3);
        assert_eq!(store.next_epoch(9).expect("writes"), 10, "the repository was ahead");
        assert_eq!(store.next_epoch(10).expect("writes"), 11);
    }

    #[test]
    fn sums_origin_egress() {
        let store = Store::in_memory();
        publish(&store, 1, 100, 50);
        let served = [(Infohash([1; 20]), 5), (Infohash([9; 20]), 5)];
        store.add_origin_egress(&served).expect("writes");
        store.add_origin_egress(&served).expect("writes");
        let lines = store.origin_egress().expect("reads");
        assert_eq!(lines, [OriginUsageLine { infohash: Infohash([1; 20]), egress_bytes: 10 }]);
    }
}
