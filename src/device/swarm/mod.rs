//! Fills: brings the missing pieces of a content from the operator's web seeds and from other
//! devices, and hands each over once its hash has been checked. Knows no database and no plan: where
//! bytes go and what a verified piece means is the sink's business.
//!
//! With web seeds alone, pieces are fetched over HTTP and written. With peers, librqbit's `Session`
//! picks pieces and talks to the peers, and the web seeds appear to it as one more peer on loopback
//! (`seed_peer`), so that there is one piece picker; that peer offers nothing while others deliver.
//! What arrives is written in whole runs of the disk (`gather`), and no faster than the rate
//! (`throttle`). librqbit never uploads here, has no listener,
//! DHT, tracker, LSD or PEX, and goes away with the fill.

mod engine;
mod error;
mod gather;
mod http;
mod http_fill;
mod layout;
mod progress;
mod seed_peer;
mod storage;
mod throttle;
mod web_seed;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::{
    error::{FillError, WebSeedProblem},
    throttle::Throttle,
};
use self::{
    progress::Progress,
    web_seed::{Memories, WebSeeds},
};
use super::outbound::Outbound;
use crate::logic::{bitfield::Bitfield, metainfo::Metainfo, units::MIB};

/// Where a fill puts what it gets. Offsets count over all files of the torrent in order.
pub trait PieceSink: Send + Sync {
    /// Fills `buf` or fails.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Called once for each piece, after its hash was checked. An error ends the fill.
    fn piece_verified(&self, piece: u32, source: FillSource) -> io::Result<()>;
}

/// Who supplied a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FillSource {
    WebSeed,
    Peer,
}

#[derive(Clone, Debug)]
pub struct FillSettings {
    /// For small files of librqbit's; need not survive a restart.
    pub scratch_dir: PathBuf,
    /// A fill for which nothing arrives in this time ends.
    pub stall_timeout: Duration,
    /// Of peers.
    pub connect_timeout: Duration,
    /// Between two chunks of a web seed's answer, and for a few of them together.
    pub read_timeout: Duration,
    /// Failed attempts in a row after which a web seed is given up for this fill.
    pub attempts_max: u32,
    pub retry_first: Duration,
    pub retry_longest: Duration,
    /// A web seed that asks for more time than this is not waited for.
    pub busy_wait_max: Duration,
    /// Once peers have brought too little for so long, the web seed steps in.
    pub hold_back: Duration,
    /// Writes are gathered until they fill such a run of the disk: an erase block, or several.
    pub write_run_bytes: u64,
}

impl FillSettings {
    pub fn new(scratch_dir: PathBuf) -> FillSettings {
        FillSettings {
            scratch_dir,
            stall_timeout: Duration::from_secs(90),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempts_max: 5,
            retry_first: Duration::from_millis(500),
            retry_longest: Duration::from_secs(8),
            busy_wait_max: Duration::from_secs(30),
            hold_back: Duration::from_secs(5),
            write_run_bytes: MIB,
        }
    }
}

pub struct FillJob {
    pub metainfo: Arc<Metainfo>,
    /// The `.torrent` file that `metainfo` was read from.
    pub torrent_bytes: Bytes,
    pub web_seeds: Vec<Url>,
    /// Enrolled devices only: we never fill from strangers.
    pub peers: Vec<SocketAddr>,
    /// Verified earlier; neither fetched nor written again.
    pub have: Bitfield,
    /// What this fill is to bring; of the rest nothing is fetched, and nothing is missed.
    pub wanted: Bitfield,
    pub sink: Arc<dyn PieceSink>,
}

/// Payload of the pieces that this fill added, by source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FillOutcome {
    pub web_seed_bytes: u64,
    pub peer_bytes: u64,
}

/// How often a running fill is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between fills it holds next to nothing: an idle device pays nothing for it.
pub struct Filler {
    settings: FillSettings,
    outbound: Outbound,
    throttle: Throttle,
    memories: Arc<Memories>,
}

impl Filler {
    pub fn new(settings: FillSettings, outbound: Outbound, throttle: Throttle) -> Filler {
        Filler { settings, outbound, throttle, memories: Arc::default() }
    }

    /// What has come from outside since the start, over HTTP and from peers.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// Returns when all wanted pieces are there, or the first failure that the fill cannot go on after.
    /// What was verified until then stays verified. Once this returns, or is dropped, the sink is
    /// not called any more.
    pub async fn fill(
        &self,
        job: FillJob,
        cancel: CancellationToken,
    ) -> Result<FillOutcome, FillError> {
        let progress = Arc::new(Progress::new(
            job.metainfo.clone(),
            job.have,
            job.wanted,
            job.sink,
            self.settings.write_run_bytes,
        ));
        if let Some(result) = progress.result() {
            return result;
        }
        if job.web_seeds.is_empty() && job.peers.is_empty() {
            return Err(FillError::NoSource);
        }
        let running = Running { stop: CancellationToken::new(), progress: progress.clone() };
        let seeds = Arc::new(WebSeeds::new(
            job.web_seeds,
            self.outbound.clone(),
            self.settings.clone(),
            progress.clone(),
            self.throttle.clone(),
            self.memories.clone(),
        ));

        let mut engine = None;
        if !job.peers.is_empty() {
            let start = engine::Start {
                settings: &self.settings,
                torrent_bytes: job.torrent_bytes,
                peers: job.peers,
                seeds: seeds.clone(),
                progress: progress.clone(),
                rate: *self.throttle.rate().borrow(),
                stop: running.stop.clone(),
            };
            match engine::Engine::start(start).await {
                Ok(started) => engine = Some(started),
                Err(e) if seeds.is_empty() => return Err(e),
                Err(e) => tracing::warn!("{e}; filling from the web seed alone"),
            }
        }
        if engine.is_none() {
            tokio::spawn(http_fill::run(seeds, progress.clone(), running.stop.clone()));
        }
        self.watch(&progress, engine.as_ref(), &cancel).await
    }

    /// Waits for the end: done, failed, cancelled or stalled.
    async fn watch(
        &self,
        progress: &Progress,
        engine: Option<&engine::Engine>,
        cancel: &CancellationToken,
    ) -> Result<FillOutcome, FillError> {
        let mut tick = tokio::time::interval(LOOK_EVERY.min(self.settings.stall_timeout / 20));
        let mut rate = self.throttle.rate();
        let mut last_sign = (Instant::now(), 0);
        let mut from_peers = 0;
        loop {
            if let Some(result) = progress.result() {
                return result;
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(FillError::Cancelled),
                () = progress.changed() => {}
                _ = tick.tick() => {
                    if let Some(engine) = engine {
                        engine.check()?;
                        engine.follow(*rate.borrow_and_update());
                    }
                }
            }
            let peers =
                engine.map_or(0, |e| e.fetched_bytes().saturating_sub(progress.looped_bytes()));
            self.throttle.count(peers.saturating_sub(from_peers));
            from_peers = from_peers.max(peers);
            progress.peers_brought(from_peers);
            let arrived = progress.fetched_bytes() + from_peers;
            if arrived > last_sign.1 {
                last_sign = (Instant::now(), arrived);
            } else if last_sign.0.elapsed() >= self.settings.stall_timeout {
                return Err(progress
                    .web_seed_failure()
                    .unwrap_or(FillError::Stalled(self.settings.stall_timeout)));
            }
        }
    }
}

/// Ends whatever the fill has started, also when its future is dropped.
struct Running {
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.progress.shut();
    }
}

#[cfg(test)]
mod tests;
