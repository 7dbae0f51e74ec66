//! The owner's page meets the daemon here: what the page may ask for becomes a message, and the
//! password lives in the store.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    admin::{Backend, Credentials},
    daemon::Daemon,
    message::{Message, Wish},
    store::Store,
};
use crate::{
    api::admin::{PauseRequest, RemovalRequest, Status},
    logic::governor::allowance::Pause,
};

const PASSWORD_HASH: &str = "admin_password_hash";
const SETUP_CODE: &str = "admin_setup_code";
/// Where an owner with a shell finds the code; readable by the daemon's user only.
pub const SETUP_CODE_FILE: &str = "setup-code";

pub struct OwnerBackend {
    pub status: watch::Receiver<Status>,
    pub messages: mpsc::Sender<Message>,
}

impl Daemon {
    /// A pause in wall time, for the next start: `None` is no pause, `u64::MAX` until resumed.
    pub(super) fn pause_wall(&self, pause: &Pause) -> Option<u64> {
        let now = self.clock.now();
        match (pause, now.wall.synced()) {
            (Pause::Off, _) => None,
            (Pause::Until(end), Some(wall)) => {
                Some(wall.0 + end.saturating_since(now.monotonic).as_secs())
            }
            _ => Some(u64::MAX),
        }
    }
}

impl OwnerBackend {
    async fn ask(&self, wish: Wish) -> Result<Status, String> {
        let (answer, answered) = oneshot::channel();
        let stopping = || "larderd is stopping".to_owned();
        self.messages.send(Message::Owner(wish, answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

#[async_trait]
impl Backend for OwnerBackend {
    fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn set_limit(&self, bytes_per_second: u64) -> Result<Status, String> {
        self.ask(Wish::Limit(bytes_per_second)).await
    }

    async fn set_pause(&self, request: PauseRequest) -> Result<Status, String> {
        self.ask(Wish::Pause(request)).await
    }

    async fn remove(&self, request: RemovalRequest) -> Result<Status, String> {
        self.ask(Wish::Removal(request)).await
    }
}

pub struct StoredCredentials {
    pub store: Store,
    pub data_dir: PathBuf,
}

impl Credentials for StoredCredentials {
    fn password_hash(&self) -> io::Result<Option<String>> {
        self.store.setting(PASSWORD_HASH).map_err(io::Error::other)
    }

    fn set_password_hash(&self, phc: &str) -> io::Result<()> {
        self.store.set_setting(PASSWORD_HASH, phc).map_err(io::Error::other)?;
        // The code has done its work. If the file stays behind, it opens nothing any more.
        let _ = std::fs::remove_file(self.data_dir.join(SETUP_CODE_FILE));
        Ok(())
    }
}

/// The one-time code for setting the password: made once, the same after a restart, gone when used.
pub fn setup_code(credentials: &StoredCredentials) -> io::Result<Option<String>> {
    if credentials.password_hash()?.is_some() {
        return Ok(None);
    }
    let store = &credentials.store;
    let code = match store.setting::<String>(SETUP_CODE).map_err(io::Error::other)? {
        Some(code) => code,
        None => {
            let code = new_code(&mut rand::rng());
            store.set_setting(SETUP_CODE, &code).map_err(io::Error::other)?;
            code
        }
    };
    write_private(&credentials.data_dir.join(SETUP_CODE_FILE), &code)?;
    Ok(Some(code))
}

/// Eight letters and digits that nobody mistakes for one another: 2^40 codes, five tries.
fn new_code(rng: &mut impl rand::Rng) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut code: String =
        (0..8).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
    code.insert(4, '-');
    code
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")
}
