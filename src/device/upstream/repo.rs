//! The hot list and the policy from the operator's TUF repository. `tough` checks signatures,
//! versions and expiry against the pinned root; this file brings the bytes, bounded, and asks
//! conditionally, so that an unchanged list costs the fleet's web server one 304.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use reqwest::{Client, StatusCode, header};
use tough::{
    ExpirationEnforcement, IntoVec, Limits, Repository, RepositoryLoader, TargetName, Transport,
    TransportError, TransportErrorKind, TransportStream,
};
use url::Url;

use super::UpstreamError;
use crate::logic::{
    hotlist::{HotList, LIST_TARGET, MAX_LIST_BYTES, MAX_POLICY_BYTES, POLICY_TARGET, Policy},
    now::UnixSeconds,
};

/// Metadata of a repository with two targets is a few KiB; delegations may make it more.
const MAX_METADATA_BYTES: u64 = 1024 * 1024;
/// A root rotated monthly for ten years.
const MAX_ROOT_UPDATES: u64 = 120;

/// A list that passed every check, and the bytes to keep for the next start.
#[derive(Debug)]
pub struct FetchedList {
    pub list: HotList,
    pub policy: Policy,
    pub valid_until: UnixSeconds,
}

/// One operator's repository as this device knows it.
pub struct ListRepository {
    client: Client,
    metadata_url: Url,
    targets_url: Url,
    pinned_root: Vec<u8>,
    /// What `tough` remembers between runs, against rollback.
    memory: PathBuf,
    /// ETag of the last timestamp whose whole chain was accepted.
    etag: Option<String>,
}

impl ListRepository {
    /// `hub` ends with a slash; `memory` is a folder of ours.
    pub fn new(
        client: Client,
        hub: &Url,
        pinned_root: Vec<u8>,
        memory: &Path,
    ) -> Result<ListRepository, UpstreamError> {
        let join = |path| hub.join(path).map_err(|e| UpstreamError::Local(e.to_string()));
        std::fs::create_dir_all(memory).map_err(|e| {
            UpstreamError::Local(format!("cannot create {}: {e}", memory.display()))
        })?;
        Ok(ListRepository {
            client,
            metadata_url: join("tuf/metadata/")?,
            targets_url: join("tuf/targets/")?,
            pinned_root,
            memory: memory.to_owned(),
            etag: None,
        })
    }

    /// `None` when nothing changed since the last success. `held` is never replaced by an older list.
    pub async fn fetch(
        &mut self,
        held: Option<&HotList>,
    ) -> Result<Option<FetchedList>, UpstreamError> {
        let Some((timestamp, etag)) = self.fetch_timestamp().await? else { return Ok(None) };
        self.forget_clock().await;
        let repository = RepositoryLoader::new(
            &self.pinned_root,
            self.metadata_url.clone(),
            self.targets_url.clone(),
        )
        .transport(Fetcher::new(self.client.clone(), timestamp))
        .limits(Limits {
            max_root_size: MAX_METADATA_BYTES,
            max_targets_size: MAX_METADATA_BYTES,
            max_timestamp_size: MAX_METADATA_BYTES,
            max_snapshot_size: MAX_METADATA_BYTES,
            max_root_updates: MAX_ROOT_UPDATES,
        })
        .datastore(&self.memory)
        .expiration_enforcement(ExpirationEnforcement::Safe)
        .load()
        .await
        .map_err(refused)?;

        let list = HotList::parse(&target(&repository, LIST_TARGET, MAX_LIST_BYTES).await?)
            .map_err(|e| UpstreamError::List(e.to_string()))?;
        let policy = Policy::parse(&target(&repository, POLICY_TARGET, MAX_POLICY_BYTES).await?)
            .map_err(|e| UpstreamError::List(e.to_string()))?;
        if let Some(held) = held {
            list.may_replace(held).map_err(|e| UpstreamError::List(e.to_string()))?;
        }
        let expires = repository.timestamp().signed.expires.as_second();
        self.etag = etag;
        Ok(Some(FetchedList {
            list,
            policy,
            valid_until: UnixSeconds(u64::try_from(expires).unwrap_or(0)),
        }))
    }

    async fn fetch_timestamp(&self) -> Result<Option<(Vec<u8>, Option<String>)>, UpstreamError> {
        let url = self
            .metadata_url
            .join("timestamp.json")
            .map_err(|e| UpstreamError::Local(e.to_string()))?;
        let mut request = self.client.get(url.clone());
        if let Some(etag) = &self.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(|e| UpstreamError::unreachable(&url, &e))?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            StatusCode::OK => {
                let etag = response.headers().get(header::ETAG);
                let etag = etag.and_then(|v| v.to_str().ok()).map(str::to_owned);
                let bytes = super::body(&url, response, MAX_METADATA_BYTES).await?;
                Ok(Some((bytes, etag)))
            }
            status => Err(UpstreamError::Refused {
                host: super::host(&url),
                status: status.as_u16(),
                code: String::new(),
                message: url.path().to_owned(),
                expected: None,
            }),
        }
    }

    /// `tough` refuses to go on when the clock is behind the latest that it ever saw. A router whose
    /// clock was once a year ahead would then follow no list for a year, so this one check is ours
    /// to make (`device::clock`), and its file goes.
    async fn forget_clock(&self) {
        // Absent is the normal case; anything else shows up when tough opens the folder.
        let _ = tokio::fs::remove_file(self.memory.join("latest_known_time.json")).await;
    }
}

async fn target(repository: &Repository, name: &str, limit: u64) -> Result<Vec<u8>, UpstreamError> {
    let missing = || UpstreamError::List(format!("the signed metadata does not name {name}"));
    let target = TargetName::new(name).map_err(refused)?;
    let described = repository.targets().signed.targets.get(&target).ok_or_else(missing)?;
    if described.length > limit {
        return Err(UpstreamError::List(format!(
            "{name} is {} bytes, more than the limit of {limit}",
            described.length
        )));
    }
    let stream = repository.read_target(&target).await.map_err(refused)?.ok_or_else(missing)?;
    stream.into_vec().await.map_err(refused)
}

/// tough's sentences, with what an owner can do about the common one.
fn refused(error: tough::error::Error) -> UpstreamError {
    let text = error.to_string();
    UpstreamError::List(match error {
        tough::error::Error::ExpiredMetadata { .. } => format!(
            "{text}; the cached list stays in force. Check this device's clock, or ask the operator to publish"
        ),
        _ => text,
    })
}

/// Brings `tough` its files. The timestamp is the one that was just asked for conditionally.
#[derive(Clone, Debug)]
struct Fetcher {
    client: Client,
    timestamp: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Fetcher {
    fn new(client: Client, timestamp: Vec<u8>) -> Fetcher {
        Fetcher { client, timestamp: Arc::new(Mutex::new(Some(timestamp))) }
    }

    fn take_timestamp(&self) -> Option<Vec<u8>> {
        self.timestamp.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

#[async_trait]
impl Transport for Fetcher {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let held =
            if url.path().ends_with("/timestamp.json") { self.take_timestamp() } else { None };
        let bytes = match held {
            Some(bytes) => bytes,
            None => super::get(&self.client, &url, MAX_LIST_BYTES).await.map_err(|e| {
                let kind = match &e {
                    UpstreamError::Refused { status: 403 | 404 | 410, .. } => {
                        TransportErrorKind::FileNotFound
                    }
                    _ => TransportErrorKind::Other,
                };
                TransportError::new_with_cause(kind, &url, e)
            })?,
        };
        Ok(Box::pin(stream::iter([Ok(Bytes::from(bytes))])))
    }
}
