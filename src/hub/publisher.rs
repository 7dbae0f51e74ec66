//! Keeps the signed hot list and policy in step with what the store says. The only place that
//! makes epochs, and it never signs a document that a device would refuse.

use std::path::{Path, PathBuf};

use crate::{
    config::hub::{HubConfig, PolicySettings},
    hub::{
        addresses::Addresses,
        keys::{self, KeyError, KeyName},
        repo::{Repo, RepoError, RoleKeys, Target},
        store::{Content, Store, StoreError},
    },
    logic::{
        hotlist::{Entry, HotList, LIST_TARGET, ListError, POLICY_TARGET, Policy, PolicyError},
        now::UnixSeconds,
    },
};

pub const TUF_DIR: &str = "tuf";

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the hot list cannot be published: {0}; revoke something first")]
    List(#[from] ListError),
    #[error("the [policy] settings cannot be published: {0}")]
    Policy(#[from] PolicyError),
    #[error("the published {0} is missing from the repository; restore it from a backup")]
    TargetMissing(&'static str),
}

pub struct Publisher {
    repo: Repo,
    list: HotList,
    policy: Policy,
}

/// The first repository: an empty list and the policy.
pub async fn create(
    data_dir: &Path,
    config: &HubConfig,
    now: UnixSeconds,
) -> Result<PathBuf, PublishError> {
    let list = HotList { format: 1, epoch: 1, published_at: now, devices: None, entries: vec![] };
    let policy = policy(&config.policy, statement_public_key(data_dir)?)?;
    let repo = Repo::create(
        data_dir.join(TUF_DIR),
        RoleKeys::read(data_dir).map_err(RepoError::Key)?,
        config.metadata.clone(),
        &targets(&list, &policy)?,
        now,
    )
    .await?;
    Ok(repo.root_file())
}

impl Publisher {
    pub fn open(data_dir: &Path, config: &HubConfig) -> Result<Publisher, PublishError> {
        let role_keys = RoleKeys::read(data_dir).map_err(RepoError::Key)?;
        let repo = Repo::open(data_dir.join(TUF_DIR), role_keys, config.metadata.clone())?;
        let read = |name| repo.target(name)?.ok_or(PublishError::TargetMissing(name));
        let list = HotList::parse(&read(LIST_TARGET)?)?;
        let policy = Policy::parse(&read(POLICY_TARGET)?)?;
        Ok(Publisher { repo, list, policy })
    }

    pub fn list(&self) -> &HotList {
        &self.list
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where the newest signed root is.
    pub fn root_file(&self) -> PathBuf {
        self.repo.root_file()
    }

    /// Publishes the policy that the configuration asks for, if it is not the published one.
    pub async fn set_policy(
        &mut self,
        settings: &PolicySettings,
        reflector: Option<String>,
        data_dir: &Path,
        now: UnixSeconds,
    ) -> Result<(), PublishError> {
        let key = statement_public_key(data_dir)?;
        let policy = Policy { reflector, ..policy(settings, key)? };
        let policy = Policy::parse(&serde_json::to_vec(&policy).expect("our own types serialise"))?;
        if policy != self.policy {
            self.repo.publish(&targets(&self.list, &policy)?, now).await?;
            self.policy = policy;
        }
        Ok(())
    }

    /// Publishes a new epoch if what the store wants listed is not what is published. Returns the
    /// epoch in force.
    pub async fn update_list(
        &mut self,
        store: &Store,
        addresses: &Addresses,
        now: UnixSeconds,
    ) -> Result<u64, PublishError> {
        let entries: Vec<Entry> =
            store.listed(now)?.iter().map(|content| entry(content, addresses)).collect();
        if entries != self.list.entries {
            let epoch = store.next_epoch(self.list.epoch)?;
            let list = HotList { format: 1, epoch, published_at: now, devices: None, entries };
            self.repo.publish(&targets(&list, &self.policy)?, now).await?;
            self.list = list;
        }
        Ok(self.list.epoch)
    }

    /// Whether a device would accept a list of these: asked before anything is stored that could
    /// keep every later list from being published.
    pub fn check(contents: &[Content], addresses: &Addresses) -> Result<(), ListError> {
        let entries = contents.iter().map(|content| entry(content, addresses)).collect();
        let largest = HotList {
            format: 1,
            epoch: u64::MAX,
            published_at: UnixSeconds(u64::MAX),
            devices: Some(u32::MAX),
            entries,
        };
        list_bytes(&largest).map(drop)
    }

    /// Signs again what is past half of its life.
    pub async fn renew(&mut self, now: UnixSeconds) -> Result<bool, PublishError> {
        Ok(self.repo.renew(now).await?)
    }
}

fn entry(content: &Content, addresses: &Addresses) -> Entry {
    Entry {
        infohash: content.infohash,
        name: content.name.clone(),
        size_bytes: content.size_bytes,
        score: content.score,
        lease_end: content.lease_end,
        price_class: content.price_class.clone(),
        replicas: content.replicas,
        private: content.private,
        metainfo_url: addresses.metainfo(content.infohash),
        tracker_tiers: addresses.tracker_tiers(),
        web_seeds: vec![addresses.web_seed(content.infohash, &content.name, content.directory)],
        holders: vec![],
    }
}

fn targets(list: &HotList, policy: &Policy) -> Result<Vec<Target>, PublishError> {
    let list_bytes = list_bytes(list)?;
    let policy_bytes = serde_json::to_vec(policy).expect("our own types serialise");
    Ok(vec![
        Target { name: LIST_TARGET, bytes: list_bytes },
        Target { name: POLICY_TARGET, bytes: policy_bytes },
    ])
}

fn list_bytes(list: &HotList) -> Result<Vec<u8>, ListError> {
    let bytes = serde_json::to_vec(list).expect("our own types serialise");
    HotList::parse(&bytes)?;
    Ok(bytes)
}

fn policy(settings: &PolicySettings, statement_key: String) -> Result<Policy, PolicyError> {
    let policy = Policy {
        format: 1,
        currency: settings.currency.clone(),
        price_per_gb: settings.price_per_gb.clone(),
        list_interval_seconds: settings.list_interval_seconds,
        report_interval_seconds: settings.report_interval_seconds,
        statement_keys: vec![statement_key],
        reflector: None,
        private_web_seeds: settings.private_web_seeds.clone(),
    };
    Policy::parse(&serde_json::to_vec(&policy).expect("our own types serialise"))
}

fn statement_public_key(data_dir: &Path) -> Result<String, RepoError> {
    let key = keys::read(data_dir, KeyName::Statement).map_err(|e: KeyError| RepoError::Key(e))?;
    Ok(key.public_hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::{hotlist::MAX_ENTRIES, infohash::Infohash};

    fn content(n: usize) -> Content {
        let mut infohash = [0; 20];
        infohash[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Content {
            infohash: Infohash(infohash),
            name: "film.mp4".into(),
            directory: false,
            size_bytes: 1,
            private: false,
            price_class: "standard".into(),
            score: 1.0,
            replicas: 1,
            published_at: UnixSeconds(1),
            lease_end: UnixSeconds(2),
            revoked: false,
        }
    }

    #[test]
    fn says_before_publishing_when_the_list_is_full() {
        let addresses = Addresses::new("http://hub.example/".parse().expect("a URL"));
        let contents: Vec<Content> = (0..=MAX_ENTRIES).map(content).collect();
        assert_eq!(Publisher::check(&contents[..5_000], &addresses), Ok(()));
        assert!(matches!(
            Publisher::check(&contents, &addresses),
            Err(ListError::TooLarge { .. } | ListError::TooManyEntries(_))
        ));
        let mut impossible = content(1);
        impossible.size_bytes = 0;
        assert!(Publisher::check(&[impossible], &addresses).is_err());
    }
}
