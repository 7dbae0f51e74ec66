//! The owner's page and its API (`api::admin`): HTTP on the LAN, behind a login. It shows and
//! passes on; it decides nothing about serving, and is never reachable from outside the home.

mod account;
mod assets;
mod events;
mod guard;
mod refusal;
mod routes;
mod sessions;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use axum::{Router, middleware};
use tokio::sync::{Semaphore, watch};

use crate::api::admin::{PauseRequest, RemovalRequest, Status};

pub const PASSWORD_CHARS_MIN: usize = 10;
/// As in the configuration: below it, no block would leave within a peer's patience.
const EGRESS_BYTES_PER_SECOND_MIN: u64 = 1024;
/// A week; who wants longer should decide to resume.
const PAUSE_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// A household's screens. Each costs a connection and a few kB a second.
const MAX_STREAMS: usize = 16;

/// The device, as the page needs it. Errors are one sentence for the owner.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// When the sender goes away, live streams end: do that before waiting for connections.
    fn status(&self) -> watch::Receiver<Status>;
    async fn set_limit(&self, bytes_per_second: u64) -> Result<Status, String>;
    async fn set_pause(&self, request: PauseRequest) -> Result<Status, String>;
    /// Takes a content off this device, or lets it come back.
    async fn remove(&self, request: RemovalRequest) -> Result<Status, String>;
}

/// Where the password's hash is kept. Called off the async threads.
pub trait Credentials: Send + Sync + 'static {
    /// `None` until a password was set: only then does the one-time code work.
    fn password_hash(&self) -> io::Result<Option<String>>;
    /// `phc` is an argon2id hash as a PHC string; it must be on disk when this returns.
    fn set_password_hash(&self, phc: &str) -> io::Result<()>;
}

pub struct AdminSettings {
    /// Names besides `localhost` under which the page answers.
    pub hosts: Vec<String>,
    /// Made by the caller at each start without a password; empty lets nobody in.
    pub setup_code: String,
    /// Where the page is served.
    pub local_addr: SocketAddr,
}

/// Serves the page on `listener` until the process ends.
pub async fn serve(
    listener: tokio::net::TcpListener,
    settings: AdminSettings,
    backend: Arc<dyn Backend>,
    credentials: Arc<dyn Credentials>,
) -> io::Result<()> {
    let router = router(settings, backend, credentials);
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`; without, it answers 500.
pub fn router(
    settings: AdminSettings,
    backend: Arc<dyn Backend>,
    credentials: Arc<dyn Credentials>,
) -> Router {
    let hosts = guard::Hosts::new(&settings.hosts, settings.local_addr);
    let shared = Shared {
        backend,
        account: Arc::new(account::Account::new(credentials, settings.setup_code)),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        cookie: format!("larder_session_{}", settings.local_addr.port()).into(),
    };
    Router::new()
        .nest("/api", routes::api(shared))
        .fallback(assets::serve)
        .layer(middleware::from_fn_with_state(hosts, guard::from_the_lan))
}

/// What the handlers have in common.
#[derive(Clone)]
struct Shared {
    backend: Arc<dyn Backend>,
    account: Arc<account::Account>,
    streams: Arc<Semaphore>,
    /// Named after the port: cookies do not tell two devices on one address apart.
    cookie: Arc<str>,
}
