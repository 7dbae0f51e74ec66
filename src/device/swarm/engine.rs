//! One librqbit session for one fill: told exactly which peers to talk to and which pieces are there
//! already, and allowed nothing else. Its types stay in this file and in `storage`.

use std::{
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroU32,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use librqbit::{
    AddTorrent, AddTorrentOptions, ManagedTorrent, ManagedTorrentState, PeerConnectionOptions,
    Session, SessionOptions, SessionPersistenceConfig, dht::Id20, storage::StorageFactoryExt,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    FillError, FillSettings, http_fill::connections, progress::Progress, seed_peer::SeedPeer,
    storage::SinkFactory, web_seed::WebSeeds,
};
use crate::logic::{bitfield::Bitfield, metainfo::BLOCK_BYTES};

/// So that a fill never holds more connections than a router likes, and that each has its own run of
/// the disk in the making (see `gather`).
const PEERS_MAX: usize = 10;
/// librqbit's limiter begins anew with each change, a second's bytes in hand: spare it small steps.
const RATE_STEP_PERCENT: u64 = 20;
/// It ends a torrent whose second has no room for a block.
const RATE_MIN: u32 = 2 * BLOCK_BYTES;
/// A peer may be slow for once; librqbit's own ten seconds cut those that serve many.
const PEER_SILENCE: Duration = Duration::from_secs(30);
/// Data that did not verify, as a multiple of what was missing, after which peers are not worth it.
const WASTE_FACTOR_MAX: u64 = 2;
/// Before that multiple counts: content of a few pieces is lost in one bad one.
const WASTE_BYTES_MIN: u64 = 64 * 1024 * 1024;

pub(super) struct Start<'a> {
    pub settings: &'a FillSettings,
    pub torrent_bytes: Bytes,
    pub peers: Vec<SocketAddr>,
    pub seeds: Arc<WebSeeds>,
    pub progress: Arc<Progress>,
    pub rate: Option<u64>,
    pub stop: CancellationToken,
}

pub(super) struct Engine {
    session: Arc<Session>,
    /// As librqbit was told last.
    rate: Mutex<Option<u64>>,
    torrent: Arc<ManagedTorrent>,
    missing_bytes: u64,
    _scratch: TempDir,
}

impl Engine {
    pub async fn start(start: Start<'_>) -> Result<Engine, FillError> {
        let Start { settings, torrent_bytes, mut peers, seeds, progress, rate, stop } = start;
        peers.truncate(PEERS_MAX);
        let peer_id = random_peer_id();
        let scratch = prepare_scratch(&settings.scratch_dir, &progress, &peers)
            .map_err(|e| FillError::Engine(format!("cannot write its scratch files: {e}")))?;
        let failed = |e: anyhow::Error| FillError::Engine(format!("{e:#}"));
        let options = session_options(scratch.path(), peer_id, stop.child_token());
        let session =
            Session::new_with_opts(scratch.path().to_owned(), options).await.map_err(failed)?;

        if !seeds.is_empty() {
            let others = !peers.is_empty();
            let seed_peer = SeedPeer {
                seeds,
                progress: progress.clone(),
                client_peer_id: peer_id,
                others,
                hold_back: settings.hold_back,
            };
            peers.insert(0, seed_peer.start(stop).await?);
        }
        let window = connections(&progress.metainfo)
            * progress.metainfo.piece_length.div_ceil(BLOCK_BYTES) as usize;
        let options = AddTorrentOptions {
            overwrite: true,
            output_folder: Some(scratch.path().to_string_lossy().into_owned()),
            initial_peers: Some(peers),
            peer_opts: Some(PeerConnectionOptions {
                connect_timeout: Some(settings.connect_timeout),
                read_write_timeout: Some(PEER_SILENCE),
                max_request_window: Some(window),
                ..PeerConnectionOptions::default()
            }),
            storage_factory: Some(SinkFactory(progress.clone()).boxed()),
            ..AddTorrentOptions::default()
        };
        let torrent = session
            .add_torrent(AddTorrent::from_bytes(torrent_bytes), Some(options))
            .await
            .map_err(failed)?
            .into_handle()
            .ok_or_else(|| FillError::Engine("it did not take the torrent".into()))?;
        let missing_bytes = missing_bytes(&progress);
        let engine =
            Engine { session, rate: Mutex::new(None), torrent, missing_bytes, _scratch: scratch };
        engine.follow(rate);
        Ok(engine)
    }

