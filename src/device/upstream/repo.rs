//! The hot list and the policy from the operator's TUF repository. `tough` checks signatures and versions
//! against the newest root that the pinned one has led to; this file asks conditionally and patiently, so
//! that an unchanged list costs the fleet's web server one 304, and judges what needs a clock. What it
//! refuses leaves everything as it was.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;
use reqwest::{Client, Response, StatusCode, header};
use tokio::time::{Instant, timeout};
use tough::{
    ExpirationEnforcement, IntoVec, Limits, Repository, RepositoryLoader, TargetName,
    schema::{RoleType, Root, Signed},
};
use url::Url;

use super::{
    UpstreamError, exchange,
    refusal::refused,
    tuf_files::{MAX_METADATA_BYTES, TufFiles},
};
use crate::logic::{
    hotlist::{HotList, LIST_TARGET, MAX_LIST_BYTES, MAX_POLICY_BYTES, POLICY_TARGET, Policy},
    now::{UnixSeconds, WallTime},
};

/// A root rotated monthly for ten years.
const MAX_ROOT_UPDATES: u64 = 120;
/// For a whole refresh, each file of which may be slow in its own right.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a server is asked to hold the question (RFC 7240): under the 30 seconds after which hubs,
/// proxies and home routers begin to lose patience.
const WAIT: Duration = Duration::from_secs(25);
/// Whoever cuts us off sooner than this is not worth waiting for.
const WAIT_MIN: Duration = Duration::from_secs(4);
/// Two in a row are a proxy; one may have been a hub that was restarted.
const CUTS_BEFORE_SHORTER: u32 = 2;

/// Which root the chain in `root.json` began with: another one begins a new chain.
const PINNED_FILE: &str = "pinned-root";
/// Whose signatures the list had that is followed.
const LIST_KEYS_FILE: &str = "list-keys.json";

/// A list that passed every check.
#[derive(Debug)]
pub struct FetchedList {
    pub list: HotList,
    pub policy: Policy,
    /// The first of its signatures' ends.
    pub valid_until: UnixSeconds,
}

#[derive(Debug)]
pub enum Outcome {
    News(Box<FetchedList>),
    /// Nothing has changed since the last success.
    Unchanged,
    /// A question that was to be held was cut off on the way: nothing is known, nothing is wrong.
    Cut,
}

#[derive(Debug)]
pub struct Answer {
    pub outcome: Outcome,
    /// The server holds such questions until there is news, so it may be asked again at once.
    pub held: bool,
}

/// One operator's repository as this device knows it.
pub struct ListRepository {
    client: Client,
    metadata_url: Url,
    targets_url: Url,
    pinned_root: Vec<u8>,
    /// What `tough` remembers between runs, against rollback.
    memory: PathBuf,
    accepted: Option<Accepted>,
    patience: Patience,
}

/// The last timestamp whose whole chain was accepted.
struct Accepted {
    etag: Option<String>,
    timestamp: Vec<u8>,
    valid_until: UnixSeconds,
}

