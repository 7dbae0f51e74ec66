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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::metainfo::{File, NewLayout, NewMetainfo};

    /// librqbit makes the files as soon as it knows their names, before anything was downloaded.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_in_a_torrent_leads_out_of_the_folder() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("in/here");
        std::fs::create_dir_all(&folder).expect("creates");
        let absolute = outer.path().join("absolute").display().to_string();
        let long = "x".repeat(5000);
        let hostile: [&[&str]; 6] = [
            &["..", "..", "evil"],
            &["../../evil"],
            &[&absolute],
            &["a\0b"],
            &[&long],
            &["sub", "..", "..", "..", "evil"],
        ];
        for path in hostile {
            let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
            let files = [
                File { path: path.clone(), length: 10 },
                File { path: vec!["plain".into()], length: 10 },
            ];
            let (torrent, _) = NewMetainfo {
                name: "..",
                piece_length: 16 * 1024,
                pieces: &[7; 20],
                layout: NewLayout::Directory { files: &files },
                private: false,
                tracker_tiers: &[],
                web_seeds: &[],
            }
            .encode();
            let nobody = vec!["127.0.0.1:1".parse().expect("an address")];
            let patience = Duration::from_millis(50);
            let result = fetch(torrent.into(), nobody, &folder, patience).await;
            assert!(result.is_err(), "{path:?}");
            let names = |path: &Path| -> Vec<_> {
                let entries = std::fs::read_dir(path).expect("lists");
                entries.map(|e| e.expect("is there").file_name()).collect()
            };
            assert_eq!(names(outer.path()), ["in"], "{path:?}");
            assert_eq!(names(&outer.path().join("in")), ["here"], "{path:?}");
        }
    }
}
