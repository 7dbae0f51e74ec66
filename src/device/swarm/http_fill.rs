//! Filling from web seeds alone: runs of missing pieces in order, a few at a time. No BitTorrent
//! engine, no second copy over loopback, and each piece is hashed once, before it is written.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{FillError, progress::Progress, web_seed::WebSeeds};
use crate::logic::{bitfield::Bitfield, metainfo::Metainfo, units::MIB};

/// What one request asks for at most: large enough that requests cost nothing, small enough that a
/// few connections share a content fairly.
const RUN_BYTES: u64 = 16 * MIB;

/// Tells its end through `progress`.
pub(super) async fn run(seeds: Arc<WebSeeds>, progress: Arc<Progress>, stop: CancellationToken) {
    let runs = runs(&progress.missing(), progress.metainfo.piece_length);
    // Room for one: who fetches waits for the disk.
    let (out, mut pieces) = mpsc::channel(1);
    let connections = connections(&progress.metainfo);
    let fetch = stream::iter(runs)
        .map(move |run| {
            // A task, so that it goes on while a piece is being written.
            let (seeds, out) = (seeds.clone(), out.clone());
            let fetch = tokio::spawn(async move { seeds.fetch_run(run, out).await });
            let fetch = AbortOnDropHandle::new(fetch);
            async move { fetch.await.map_err(|_| FillError::Cancelled)? }
        })
        .buffer_unordered(connections)
        .try_for_each(|()| async { Ok(()) });
    let write = async {
        while let Some((piece, data)) = pieces.recv().await {
            store(progress.clone(), piece, data).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = stop.cancelled() => {}
        result = async { tokio::try_join!(fetch, write) } => if let Err(e) = result {
            progress.fail(e);
        }
    }
}

/// Missing pieces that follow each other, cut where a run's length is reached, counted from the
/// content's start so that each run of the disk is filled by one request.
fn runs(missing: &Bitfield, piece_length: u32) -> Vec<Range<u32>> {
    let run_of = |piece: u32| u64::from(piece) * u64::from(piece_length) / RUN_BYTES;
    let mut runs: Vec<Range<u32>> = Vec::new();
    for piece in missing.iter_held() {
        match runs.last_mut() {
            Some(run) if run.end == piece && run_of(run.start) == run_of(piece) => run.end += 1,
            _ => runs.push(piece..piece + 1),
        }
    }
    runs
}

/// How many requests at a time: each holds a piece in memory, and a router has little.
pub(super) fn connections(metainfo: &Metainfo) -> usize {
    const BUFFER_BYTES: u32 = 8 * 1024 * 1024;
    (BUFFER_BYTES / metainfo.piece_length).clamp(1, 4) as usize
}

/// Off the async threads: it may end with a sync of the disk.
async fn store(progress: Arc<Progress>, piece: u32, data: Bytes) -> Result<(), FillError> {
    let write = move || {
        progress.handed_over_by_web_seed(piece);
        progress.write_at(progress.metainfo.piece_offset(piece), &data)?;
        progress.piece_completed(piece)
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written.map_err(FillError::Sink),
        Err(_) => Err(FillError::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_what_is_missing_in_few_long_runs() {
        let mut missing = Bitfield::full(100);
        for held in [0, 1, 50] {
            missing.clear(held);
        }
        let mib = MIB as u32;
        assert_eq!(
            runs(&missing, mib),
            [2..16, 16..32, 32..48, 48..50, 51..64, 64..80, 80..96, 96..100]
        );
        assert_eq!(runs(&missing, 1024), [2..50, 51..100]);
        assert_eq!(runs(&Bitfield::full(3), 64 * mib), [0..1, 1..2, 2..3]);
        assert_eq!(runs(&Bitfield::empty(9), mib), []);
    }
}
