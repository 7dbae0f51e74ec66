//! `larder-hub run`: opens the data folder, serves, and goes without losing anything.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    disk, http,
    keys::{self, KeyName},
    reflector,
    state::{Hub, HubError},
};
use crate::{
    api::endpoints::{ENDPOINTS_FILE, HubEndpoints},
    config::hub::HubConfig,
};

/// How late an ended lease may leave the list.
const TICK: Duration = Duration::from_secs(5);
/// Requests in flight get this long when the hub is told to stop; downloads resume elsewhere.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0} has no keys of a hub; run `larder-hub init --data-dir {0}` first")]
    NotInitialised(PathBuf),
    #[error("another larder-hub is running with {0}; stop it first")]
    Running(PathBuf),
    #[error("cannot listen on {address}: {source}; change `listen` or stop what uses it")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Hub(Box<HubError>),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
}

impl From<HubError> for RunError {
    fn from(error: HubError) -> RunError {
        RunError::Hub(Box::new(error))
    }
}

impl RunError {
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::NotInitialised(_) => 78,
            RunError::Running(_) => 75,
            RunError::Listen { .. } => 69,
            RunError::Io { .. } => 74,
            RunError::Hub(_) | RunError::Signals(_) => 70,
        }
    }
}

pub async fn run(config: HubConfig) -> Result<(), RunError> {
    let dir = config.data_dir.clone();
    if !KeyName::Statement.path(&dir).exists() || !keys::any_exist(&dir) {
        return Err(RunError::NotInitialised(dir));
    }
    let _lock = lock(&dir)?;
    let listening = |source| RunError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listening)?;
    let bound = listener.local_addr().map_err(listening)?;
    let public_url = with_real_port(&config.public_url, bound);
    let reflector = match config.reflector.listen {
        Some(address) => {
            let listening = |source| RunError::Listen { address, source };
            Some(reflector::bind(address).await.map_err(listening)?)
        }
        None => None,
    };
    let hub = Hub::open(&config, public_url).await?;

    let stopping = hub.stopping.clone();
    let ticking = tokio::spawn(tick(hub.clone(), stopping.clone()));
    let serving = tokio::spawn(http::serve(listener, http::router(hub.clone()), stopping.clone()));
    let reflecting = reflector.map(|socket| tokio::spawn(reflector::serve(socket)));
    let endpoints = Endpoints::write(&dir, &hub)?;
    tracing::info!(listen = %bound, public_url = %hub.addresses.public_url(), "ready");

    wait_for_signal().await.map_err(RunError::Signals)?;
    tracing::info!("stopping");
    drop(endpoints);
    stopping.cancel();
    if let Some(reflecting) = reflecting {
        reflecting.abort();
    }
    let drained = tokio::time::timeout(DRAIN_LIMIT, serving).await;
    if drained.is_err() {
        tracing::info!("some transfers were still going on");
    }
    ticking.await.map_err(HubError::Task)?;
    hub.save_origin_usage().await?;
    match drained {
        Ok(Err(error)) => Err(HubError::Task(error).into()),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

async fn tick(hub: Arc<Hub>, stopping: CancellationToken) {
    while tokio::time::timeout(TICK, stopping.cancelled()).await.is_err() {
        if let Err(error) = hub.tick().await {
            tracing::error!("the list could not be kept up to date: {error}");
        }
    }
}

async fn wait_for_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Held as long as the file is open; the system lets go of it when the process dies.
fn lock(dir: &Path) -> Result<fs::File, RunError> {
    let path = dir.join("hub.lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| RunError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RunError::Running(dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(RunError::Io { path, source }),
    }
}

fn with_real_port(url: &Url, bound: SocketAddr) -> Url {
    let mut url = url.clone();
    if url.port() == Some(0) {
        // Cannot fail: the URL has a host, or it could not have a port.
        let _ = url.set_port(Some(bound.port()));
    }
    url
}

/// `endpoints.json` while it exists.
struct Endpoints(PathBuf);

impl Endpoints {
    fn write(dir: &Path, hub: &Hub) -> Result<Endpoints, RunError> {
        let path = dir.join(ENDPOINTS_FILE);
        let endpoints = HubEndpoints {
            pid: std::process::id(),
            hub_url: hub.addresses.public_url().to_string(),
        };
        let text = serde_json::to_vec(&endpoints).expect("our own types serialise");
        disk::replace(&path, &text)
            .map_err(|source| RunError::Io { path: path.clone(), source })?;
        Ok(Endpoints(path))
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