enum Asked {
    Timestamp { bytes: Vec<u8>, etag: Option<String> },
    Unchanged,
    Cut,
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
        let repository = ListRepository {
            client,
            metadata_url: join("tuf/metadata/")?,
            targets_url: join("tuf/targets/")?,
            pinned_root,
            memory: memory.to_owned(),
            accepted: None,
            patience: Patience::default(),
        };
        repository.begin_chain().map_err(|e| {
            UpstreamError::Local(format!("cannot write to {}: {e}", memory.display()))
        })?;
        Ok(repository)
    }

    /// `held` is never replaced by an older list. Waits for news if the server lets it.
    pub async fn fetch(
        &mut self,
        held: Option<&HotList>,
        wall: WallTime,
    ) -> Result<Answer, UpstreamError> {
        let (asked, held_open) = self.ask(wall).await?;
        let outcome = match asked {
            Asked::Unchanged => Outcome::Unchanged,
            Asked::Cut => Outcome::Cut,
            Asked::Timestamp { bytes, etag } => {
                let load = self.load(bytes.clone(), held, wall);
                let fetched = timeout(REFRESH_TIMEOUT, load).await.map_err(|_| {
                    let seconds = REFRESH_TIMEOUT.as_secs();
                    UpstreamError::List(format!("it did not arrive within {seconds} seconds"))
                })??;
                let valid_until = fetched.valid_until;
                self.accepted = Some(Accepted { etag, timestamp: bytes, valid_until });
                Outcome::News(Box::new(fetched))
            }
        };
        Ok(Answer { outcome, held: held_open })
    }

    /// Asks for the timestamp, and says whether the server holds such questions.
    async fn ask(&mut self, wall: WallTime) -> Result<(Asked, bool), UpstreamError> {
        let url = self
            .metadata_url
            .join("timestamp.json")
            .map_err(|e| UpstreamError::Local(e.to_string()))?;
        // What has expired is asked for again, whatever its ETag says.
        let known = self.accepted.as_ref().filter(|a| !has_ended(a.valid_until, wall));
        let etag = known.and_then(|accepted| accepted.etag.as_ref());
        let wait = self.patience.wait.filter(|_| etag.is_some() && !self.patience.was_cut);
        let mut request = self.client.get(url.clone());
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(wait) = wait {
            request = request.header("prefer", format!("wait={}", wait.as_secs()));
        }
        let began = Instant::now();
        let answer = exchange::send(&url, request, wait.unwrap_or_default()).await;
        let waited = began.elapsed();
        if wait.is_some_and(|_| is_cut(&answer, waited)) {
            self.patience.cut_after(waited);
            return Ok((Asked::Cut, false));
        }
        self.patience.was_cut = false;
        let response = answer?;
        let applied = wait.is_some() && has_waited(&response);
        match response.status() {
            StatusCode::NOT_MODIFIED if etag.is_some() => {
                // Who says that it waits and does not must not be asked again at once.
                let held = applied && wait.is_some_and(|wait| waited >= wait / 2);
                if held {
                    self.patience.cuts = 0;
                }
                Ok((Asked::Unchanged, held))
            }
            StatusCode::NOT_MODIFIED => Err(UpstreamError::bad_answer(
                &url,
                "\"not modified\", but the question had no condition",
            )),
            StatusCode::OK => {
                let etag = response.headers().get(header::ETAG);
                let etag = etag.and_then(|v| v.to_str().ok()).map(str::to_owned);
                let bytes = exchange::body(&url, response, MAX_METADATA_BYTES).await?;
                match known.is_some_and(|accepted| accepted.timestamp == bytes) {
                    true => Ok((Asked::Unchanged, false)),
                    false => Ok((Asked::Timestamp { bytes, etag }, applied)),
                }
            }
            status => Err(exchange::refused(&url, status)),
        }
    }

    async fn load(
        &self,
        timestamp: Vec<u8>,
        held: Option<&HotList>,
        wall: WallTime,
    ) -> Result<FetchedList, UpstreamError> {
        self.forget_clock().await;
        let root = self.trusted_root().await;
        let (metadata_url, targets_url) = (self.metadata_url.clone(), self.targets_url.clone());
        let files = TufFiles::new(self.client.clone(), metadata_url.clone(), timestamp);
        // `tough` would read the system's clock, which may be years away; ours is asked below.
        let repository = RepositoryLoader::new(&root, metadata_url, targets_url)
            .transport(files)
            .limits(Limits {
                max_root_size: MAX_METADATA_BYTES,
                max_targets_size: MAX_METADATA_BYTES,
                max_timestamp_size: MAX_METADATA_BYTES,
                max_snapshot_size: MAX_METADATA_BYTES,
                max_root_updates: MAX_ROOT_UPDATES,
            })
            .datastore(&self.memory)
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await
            .map_err(refused)?;
        let valid_until = check_expiry(&repository, wall)?;
        let list = HotList::parse(&target(&repository, LIST_TARGET, MAX_LIST_BYTES).await?)
            .map_err(|e| UpstreamError::List(e.to_string()))?;
        let policy = Policy::parse(&target(&repository, POLICY_TARGET, MAX_POLICY_BYTES).await?)
            .map_err(|e| UpstreamError::List(e.to_string()))?;
        let keys = list_keys(&repository.root().signed);
        if let Some(held) = held
            && self.is_by_the_same(&keys).await
        {
            list.may_replace(held).map_err(|e| UpstreamError::List(e.to_string()))?;
        }
        // If this cannot be written, the next list is held against these keys or the ones before.
        let _ = tokio::fs::write(self.memory.join(LIST_KEYS_FILE), keys).await;
        Ok(FetchedList { list, policy, valid_until })
    }

    /// Whether those who signed the list that is followed sign this one too. If not, the operator has
    /// replaced their keys, as one does when a thief has them: the thief's epoch, however high, ends
    /// with them (TUF 5.3.11 does the same for versions).
    async fn is_by_the_same(&self, keys: &str) -> bool {
        let before = tokio::fs::read(self.memory.join(LIST_KEYS_FILE)).await;
        before.map_or(true, |before| before == keys.as_bytes())
    }

    fn begin_chain(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.memory)?;
        let pinned = digest::digest(&digest::SHA256, &self.pinned_root);
        let marker = self.memory.join(PINNED_FILE);
        if std::fs::read(&marker).is_ok_and(|marked| marked == pinned.as_ref()) {
            return Ok(());
        }
        match std::fs::remove_file(self.memory.join("root.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::write(&marker, pinned.as_ref()),
        }
    }

    /// The newest root of the chain, as `tough` keeps it. To begin with the pinned one each time would
    /// be to trust keys again that were replaced since, and to forget the versions seen since.
    async fn trusted_root(&self) -> Vec<u8> {
        let kept = tokio::fs::read(self.memory.join("root.json")).await.unwrap_or_default();
        // A power cut may have torn it; then the chain is walked again from its beginning.
        let is_sound = serde_json::from_slice::<Signed<Root>>(&kept)
            .is_ok_and(|root| root.signed.verify_role(&root).is_ok());
        if is_sound { kept } else { self.pinned_root.clone() }
    }

    /// `tough` refuses to go on when the clock is behind the latest that it ever saw. A router whose
    /// clock was once a year ahead would then follow no list for a year, so this one check is ours
    /// to make (`device::clock`), and its file goes.
    async fn forget_clock(&self) {
        // Absent is the normal case; anything else shows up when tough opens the folder.
        let _ = tokio::fs::remove_file(self.memory.join("latest_known_time.json")).await;
    }
}

