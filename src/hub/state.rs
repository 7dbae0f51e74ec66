//! What all requests share, and the few operations that touch several parts at once. Wires the
//! parts together; decides nothing that a part could decide alone.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    addresses::Addresses,
    channel::{SwarmSettings, Swarms},
    clock::Clock,
    disk,
    keys::{self, KeyError, KeyName, OperatorToken},
    origin::Origin,
    presence::Presence,
    publisher::{PublishError, Publisher, TUF_DIR},
    store::{Content, DATABASE_FILE, NewContent, Store, StoreError},
    upload::{Hashed, UploadError, Uploads},
};
use crate::{
    api::{
        hub::{OriginUsage, PublishRequest, Published, Revoked},
        signed::SigningKey,
    },
    config::hub::HubConfig,
    logic::{
        hotlist::{HotList, ListError, Policy},
        infohash::Infohash,
        metainfo,
    },
};

pub struct Hub {
    pub addresses: Addresses,
    pub clock: Clock,
    pub store: Store,
    pub swarms: Mutex<Swarms>,
    pub presence: Mutex<Presence>,
    pub uploads: Uploads,
    pub origin: Arc<Origin>,
    pub token: OperatorToken,
    pub statement_key: SigningKey,
    pub tuf_dir: PathBuf,
    /// Fires when there is another timestamp.
    pub news: watch::Sender<()>,
    /// For those who wait for news: each costs a connection.
    pub waiting_places: Semaphore,
    pub stopping: CancellationToken,
    publisher: tokio::sync::Mutex<Publisher>,
    /// Copies for readers, so that nobody waits for a publication.
    published: Mutex<(Arc<HotList>, Arc<Policy>)>,
    listing: Mutex<()>,
    root_copy: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error("there is no published content {0}, or it was revoked before")]
    UnknownContent(Infohash),
    #[error("{0}")]
    Request(String),
    #[error("this cannot go on the hot list: {0}")]
    DoesNotFit(ListError),
    #[error("a background task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A longer lease is a slip of the pen.
const MAX_LEASE_SECONDS: u64 = 10 * 366 * 24 * 3600;

impl Hub {
    /// Opens everything in the data folder and brings the signed documents in step with the
    /// configuration.
    pub async fn open(config: &HubConfig, public_url: Url) -> Result<Arc<Hub>, HubError> {
        let dir = &config.data_dir;
        let token = OperatorToken::read(dir)?;
        let statement_key = keys::read(dir, KeyName::Statement)?;
        let clock = Clock::start();
        let store = Store::open(&dir.join(DATABASE_FILE))?;
        let mut publisher = Publisher::open(dir, config)?;
        let reflector = config.reflector.public_address(&public_url);
        publisher.set_policy(&config.policy, reflector, dir, clock.unix()).await?;
        let addresses = Addresses::new(public_url);
        match publisher.update_list(&store, &addresses, clock.unix()).await {
            // The published list stays in force, and the operator can revoke something.
            Err(error @ PublishError::List(_)) => tracing::error!("{error}"),
            other => drop(other?),
        }
        let list = publisher.list().clone();
        let mut swarms = Swarms::new(SwarmSettings {
            interval: Duration::from_secs(config.tracker.interval_seconds.into()),
            peers_per_announce_max: config.tracker.peers_per_announce_max as usize,
        });
        swarms.set_listed(&infohashes(&list));
        Ok(Arc::new(Hub {
            addresses,
            clock,
            store,
            swarms: Mutex::new(swarms),
            presence: Mutex::default(),
            uploads: Uploads::new(dir.join("uploads")),
            origin: Arc::new(Origin::new(dir.join("content"))),
            token,
            statement_key,
            tuf_dir: dir.join(TUF_DIR),
            news: watch::Sender::default(),
            waiting_places: Semaphore::new(config.metadata.waiters_max as usize),
            stopping: CancellationToken::new(),
            published: Mutex::new((Arc::new(list), Arc::new(publisher.policy().clone()))),
            publisher: tokio::sync::Mutex::new(publisher),
            listing: Mutex::default(),
            root_copy: dir.join("root.json"),
        }))
    }

    pub fn list(&self) -> Arc<HotList> {
        self.published.lock().0.clone()
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.published.lock().1.clone()
    }

