//! Brings `tough` the files of a repository, and stands before its parsers: nobody has checked a
//! signature of these bytes yet. Bounded in size and depth, only names that our repositories have, and no
//! delegations, each of which `tough` would follow. Checks no signature itself.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use reqwest::Client;
use serde::{Deserialize, de::IgnoredAny};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::{UpstreamError, exchange};
use crate::logic::hotlist::{MAX_LIST_BYTES, nests_too_deep};

/// Ours is a few KiB. Parsed JSON takes up to sixty times its size, on devices that have 64 MiB.
pub const MAX_METADATA_BYTES: u64 = 128 * 1024;

#[derive(Clone, Debug)]
pub struct TufFiles {
    client: Client,
    metadata_url: Url,
    /// The timestamp, which was just asked for conditionally.
    timestamp: Arc<Mutex<Option<Vec<u8>>>>,
}

impl TufFiles {
    pub fn new(client: Client, metadata_url: Url, timestamp: Vec<u8>) -> TufFiles {
        TufFiles { client, metadata_url, timestamp: Arc::new(Mutex::new(Some(timestamp))) }
    }

    async fn bytes(&self, url: &Url) -> Result<Vec<u8>, UpstreamError> {
        let Some(name) = url.as_str().strip_prefix(self.metadata_url.as_str()) else {
            return exchange::get(&self.client, url, MAX_LIST_BYTES).await;
        };
        let role = name.strip_suffix(".json").unwrap_or(name);
        let role = role.rsplit_once('.').map_or(role, |(_version, role)| role);
        if !["root", "timestamp", "snapshot", "targets"].contains(&role) {
            return Err(UpstreamError::List(format!(
                "its signed metadata has a role {:?}, which is none of Larder's",
                exchange::readable(role)
            )));
        }
        let held = if role == "timestamp" { self.take_timestamp() } else { None };
        let bytes = match held {
            Some(bytes) => bytes,
            None => exchange::get(&self.client, url, MAX_METADATA_BYTES).await?,
        };
        check(role, &bytes)?;
        Ok(bytes)
    }

    fn take_timestamp(&self) -> Option<Vec<u8>> {
        self.timestamp.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

/// What must be known of a file of metadata before it is parsed for good.
fn check(role: &str, bytes: &[u8]) -> Result<(), UpstreamError> {
    #[derive(Deserialize)]
    struct Document {
        signed: Targets,
    }
    #[derive(Deserialize)]
    struct Targets {
        delegations: Option<Delegations>,
    }
    #[derive(Deserialize)]
    struct Delegations {
        #[serde(default)]
        roles: Vec<IgnoredAny>,
    }
    if nests_too_deep(bytes) {
        return Err(UpstreamError::List(format!("its {role} metadata nests too deep")));
    }
    if role == "targets"
        && let Ok(document) = serde_json::from_slice::<Document>(bytes)
        && document.signed.delegations.is_some_and(|d| !d.roles.is_empty())
    {
        let problem = "its targets metadata delegates to others, which Larder's never does";
        return Err(UpstreamError::List(problem.into()));
    }
    Ok(())
}

#[async_trait]
impl Transport for TufFiles {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let outcome = match self.bytes(&url).await {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(UpstreamError::Refused { status: 403 | 404 | 410, .. }) => {
                return Err(TransportError::new(TransportErrorKind::FileNotFound, &url));
            }
            // In the stream, because `tough` takes any other error for the end of the chain of roots.
            Err(e) => Err(TransportError::new_with_cause(TransportErrorKind::Other, &url, e)),
        };
        Ok(Box::pin(stream::iter([outcome])))
    }
}
