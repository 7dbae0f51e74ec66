//! The TUF repository on disk: signed metadata and targets, as plain files that any web server can
//! carry. Only this folder knows `tough`. A reader must never see half of a publication: files get
//! names of their own (consistent snapshots), and `timestamp.json`, which names the rest, is
//! renamed into place last.

mod files;
mod roles;

use std::{io, num::NonZeroU64, path::PathBuf, time::Duration};

use jiff::Timestamp as Expiry;
use tough::schema;

use crate::{config::hub::Metadata, hub::keys::KeyError, logic::now::UnixSeconds};

use files::{Files, replace};
pub use files::{Served, serve};
pub use roles::RoleKeys;

/// Devices pin a root for as long as they sit on a shelf; it is renewed at half of this.
const ROOT_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: the signed metadata is damaged ({problem}); restore it from a backup")]
    Damaged { path: PathBuf, problem: String },
    #[error("cannot sign the repository: {0}")]
    Sign(#[from] Box<tough::error::Error>),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the moment {0} cannot be written as a date")]
    ImpossibleTime(u64),
    #[error("the repository has used up its version numbers")]
    OutOfVersions,
}

/// One file that the repository vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// The one writer of the repository.
pub struct Repo {
    files: Files,
    keys: RoleKeys,
    lifetimes: Metadata,
    root: schema::Root,
    current: Current,
}

/// What `timestamp.json` stands for at present. Replaced only after the new one is on disk.
#[derive(Clone)]
struct Current {
    targets: schema::Targets,
    snapshot: schema::Snapshot,
    timestamp: schema::Timestamp,
}

impl Repo {
    /// Makes the first root and the first publication. `dir` must not hold a repository yet.
    pub async fn create(
        dir: PathBuf,
        keys: RoleKeys,
        lifetimes: Metadata,
        targets: &[Target],
        now: UnixSeconds,
    ) -> Result<Repo, RepoError> {
        let files = Files::create(dir)?;
        let root = keys.first_root(expiry(now, ROOT_LIFETIME)?)?;
        let signed = keys.sign(root.clone(), &root).await?;
        replace(&files.metadata("1.root.json"), signed.buffer())?;
        let unsigned = Expiry::UNIX_EPOCH;
        let current = Current {
            targets: schema::Targets::new(roles::spec_version(), roles::FIRST, unsigned),
            snapshot: schema::Snapshot::new(roles::spec_version(), roles::FIRST, unsigned),
            timestamp: schema::Timestamp::new(roles::spec_version(), roles::FIRST, unsigned),
        };
        let mut repo = Repo { files, keys, lifetimes, root, current };
        repo.replace_targets(targets, roles::FIRST, now).await?;
        Ok(repo)
    }

    /// Reads back what is published.
    pub fn open(dir: PathBuf, keys: RoleKeys, lifetimes: Metadata) -> Result<Repo, RepoError> {
        let files = Files::open(dir);
        let root = files.newest_root()?;
        let timestamp: schema::Timestamp = files.read_signed("timestamp.json")?;
        let version = roles::listed_version(&timestamp.meta, "snapshot.json");
        let snapshot: schema::Snapshot = files.read_signed(&format!("{version}.snapshot.json"))?;
        let version = roles::listed_version(&snapshot.meta, "targets.json");
        let targets = files.read_signed(&format!("{version}.targets.json"))?;
        Ok(Repo { files, keys, lifetimes, root, current: Current { targets, snapshot, timestamp } })
    }

    /// The published bytes of a target.
    pub fn target(&self, name: &str) -> Result<Option<Vec<u8>>, RepoError> {
        let found = self.current.targets.targets.iter().find(|(n, _)| n.raw() == name);
        let Some((_, target)) = found else { return Ok(None) };
        self.files.read_target(name, &target.hashes.sha256).map(Some)
    }

    /// Replaces all targets.
    pub async fn publish(&mut self, targets: &[Target], now: UnixSeconds) -> Result<(), RepoError> {
        let version = roles::next(self.current.targets.version)?;
        self.replace_targets(targets, version, now).await?;
        self.files.prune(version)
    }

