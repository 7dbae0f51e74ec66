//! A downloader: takes a content from named peers and proves what it got. Uses librqbit's leecher,
//! which nobody here wrote, so that a fetch is also a test of what the device serves. Types of
//! librqbit stay in this file.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use librqbit::{
    AddTorrent, AddTorrentOptions, ManagedTorrent, PeerConnectionOptions, Session, SessionOptions,
};

/// A peer that is under a strict limit may take a while between two blocks.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot start the downloader: {0}")]
    Start(String),
    #[error("the download failed: {0}")]
    Failed(String),
    #[error("nothing came from the peers for {} seconds", .0.as_secs())]
    Stalled(Duration),
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Piece bytes taken from the network, repeated ones included.
    pub received_bytes: u64,
}

/// Downloads `torrent` (the `.torrent` file's bytes) into `folder`, from `peers` only: no tracker,
/// no DHT, no web seed. Gives up when nothing arrives for `patience`.
pub async fn fetch(
    torrent: Bytes,
    peers: Vec<SocketAddr>,
    folder: &Path,
    patience: Duration,
) -> Result<Fetched, FetchError> {
    let start = |e: &dyn std::fmt::Display| FetchError::Start(format!("{e:#}"));
    let session = Session::new_with_opts(
        folder.to_owned(),
        SessionOptions {
            dht: None,
            disable_trackers: true,
            disable_local_service_discovery: true,
            disable_upload: true,
            ..SessionOptions::default()
        },
    )
    .await
    .map_err(|e| start(&e))?;
    let added = session
        .add_torrent(
            AddTorrent::TorrentFileBytes(torrent),
            Some(AddTorrentOptions {
                initial_peers: Some(peers),
                disable_trackers: true,
                overwrite: true,
                output_folder: Some(folder.to_string_lossy().into_owned()),
                peer_opts: Some(PeerConnectionOptions {
                    read_write_timeout: Some(READ_TIMEOUT),
                    ..PeerConnectionOptions::default()
                }),
                ..AddTorrentOptions::default()
            }),
        )
        .await
        .map_err(|e| start(&e))?;
    let torrent = added.into_handle().ok_or_else(|| start(&"the torrent was not accepted"))?;
    let outcome = complete(&torrent, patience).await;
    let received_bytes = received(&torrent);
    session.stop().await;
    outcome.map(|()| Fetched { received_bytes })
}

async fn complete(torrent: &ManagedTorrent, patience: Duration) -> Result<(), FetchError> {
    let completed = torrent.wait_until_completed();
    tokio::pin!(completed);
    let mut before = 0;
    loop {
        match tokio::time::timeout(patience, &mut completed).await {
            Ok(outcome) => return outcome.map_err(|e| FetchError::Failed(format!("{e:#}"))),
            Err(_) if received(torrent) == before => return Err(FetchError::Stalled(patience)),
            Err(_) => before = received(torrent),
        }
    }
}

fn received(torrent: &ManagedTorrent) -> u64 {
    torrent.stats().live.map_or(0, |live| live.snapshot.fetched_bytes)
}