    /// Runs something that blocks (database, disk) without holding up other requests.
    pub async fn blocking<T, E>(
        self: &Arc<Hub>,
        work: impl FnOnce(&Hub) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<tokio::task::JoinError> + Send + 'static,
    {
        let hub = self.clone();
        tokio::task::spawn_blocking(move || work(&hub)).await?
    }

    /// Hashes an upload, keeps its bytes, lists it. A repeated call renews the lease.
    pub async fn publish(
        self: &Arc<Hub>,
        id: String,
        request: PublishRequest,
    ) -> Result<Published, HubError> {
        self.check_request(&request)?;
        let (infohash, name, already_known) = self
            .blocking(move |hub| {
                let _claim = hub.uploads.claim(&id)?;
                let hashed = hub.uploads.hash(&id, request.private)?;
                let known = hub.keep(&hashed, &request)?;
                hub.uploads.remove(&id).map_err(UploadError::Io)?;
                Ok::<_, HubError>((hashed.infohash, hashed.upload.name, known))
            })
            .await?;
        let epoch = self.update_list().await?;
        tracing::info!(%infohash, name, epoch, already_known, "published");
        Ok(Published {
            infohash,
            already_known,
            epoch,
            metainfo_url: self.addresses.metainfo(infohash).into(),
            magnet: self.addresses.magnet(infohash, &name),
        })
    }

    fn keep(&self, hashed: &Hashed, request: &PublishRequest) -> Result<bool, HubError> {
        // One at a time, or two that fit alone could be too much together.
        let _turn = self.listing.lock();
        let new = NewContent {
            infohash: hashed.infohash,
            layout: &hashed.upload,
            size_bytes: hashed.total_bytes,
            request,
            published_at: self.clock.unix(),
        };
        let mut listed = self.store.listed(new.published_at)?;
        listed.retain(|content| content.infohash != new.infohash);
        listed.push(new.content());
        Publisher::check(&listed, &self.addresses).map_err(HubError::DoesNotFit)?;
        self.origin.adopt(hashed.infohash, &hashed.info, &hashed.blob).map_err(UploadError::Io)?;
        Ok(self.store.publish(&new)?)
    }

    fn check_request(&self, request: &PublishRequest) -> Result<(), HubError> {
        let policy = self.policy();
        if !policy.price_per_gb.contains_key(&request.price_class) {
            let known: Vec<&str> = policy.price_per_gb.keys().map(String::as_str).collect();
            return Err(HubError::Request(format!(
                "price class {:?} is not in the hub's policy; choose one of: {}",
                request.price_class,
                known.join(", ")
            )));
        }
        if request.lease_seconds == 0 || request.lease_seconds > MAX_LEASE_SECONDS {
            return Err(HubError::Request("a lease is between one second and ten years".into()));
        }
        if request.replicas == 0 {
            return Err(HubError::Request("at least one replica is needed".into()));
        }
        if !request.score.is_finite() || request.score < 0.0 {
            return Err(HubError::Request("the score must be a number of zero or more".into()));
        }
        Ok(())
    }

    pub async fn revoke(
        self: &Arc<Hub>,
        infohash: Infohash,
        reason: String,
    ) -> Result<Revoked, HubError> {
        let done = self
            .blocking({
                let reason = reason.clone();
                move |hub| {
                    Ok::<_, HubError>(hub.store.revoke(infohash, &reason, hub.clock.unix())?)
                }
            })
            .await?;
        if !done {
            return Err(HubError::UnknownContent(infohash));
        }
        let epoch = self.update_list().await?;
        tracing::info!(%infohash, reason, epoch, "revoked");
        Ok(Revoked { infohash, epoch })
    }

    /// Publishes a new epoch if the list has changed, by publishing, revoking or the end of a lease.
    pub async fn update_list(self: &Arc<Hub>) -> Result<u64, HubError> {
        let mut publisher = self.publisher.lock().await;
        let epoch = publisher.update_list(&self.store, &self.addresses, self.clock.unix()).await?;
        if self.list().epoch == epoch {
            return Ok(epoch);
        }
        self.swarms.lock().set_listed(&infohashes(publisher.list()));
        *self.published.lock() =
            (Arc::new(publisher.list().clone()), Arc::new(publisher.policy().clone()));
        self.news.send_replace(());
        Ok(epoch)
    }

    /// What has to happen now and then: ended leases leave the list, signatures are renewed,
    /// counters reach the database.
    pub async fn tick(self: &Arc<Hub>) -> Result<(), HubError> {
        self.update_list().await?;
        {
            let mut publisher = self.publisher.lock().await;
            if publisher.renew(self.clock.unix()).await? {
                tracing::debug!("renewed the signed metadata");
                self.news.send_replace(());
            }
            self.refresh_root_copy(&publisher);
        }
        self.save_origin_usage().await?;
        self.blocking(|hub| Ok(hub.uploads.remove_abandoned()?)).await
    }

    /// `root.json` is what an operator hands to new devices: keep it the newest.
    fn refresh_root_copy(&self, publisher: &Publisher) {
        let newest = std::fs::read(publisher.root_file());
        if let Ok(newest) = newest
            && std::fs::read(&self.root_copy).ok().as_ref() != Some(&newest)
            && let Err(error) = disk::replace(&self.root_copy, &newest)
        {
            tracing::warn!(%error, "cannot refresh root.json");
        }
    }

    pub async fn save_origin_usage(self: &Arc<Hub>) -> Result<(), HubError> {
        let counts = self.origin.take_counts();
        if counts.is_empty() {
            return Ok(());
        }
        self.blocking(move |hub| {
            hub.store.add_origin_egress(&counts).inspect_err(|_| {
                for (infohash, bytes) in &counts {
                    hub.origin.count(*infohash, *bytes);
                }
            })?;
            Ok(())
        })
        .await
    }

    pub async fn origin_usage(self: &Arc<Hub>) -> Result<OriginUsage, HubError> {
        self.save_origin_usage().await?;
        self.blocking(|hub| Ok(OriginUsage { lines: hub.store.origin_egress()? })).await
    }

    /// The `.torrent` as of today: its addresses follow the public URL.
    pub fn metainfo(&self, content: &Content) -> std::io::Result<Vec<u8>> {
        let info = self.origin.info(content.infohash)?;
        let web_seed = self.addresses.web_seed(content.infohash, &content.name, content.directory);
        Ok(metainfo::wrap_info(&info, &self.addresses.tracker_tiers(), &[web_seed]))
    }
}

fn infohashes(list: &HotList) -> BTreeSet<Infohash> {
    list.entries.iter().map(|entry| entry.infohash).collect()
}
