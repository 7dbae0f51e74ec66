//! The roles of the repository and the keys that sign them. Knows nothing of files.

use std::{collections::HashMap, num::NonZeroU64, path::Path};

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use jiff::Timestamp as Expiry;
use serde::Serialize;
use tough::{
    TargetName,
    editor::signed::SignedRole,
    key_source::KeySource,
    schema::{self, KeyHolder, Metafile, RoleType, decoded::Decoded},
    sign::{Sign, parse_keypair},
};

use super::{RepoError, Target};
use crate::hub::keys::{self, KeyError, KeyName};

pub const FIRST: NonZeroU64 = NonZeroU64::MIN;

pub fn spec_version() -> String {
    "1.0.0".to_owned()
}

/// The four TUF keys; the root's may be absent.
pub struct RoleKeys {
    root: Option<Vec<u8>>,
    others: [Vec<u8>; 3],
}

impl RoleKeys {
    pub fn read(data_dir: &Path) -> Result<RoleKeys, KeyError> {
        let root = KeyName::Root.path(data_dir).exists();
        Ok(RoleKeys {
            root: if root { Some(keys::read_der(data_dir, KeyName::Root)?) } else { None },
            others: [
                keys::read_der(data_dir, KeyName::Targets)?,
                keys::read_der(data_dir, KeyName::Snapshot)?,
                keys::read_der(data_dir, KeyName::Timestamp)?,
            ],
        })
    }

    pub fn has_root_key(&self) -> bool {
        self.root.is_some()
    }

    /// One key for each role, threshold 1.
    pub fn first_root(&self, expires: Expiry) -> Result<schema::Root, RepoError> {
        let [targets, snapshot, timestamp] = &self.others;
        let root_key = self.root.as_ref().expect("`init` makes the root key just before");
        let mut root = schema::Root {
            spec_version: spec_version(),
            consistent_snapshot: true,
            version: FIRST,
            expires,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        for (role, der) in [
            (RoleType::Root, root_key),
            (RoleType::Targets, targets),
            (RoleType::Snapshot, snapshot),
            (RoleType::Timestamp, timestamp),
        ] {
            let key = parse_keypair(der).map_err(Box::new)?.tuf_key();
            let id = key.key_id().map_err(|source| {
                Box::new(tough::error::Error::JsonSerialization {
                    source,
                    backtrace: std::backtrace::Backtrace::capture(),
                })
            })?;
            root.roles.insert(
                role,
                schema::RoleKeys {
                    keyids: vec![id.clone()],
                    threshold: NonZeroU64::MIN,
                    _extra: HashMap::new(),
                },
            );
            root.keys.insert(id, key);
        }
        Ok(root)
    }

    pub async fn sign<R: schema::Role + Serialize>(
        &self,
        role: R,
        root: &schema::Root,
    ) -> Result<SignedRole<R>, RepoError> {
        let sources: Vec<Box<dyn KeySource>> = self
            .root
            .iter()
            .chain(&self.others)
            .map(|der| Box::new(DerKey(der.clone())) as Box<dyn KeySource>)
            .collect();
        let holder = KeyHolder::Root(root.clone());
        let signed = SignedRole::new(role, &holder, &sources, &SystemRandom::new()).await;
        Ok(signed.map_err(Box::new)?)
    }
}

/// Its expiry is set when it is signed.
pub fn targets(targets: &[Target], version: NonZeroU64) -> Result<schema::Targets, RepoError> {
    let mut role = schema::Targets::new(spec_version(), version, Expiry::UNIX_EPOCH);
    for target in targets {
        let name = TargetName::new(target.name).map_err(Box::new)?;
        let described = schema::Target {
            length: target.bytes.len() as u64,
            hashes: hashes(&keys::sha256(&target.bytes)),
            custom: HashMap::new(),
            _extra: HashMap::new(),
        };
        role.targets.insert(name, described);
    }
    Ok(role)
}

pub fn metafile<R>(signed: &SignedRole<R>, version: NonZeroU64) -> Metafile
where
    R: schema::Role + Serialize,
{
    Metafile {
        length: Some(*signed.length()),
        hashes: Some(hashes(signed.sha256())),
        version,
        _extra: HashMap::new(),
    }
}

fn hashes(sha256: &[u8]) -> schema::Hashes {
    schema::Hashes { sha256: Decoded::from(sha256.to_vec()), _extra: HashMap::new() }
}

pub fn next(version: NonZeroU64) -> Result<NonZeroU64, RepoError> {
    version.checked_add(1).ok_or(RepoError::OutOfVersions)
}

/// A role that was never signed (its expiry is still the epoch) starts with the version it has.
pub fn next_unless_new(version: NonZeroU64, expires: Expiry) -> Result<NonZeroU64, RepoError> {
    if expires == Expiry::UNIX_EPOCH { Ok(version) } else { next(version) }
}

/// Which version of `name` a role vouches for.
pub fn listed_version(meta: &HashMap<String, Metafile>, name: &str) -> NonZeroU64 {
    meta.get(name).map_or(FIRST, |file| file.version)
}

/// `tough` wants to load its keys itself; ours are in memory already.
struct DerKey(Vec<u8>);

impl std::fmt::Debug for DerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DerKey(..)")
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

#[async_trait]
impl KeySource for DerKey {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, BoxError> {
        Ok(Box::new(parse_keypair(&self.0)?))
    }

    async fn write(&self, _value: &str, _key_id_hex: &str) -> Result<(), BoxError> {
        Err("keys are written by `larder-hub init` only".into())
    }
}
