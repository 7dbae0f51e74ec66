//! What one fill has reached: which pieces are verified, where they came from, and the first thing
//! that went wrong. The only way to the sink, in whole runs of the disk; shut when the fill ends, so
//! that nothing of the BitTorrent engine that still runs can touch the content afterwards.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::{FillError, FillOutcome, FillSource, PieceSink, gather::Gather};
use crate::logic::{bitfield::Bitfield, metainfo::Metainfo};

pub(super) struct Progress {
    pub metainfo: Arc<Metainfo>,
    /// `None` once the fill is over.
    sink: RwLock<Option<Arc<dyn PieceSink>>>,
    /// Locked before `state`, and while it writes: one run after the other is what flash likes.
    gather: Mutex<Gather>,
    telling: Mutex<()>,
    state: Mutex<State>,
    /// Payload bytes that arrived over HTTP, whatever became of them: a sign of life.
    fetched_bytes: AtomicU64,
    /// What of that went on to the engine over loopback.
    looped_bytes: AtomicU64,
    /// Payload bytes from peers, whatever became of them.
    peer_bytes: AtomicU64,
    changed: Notify,
}

struct State {
    /// Verified, whether on the disk yet or not.
    have: Bitfield,
    wanted: Bitfield,
    /// Verified, but in part still held back in `gather`; the sink hears of them later.
    gathered: Vec<(u32, FillSource)>,
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
        write_run_bytes: u64,
    ) -> Progress {
        let pieces = metainfo.piece_count();
        Progress {
            metainfo,
            sink: RwLock::new(Some(sink)),
            gather: Mutex::new(Gather::new(write_run_bytes)),
            telling: Mutex::new(()),
            state: Mutex::new(State {
                have,
                wanted,
                gathered: Vec::new(),
                from_web_seed: Bitfield::empty(pieces),
                outcome: FillOutcome::default(),
                failure: None,
                web_seed_failure: None,
            }),
            fetched_bytes: AtomicU64::new(0),
            looped_bytes: AtomicU64::new(0),
            peer_bytes: AtomicU64::new(0),
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
        let done = state.gathered.is_empty() && state.have.has_all_of(&state.wanted);
        done.then_some(Ok(state.outcome))
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

    pub fn count_looped(&self, bytes: u64) {
        self.looped_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn looped_bytes(&self) -> u64 {
        self.looped_bytes.load(Ordering::Relaxed)
    }

    pub fn peers_brought(&self, bytes: u64) {
        self.peer_bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn peer_bytes(&self) -> u64 {
        self.peer_bytes.load(Ordering::Relaxed)
    }

    /// The web seed has supplied the whole of a piece. Said before the piece can be complete.
    pub fn handed_over_by_web_seed(&self, piece: u32) {
        self.state.lock().from_web_seed.set(piece);
    }

    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let gather = self.gather.lock();
        self.with_sink(|sink| sink.read_at(offset, buf))?;
        gather.overlay(offset, buf);
        Ok(())
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
        {
            let mut gather = self.gather.lock();
            let write = |offset, data: &[u8]| self.with_sink(|sink| sink.write_at(offset, data));
            gather.take_in(offset, data, &|run| self.expected_bytes(run), &write)?;
        }
        self.tell_sink()
    }

    /// The piece's hash has been checked against what was written.
    pub fn piece_completed(&self, piece: u32) -> io::Result<()> {
        // Shut: its bytes may be gone.
        self.with_sink(|_| Ok(()))?;
        let all_there = {
            let mut state = self.state.lock();
            if !state.have.set(piece) {
                return Ok(());
            }
            let web = state.from_web_seed.has(piece);
            let source = if web { FillSource::WebSeed } else { FillSource::Peer };
            state.gathered.push((piece, source));
            state.have.has_all_of(&state.wanted)
        };
        if all_there {
            self.flush()?;
        }
        self.tell_sink()
    }

    fn flush(&self) -> io::Result<()> {
        let write = |offset, data: &[u8]| self.with_sink(|sink| sink.write_at(offset, data));
        self.gather.lock().flush(&write)
    }

    /// Tells of the verified pieces whose bytes have all been written.
    fn tell_sink(&self) -> io::Result<()> {
        // One at a time, and a piece leaves the list after the sink has heard of it: an empty list
        // means that the fill may end.
        let _telling = self.telling.lock();
        let ready = {
            let gather = self.gather.lock();
            let gathered = self.state.lock().gathered.clone();
            let is_written = |piece: u32| !gather.holds_any(&self.piece_range(piece));
            gathered.into_iter().filter(|(piece, _)| is_written(*piece)).collect::<Vec<_>>()
        };
        for (piece, source) in ready {
            self.with_sink(|sink| sink.piece_verified(piece, source))?;
            let bytes = u64::from(self.metainfo.piece_bytes(piece).unwrap_or(0));
            let mut state = self.state.lock();
            state.gathered.retain(|(gathered, _)| *gathered != piece);
            match source {
                FillSource::WebSeed => state.outcome.web_seed_bytes += bytes,
                FillSource::Peer => state.outcome.peer_bytes += bytes,
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for calls into the sink that are under way, writes what verified pieces still need, and
    /// lets no further call through.
    pub fn shut(&self) {
        // Of a sink that has failed nothing is expected.
        if !self.state.lock().gathered.is_empty() {
            let _ = self.flush().and_then(|()| self.tell_sink());
        }
        *self.sink.write() = None;
    }

    /// How much of these bytes this fill has yet to write.
    fn expected_bytes(&self, bytes: Range<u64>) -> u64 {
        let state = self.state.lock();
        let missing = |piece: &u32| state.wanted.has(*piece) && !state.have.has(*piece);
        let overlap = |piece: u32| {
            let piece = self.piece_range(piece);
            piece.end.min(bytes.end).saturating_sub(piece.start.max(bytes.start))
        };
        self.pieces_of(&bytes).filter(missing).map(overlap).sum()
    }

    fn touches_verified(&self, offset: u64, length: u64) -> bool {
        let state = self.state.lock();
        self.pieces_of(&(offset..offset + length)).any(|piece| state.have.has(piece))
    }

    fn pieces_of(&self, bytes: &Range<u64>) -> Range<u32> {
        let length = u64::from(self.metainfo.piece_length);
        let piece = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        piece(bytes.start / length)..piece(bytes.end.div_ceil(length))
    }

    fn piece_range(&self, piece: u32) -> Range<u64> {
        let start = self.metainfo.piece_offset(piece);
        start..start + u64::from(self.metainfo.piece_bytes(piece).unwrap_or(0))
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
