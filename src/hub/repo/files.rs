//! Where the repository's files lie, how they are replaced, and how they are handed to a web
//! server. Knows nothing of keys.

use std::{
    collections::BTreeSet,
    fs, io,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use data_encoding::HEXLOWER;
use serde::de::DeserializeOwned;
use tough::schema;

use super::{RepoError, Target};
use crate::hub::{
    disk,
    keys::{sha256, sha256_hex},
};

/// Superseded files stay this long for readers that are in the middle of a refresh, and for
/// caches in front of us.
const KEEP_SUPERSEDED: Duration = Duration::from_secs(3600);

pub struct Files {
    dir: PathBuf,
}

/// A file as a web server wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub bytes: Vec<u8>,
    /// Strong, quoted.
    pub etag: String,
    /// Its bytes will never change under this name.
    pub immutable: bool,
}

/// Reads a file below `metadata/` or `targets/` of the repository for the web server. `None`
/// for anything that is not there, or whose name could lead elsewhere.
pub fn serve(dir: &Path, folder: &'static str, name: &str) -> io::Result<Option<Served>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.bytes().all(plain) {
        return Ok(None);
    }
    match fs::read(dir.join(folder).join(name)) {
        Ok(bytes) => {
            let etag = format!("\"{}\"", sha256_hex(&bytes));
            Ok(Some(Served { bytes, etag, immutable: name != "timestamp.json" }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Files {
    pub fn create(dir: PathBuf) -> Result<Files, RepoError> {
        for folder in ["metadata", "targets"] {
            let path = dir.join(folder);
            fs::create_dir_all(&path).map_err(|source| RepoError::Io { path, source })?;
        }
        Ok(Files::open(dir))
    }

    pub fn open(dir: PathBuf) -> Files {
        Files { dir }
    }

    pub fn metadata(&self, name: &str) -> PathBuf {
        self.dir.join("metadata").join(name)
    }

    pub fn read_signed<R: DeserializeOwned>(&self, name: &str) -> Result<R, RepoError> {
        let path = self.metadata(name);
        let bytes =
            fs::read(&path).map_err(|source| RepoError::Io { path: path.clone(), source })?;
        let signed: schema::Signed<R> = serde_json::from_slice(&bytes)
            .map_err(|e| RepoError::Damaged { path, problem: e.to_string() })?;
        Ok(signed.signed)
    }

    /// Root versions have no gaps, so the newest is the last one there is.
    pub fn newest_root(&self) -> Result<schema::Root, RepoError> {
        let mut version = 1u64;
        while self.metadata(&format!("{}.root.json", version + 1)).exists() {
            version += 1;
        }
        self.read_signed(&format!("{version}.root.json"))
    }

    pub fn write_target(&self, target: &Target) -> Result<(), RepoError> {
        let path = self.target_path(target.name, &sha256(&target.bytes));
        replace(&path, &target.bytes)
    }

    pub fn read_target(&self, name: &str, hash: &[u8]) -> Result<Vec<u8>, RepoError> {
        let path = self.target_path(name, hash);
        let bytes =
            fs::read(&path).map_err(|source| RepoError::Io { path: path.clone(), source })?;
        if sha256(&bytes) != hash {
            return Err(RepoError::Damaged { path, problem: "its hash does not match".into() });
        }
        Ok(bytes)
    }

    fn target_path(&self, name: &str, hash: &[u8]) -> PathBuf {
        self.dir.join("targets").join(format!("{}.{name}", HEXLOWER.encode(hash)))
    }

    /// Removes what was superseded long ago. `current` is the newest version of the targets role.
    pub fn prune(&self, current: NonZeroU64) -> Result<(), RepoError> {
        let io = |source| RepoError::Io { path: self.dir.clone(), source };
        let young = |path: &Path| {
            let age = fs::metadata(path)
                .and_then(|m| m.modified())
                .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            age.is_ok_and(|age| age < KEEP_SUPERSEDED)
        };
        let mut referred = BTreeSet::new();
        let mut listings = 0u32;
        for entry in fs::read_dir(self.dir.join("metadata")).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((version, role)) = name.split_once('.') else { continue };
            match (version.parse::<u64>(), role) {
                (Ok(version), "targets.json") => {
                    // The version before the current one was just now what everyone read.
                    if version + 1 < current.get() && !young(&path) {
                        fs::remove_file(&path).map_err(io)?;
                        continue;
                    }
                    listings += 1;
                    if let Ok(role) = self.read_signed::<schema::Targets>(&name) {
                        for (target, described) in &role.targets {
                            let hash: &[u8] = &described.hashes.sha256;
                            referred.insert(self.target_path(target.raw(), hash));
                        }
                    }
                }
                (Ok(_), "snapshot.json") if !young(&path) => {
                    self.remove_superseded_snapshot(&path, &name)?;
                }
                _ => {}
            }
        }
        // With no readable listing, everything would look superseded.
        if listings == 0 {
            return Ok(());
        }
        for entry in fs::read_dir(self.dir.join("targets")).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !referred.contains(&path) && !young(&path) {
                fs::remove_file(&path).map_err(io)?;
            }
        }
        Ok(())
    }

    fn remove_superseded_snapshot(&self, path: &Path, name: &str) -> Result<(), RepoError> {
        let timestamp: schema::Timestamp = self.read_signed("timestamp.json")?;
        let current = super::roles::listed_version(&timestamp.meta, "snapshot.json");
        let version = name.split('.').next().and_then(|v| v.parse::<u64>().ok());
        if version.is_some_and(|version| version + 1 < current.get()) {
            fs::remove_file(path)
                .map_err(|source| RepoError::Io { path: path.to_owned(), source })?;
        }
        Ok(())
    }
}

pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), RepoError> {
    disk::replace(path, bytes).map_err(|source| RepoError::Io { path: path.to_owned(), source })
}