/// How long we let a server hold the question, by what came of it before.
struct Patience {
    wait: Option<Duration>,
    cuts: u32,
    /// The next question is plain, to hear at once what is the matter.
    was_cut: bool,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { wait: Some(WAIT), cuts: 0, was_cut: false }
    }
}

impl Patience {
    fn cut_after(&mut self, waited: Duration) {
        self.was_cut = true;
        self.cuts += 1;
        if self.cuts >= CUTS_BEFORE_SHORTER {
            self.cuts = 0;
            // A router that has silently forgotten the connection does not say when it did.
            let shorter = |wait: Duration| if waited < wait { waited * 3 / 4 } else { wait / 2 };
            self.wait = self.wait.map(shorter).filter(|wait| *wait >= WAIT_MIN);
        }
    }
}

/// Somebody between us and the hub did not want to wait: a broken connection, or a proxy's own words.
fn is_cut(answer: &Result<Response, UpstreamError>, waited: Duration) -> bool {
    waited >= WAIT_MIN / 2
        && match answer {
            Ok(response) => matches!(response.status().as_u16(), 408 | 499 | 502..=504),
            Err(_) => true,
        }
}

/// RFC 7240 section 3.
fn has_waited(response: &Response) -> bool {
    let applied = response.headers().get("preference-applied");
    applied.and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("wait"))
}

fn has_ended(valid_until: UnixSeconds, wall: WallTime) -> bool {
    wall.synced().is_some_and(|now| now >= valid_until)
}

/// Against freezing, by the clock that the whole device goes by. Without one nothing can be said, and
/// nothing is filled.
fn check_expiry(repository: &Repository, wall: WallTime) -> Result<UnixSeconds, UpstreamError> {
    let ends = [
        ("root", repository.root().signed.expires),
        ("timestamp", repository.timestamp().signed.expires),
        ("snapshot", repository.snapshot().signed.expires),
        ("targets", repository.targets().signed.expires),
    ];
    let ends = ends
        .map(|(role, end)| (role, UnixSeconds(u64::try_from(end.as_second()).unwrap_or_default())));
    if let Some((role, _)) = ends.iter().find(|(_, end)| has_ended(*end, wall)) {
        return Err(UpstreamError::List(format!(
            "its {role} metadata has expired; the cached list stays in force. Check this device's \
             clock, or ask the operator to publish"
        )));
    }
    Ok(ends.iter().map(|(_, end)| *end).min().unwrap_or_default())
}

fn list_keys(root: &Root) -> String {
    let role = root.roles.get(&RoleType::Targets);
    let mut keys: Vec<String> = role
        .into_iter()
        .flat_map(|role| &role.keyids)
        .filter_map(|id| serde_json::to_string(id).ok())
        .collect();
    keys.sort();
    keys.join(" ")
}

async fn target(repository: &Repository, name: &str, limit: u64) -> Result<Vec<u8>, UpstreamError> {
    let missing = || UpstreamError::List(format!("its signed metadata does not name {name}"));
    let target = TargetName::new(name).map_err(refused)?;
    let described = repository.targets().signed.targets.get(&target).ok_or_else(missing)?;
    if described.length > limit {
        return Err(UpstreamError::List(format!(
            "{name} is {} bytes, more than the limit of {limit}",
            described.length
        )));
    }
    let stream = repository.read_target(&target).await.map_err(refused)?.ok_or_else(missing)?;
    let bytes = stream.into_vec().await.map_err(refused)?;
    match bytes.len() as u64 == described.length {
        true => Ok(bytes),
        false => Err(UpstreamError::List(format!("{name} has not the length that was signed"))),
    }
}