    /// Signs again whatever has less than half of its life left. True when something was due.
    pub async fn renew(&mut self, now: UnixSeconds) -> Result<bool, RepoError> {
        self.renew_root(now).await?;
        let due = |expires: Expiry, lifetime: u32| {
            expires.as_second().saturating_sub(now.0 as i64) < i64::from(lifetime) / 2
        };
        let lifetimes = &self.lifetimes;
        let mut next = self.current.clone();
        let stage = if due(self.current.targets.expires, lifetimes.targets_lifetime_seconds) {
            next.targets.version = roles::next(next.targets.version)?;
            Stage::Targets
        } else if due(self.current.snapshot.expires, lifetimes.snapshot_lifetime_seconds) {
            Stage::Snapshot
        } else if due(self.current.timestamp.expires, lifetimes.timestamp_lifetime_seconds) {
            Stage::Timestamp
        } else {
            return Ok(false);
        };
        self.sign_from(next, stage, now).await?;
        self.files.prune(self.current.targets.version)?;
        Ok(true)
    }

    async fn renew_root(&mut self, now: UnixSeconds) -> Result<(), RepoError> {
        let left = self.root.expires.as_second().saturating_sub(now.0 as i64);
        if left > ROOT_LIFETIME.as_secs() as i64 / 2 {
            return Ok(());
        }
        if !self.keys.has_root_key() {
            // An operator may rightly keep the root key elsewhere.
            let days = left / 86_400;
            tracing::warn!(days, "the TUF root expires and its key is not here to renew it");
            return Ok(());
        }
        let mut root = self.root.clone();
        root.version = roles::next(root.version)?;
        root.expires = expiry(now, ROOT_LIFETIME)?;
        let signed = self.keys.sign(root.clone(), &root).await?;
        let name = format!("{}.root.json", root.version);
        replace(&self.files.metadata(&name), signed.buffer())?;
        self.root = root;
        Ok(())
    }

    async fn replace_targets(
        &mut self,
        targets: &[Target],
        version: NonZeroU64,
        now: UnixSeconds,
    ) -> Result<(), RepoError> {
        for target in targets {
            self.files.write_target(target)?;
        }
        let mut next = self.current.clone();
        next.targets = roles::targets(targets, version)?;
        self.sign_from(next, Stage::Targets, now).await
    }

    /// Signs `stage` and everything that vouches for it, then makes it visible in one step.
    async fn sign_from(
        &mut self,
        mut next: Current,
        stage: Stage,
        now: UnixSeconds,
    ) -> Result<(), RepoError> {
        let lifetime = |seconds: u32| expiry(now, Duration::from_secs(seconds.into()));
        let Current { targets, snapshot, timestamp } = &mut next;
        if stage <= Stage::Targets {
            targets.expires = lifetime(self.lifetimes.targets_lifetime_seconds)?;
            let signed = self.keys.sign(targets.clone(), &self.root).await?;
            let name = format!("{}.targets.json", targets.version);
            replace(&self.files.metadata(&name), signed.buffer())?;
            snapshot.meta =
                [("targets.json".to_owned(), roles::metafile(&signed, targets.version))].into();
        }
        if stage <= Stage::Snapshot {
            snapshot.version = roles::next_unless_new(snapshot.version, snapshot.expires)?;
            snapshot.expires = lifetime(self.lifetimes.snapshot_lifetime_seconds)?;
            let signed = self.keys.sign(snapshot.clone(), &self.root).await?;
            let name = format!("{}.snapshot.json", snapshot.version);
            replace(&self.files.metadata(&name), signed.buffer())?;
            timestamp.meta =
                [("snapshot.json".to_owned(), roles::metafile(&signed, snapshot.version))].into();
        }
        timestamp.version = roles::next_unless_new(timestamp.version, timestamp.expires)?;
        timestamp.expires = lifetime(self.lifetimes.timestamp_lifetime_seconds)?;
        let signed = self.keys.sign(timestamp.clone(), &self.root).await?;
        replace(&self.files.metadata("timestamp.json"), signed.buffer())?;
        self.current = next;
        Ok(())
    }

    /// What a device pins: the newest root, as signed.
    pub fn root_file(&self) -> PathBuf {
        self.files.metadata(&format!("{}.root.json", self.root.version))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Targets,
    Snapshot,
    Timestamp,
}

/// `tough` would write fractions of a second, which the format does not have.
fn expiry(now: UnixSeconds, lifetime: Duration) -> Result<Expiry, RepoError> {
    let at = now.0.saturating_add(lifetime.as_secs());
    i64::try_from(at)
        .ok()
        .and_then(|seconds| Expiry::from_second(seconds).ok())
        .ok_or(RepoError::ImpossibleTime(at))
}

#[cfg(test)]
mod tests;