    /// Payload bytes from peers, the web seed's on loopback included, whatever became of them.
    pub fn fetched_bytes(&self) -> u64 {
        self.torrent.live().map_or(0, |live| live.stats_snapshot().fetched_bytes)
    }

    /// Holds all peers together to the rate, the web seed's on loopback included.
    pub fn follow(&self, bytes_per_second: Option<u64>) {
        let mut told = self.rate.lock();
        let is_small_step = match (*told, bytes_per_second) {
            (Some(told), Some(rate)) => told.abs_diff(rate) * 100 <= told * RATE_STEP_PERCENT,
            (told, rate) => told == rate,
        };
        if is_small_step {
            return;
        }
        *told = bytes_per_second;
        let limit =
            bytes_per_second.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX).max(RATE_MIN));
        self.session.ratelimits.set_download_bps(limit.and_then(NonZeroU32::new));
    }

    /// Whether it makes sense to go on.
    pub fn check(&self) -> Result<(), FillError> {
        self.torrent.with_state(|state| match state {
            ManagedTorrentState::Error(e) => Err(FillError::Engine(format!("{e:#}"))),
            _ => Ok(()),
        })?;
        let allowed_bytes =
            self.missing_bytes + (self.missing_bytes * WASTE_FACTOR_MAX).max(WASTE_BYTES_MIN);
        let fetched_bytes = self.fetched_bytes();
        if fetched_bytes > allowed_bytes {
            return Err(FillError::BadPeers { wasted_bytes: fetched_bytes - self.missing_bytes });
        }
        Ok(())
    }
}

fn missing_bytes(progress: &Progress) -> u64 {
    let bytes = |piece| u64::from(progress.metainfo.piece_bytes(piece).unwrap_or(0));
    progress.missing().iter_held().map(bytes).sum()
}

fn session_options(scratch: &Path, peer_id: [u8; 20], stop: CancellationToken) -> SessionOptions {
    SessionOptions {
        dht: None,
        disable_trackers: true,
        disable_local_service_discovery: true,
        listen: None,
        disable_upload: true,
        // Peers tell of others (PEX) and librqbit believes them: the list is what keeps strangers out.
        allowlist_url: Some(format!("file://{}", scratch.join(ALLOWED).display())),
        // The piece map that `prepare_scratch` wrote stands in for hashing everything again.
        persistence: Some(SessionPersistenceConfig::Json { folder: Some(scratch.to_owned()) }),
        fastresume: true,
        peer_id: Some(Id20::new(peer_id)),
        peer_limit: Some(PEERS_MAX + 1),
        cancellation_token: Some(stop),
        client_name_and_version: Some(concat!("larderd ", env!("CARGO_PKG_VERSION")).to_owned()),
        ..SessionOptions::default()
    }
}

const ALLOWED: &str = "allowed-peers";

/// What librqbit is told that it has: all that it is not to fetch, as it can select files but no
/// pieces. It uploads nothing, so that nobody is promised what is not there.
fn not_missing(progress: &Progress) -> Bitfield {
    let missing = progress.missing();
    let mut map = Bitfield::full(missing.pieces());
    for piece in missing.iter_held() {
        map.clear(piece);
    }
    map
}

/// librqbit takes these two from files only: which pieces are there, and whom it may talk to.
fn prepare_scratch(
    folder: &Path,
    progress: &Progress,
    peers: &[SocketAddr],
) -> io::Result<TempDir> {
    std::fs::create_dir_all(folder)?;
    let scratch = tempfile::Builder::new().prefix("fill-").tempdir_in(folder)?;
    let map = scratch.path().join(format!("{}.bitv", progress.metainfo.infohash));
    std::fs::write(map, not_missing(progress).as_bytes())?;
    let mut allowed = std::fs::File::create(scratch.path().join(ALLOWED))?;
    writeln!(allowed, "web-seed:127.0.0.1-127.0.0.1")?;
    for ip in peers.iter().map(SocketAddr::ip) {
        writeln!(allowed, "peer:{ip}-{ip}")?;
    }
    Ok(scratch)
}

/// Not the device's own id: this one only receives, and is known to nobody but the loopback peer.
fn random_peer_id() -> [u8; 20] {
    let mut id = *b"-LR0100-............";
    for byte in &mut id[8..] {
        *byte = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
            [rand::random_range(0..62)];
    }
    id
}
