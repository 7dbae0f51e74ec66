//! Filling from web seeds alone: the missing pieces in order, a few at a time. No BitTorrent engine,
//! no second copy over loopback, and each piece is hashed once, before it is written.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    FillError,
    progress::Progress,
    web_seed::{WebSeeds, pieces_at_once},
};

/// Reports its end through `progress`.
pub(super) async fn run(seeds: Arc<WebSeeds>, progress: Arc<Progress>, stop: CancellationToken) {
    let fetch_all = async {
        let missing: Vec<u32> = progress.have().iter_missing().collect();
        stream::iter(missing)
            .map(|piece| {
                let seeds = seeds.clone();
                async move { Ok::<_, FillError>((piece, seeds.fetch(piece).await?)) }
            })
            .buffered(pieces_at_once(&progress.metainfo))
            .try_for_each(|(piece, data)| {
                let progress = progress.clone();
                async move {
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
            })
            .await
    };
    tokio::select! {
        () = stop.cancelled() => {}
        result = fetch_all => if let Err(e) = result {
            progress.fail(e);
        }
    }
}
