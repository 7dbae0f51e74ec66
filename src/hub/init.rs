//! `larder-hub init`: makes a data folder that `run` can serve. Never touches one that is in use.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::PathBuf};

use super::{
    clock::unix_now,
    keys::{self, KeyError, TOKEN_FILE},
    publisher::{self, PublishError, TUF_DIR},
    store::{DATABASE_FILE, Store, StoreError},
};
use crate::config::hub::HubConfig;

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(
        "{0} already holds a hub's keys; to start over, move it away (devices that pinned its root.json will not follow)"
    )]
    InUse(PathBuf),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl InitError {
    pub fn exit_code(&self) -> u8 {
        match self {
            InitError::InUse(_) | InitError::Io { .. } | InitError::Key(_) => 73,
            InitError::Publish(PublishError::Policy(_)) => 78,
            InitError::Store(_) | InitError::Publish(_) => 70,
        }
    }
}

pub async fn init(config: &HubConfig) -> Result<(), InitError> {
    let dir = &config.data_dir;
    if keys::any_exist(dir) || dir.join(TUF_DIR).exists() || dir.join(DATABASE_FILE).exists() {
        return Err(InitError::InUse(dir.clone()));
    }
    let io = |path: &PathBuf| {
        let path = path.clone();
        move |source| InitError::Io { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(io(dir))?;
    keys::create(dir)?;
    Store::open(&dir.join(DATABASE_FILE))?;
    let root = publisher::create(dir, config, unix_now()).await?;
    let pinned = dir.join("root.json");
    fs::copy(&root, &pinned).map_err(io(&pinned))?;
    println!("{}: ready", dir.display());
    println!("  pin this on every device:       {}", pinned.display());
    println!("  the operator's token is in:     {}", dir.join(TOKEN_FILE).display());
    println!("  keep a copy somewhere safe of:  {}", dir.join(keys::KEYS_DIR).display());
    Ok(())
}
