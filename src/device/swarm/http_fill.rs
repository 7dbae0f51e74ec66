//! Filling from web seeds alone: the missing pieces in order, a few at a time. No BitTorrent engine,
//! no second copy over loopback, and each piece is hashed once, before it is written.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    FillError,
    progress::Progress,
    web_seed::{WebSeeds, pieces_at_once},
};

/// Tells its end through `progress`.
pub(super) async fn run(seeds: Arc<WebSeeds>, progress: Arc<Progress>, stop: CancellationToken) {
    let missing: Vec<u32> = progress.missing().iter_held().collect();
    let fill = stream::iter(missing)
        .map(|piece| {
            // A task, so that it goes on while another piece is being written.
            let seeds = seeds.clone();
            let fetch = tokio::spawn(async move { seeds.fetch(piece).await });
            let fetch = AbortOnDropHandle::new(fetch);
            async move {
                let data = fetch.await.map_err(|_| FillError::Cancelled)??;
                Ok((piece, data))
            }
        })
        .buffered(pieces_at_once(&progress.metainfo))
        .try_for_each(|(piece, data)| store(progress.clone(), piece, data));
    tokio::select! {
        () = stop.cancelled() => {}
        result = fill => if let Err(e) = result {
            progress.fail(e);
        }
    }
}

/// Off the async threads: it ends with a sync of the disk.
async fn store(progress: Arc<Progress>, piece: u32, data: Bytes) -> Result<(), FillError> {
    let write = move || {
        progress.write_at(progress.metainfo.piece_offset(piece), &data)?;
        progress.handed_over_by_web_seed(piece);
        progress.piece_completed(piece)
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written.map_err(FillError::Sink),
        Err(_) => Err(FillError::Cancelled),
    }
}
