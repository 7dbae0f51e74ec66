//! What one fill has reached: which pieces are verified, where they came from, and the first thing
//! that went wrong. The only way to the sink; shut when the fill ends, so that nothing of the
//! BitTorrent engine that still runs can touch the content afterwards.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::{FillError, FillOutcome, FillSource, PieceSink};
use crate::logic::{bitfield::Bitfield, metainfo::Metainfo};

pub(super) struct Progress {
    pub metainfo: Arc<Metainfo>,
    /// `None` once the fill is over.
    sink: RwLock<Option<Arc<dyn PieceSink>>>,
    state: Mutex<State>,
    /// Payload bytes that arrived over HTTP, whatever became of them: a sign of life.
    fetched_bytes: AtomicU64,
    changed: Notify,
}

struct State {
    have: Bitfield,
    wanted: Bitfield,
    /// Pieces that the web seed has handed over whole.
    from_web_seed: Bitfield,
    outcome: FillOutcome,
    failure: Option<FillError>,
    /// What the last web seed was given up for, while peers may still bring the rest.
    web_seed_failure: Option<FillError>,
}

impl Progress {
    pub fn new(
        metainfo: Arc<Metainfo>,
        have: Bitfield,
        wanted: Bitfield,
        sink: Arc<dyn PieceSink>,
    ) -> Progress {
        let pieces = metainfo.piece_count();
        Progress {
            metainfo,
            sink: RwLock::new(Some(sink)),
            state: Mutex::new(State {
                have,
                wanted,
                from_web_seed: Bitfield::empty(pieces),
                outcome: FillOutcome::default(),
                failure: None,
                web_seed_failure: None,
            }),
            fetched_bytes: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// Wanted and not yet verified.
    pub fn missing(&self) -> Bitfield {
        let state = self.state.lock();
        let mut missing = state.wanted.clone();
        for piece in state.have.iter_held() {
            missing.clear(piece);
        }
        missing
    }

    /// The end of the fill, if it has come. Hands out a failure once.
    pub fn result(&self) -> Option<Result<FillOutcome, FillError>> {
        let mut state = self.state.lock();
        if let Some(failure) = state.failure.take() {
            return Some(Err(failure));
        }
        state.have.has_all_of(&state.wanted).then_some(Ok(state.outcome))
    }

    /// Returns when something may have changed since the last call. For one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Only the first failure counts: the others follow from it.
    pub fn fail(&self, error: FillError) {
        self.state.lock().failure.get_or_insert(error);
        self.changed.notify_one();
    }

    /// Not the end as long as there are peers.
    pub fn web_seeds_gave_up(&self, error: FillError) {
        self.state.lock().web_seed_failure = Some(error);
    }

    pub fn web_seed_failure(&self) -> Option<FillError> {
        self.state.lock().web_seed_failure.take()
    }

    pub fn count_fetched(&self, bytes: u64) {
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// The web seed has supplied the whole of a piece. Said before the piece can be complete.
    pub fn handed_over_by_web_seed(&self, piece: u32) {
        self.state.lock().from_web_seed.set(piece);
    }

    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with_sink(|sink| sink.read_at(offset, buf))
    }

    /// Refuses to touch pieces that are verified: they may be being served right now.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // librqbit writes in two slices, of which the second is often empty and may then lie at the
        // start of the next piece.
        if data.is_empty() {
            return Ok(());
        }
        if self.touches_verified(offset, data.len() as u64) {
            let why = "the piece is verified already and is not written again";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.with_sink(|sink| sink.write_at(offset, data))
    }

    /// The piece's hash has been checked against what is in the sink.
    pub fn piece_completed(&self, piece: u32) -> io::Result<()> {
        let source = {
            let state = self.state.lock();
            if state.have.has(piece) {
                return Ok(());
            }
            if state.from_web_seed.has(piece) { FillSource::WebSeed } else { FillSource::Peer }
        };
        self.with_sink(|sink| sink.piece_verified(piece, source))?;
        let bytes = u64::from(self.metainfo.piece_bytes(piece).unwrap_or(0));
        let mut state = self.state.lock();
        if state.have.set(piece) {
            match source {
                FillSource::WebSeed => state.outcome.web_seed_bytes += bytes,
                FillSource::Peer => state.outcome.peer_bytes += bytes,
            }
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for calls into the sink that are under way, and lets no further one through.
    pub fn shut(&self) {
        *self.sink.write() = None;
    }

    fn touches_verified(&self, offset: u64, length: u64) -> bool {
        let piece_length = u64::from(self.metainfo.piece_length);
        let end = (offset + length).div_ceil(piece_length);
        let state = self.state.lock();
        (offset / piece_length..end)
            .any(|piece| u32::try_from(piece).is_ok_and(|piece| state.have.has(piece)))
    }

    /// An error of the sink ends the fill.
    fn with_sink<T>(&self, call: impl FnOnce(&dyn PieceSink) -> io::Result<T>) -> io::Result<T> {
        let sink = self.sink.read();
        let Some(sink) = sink.as_deref() else {
            return Err(io::Error::other("the fill is over"));
        };
        call(sink).inspect_err(|e| self.fail(FillError::Sink(repeat(e))))
    }
}

/// `io::Error` cannot be cloned; the code is what `fault` and people need.
fn repeat(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
