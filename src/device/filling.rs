//! Carries out `Command::Fill`: brings the metainfo, makes room, has the filler bring the pieces, and
//! hands each on to the piece map and to the serving engine. Decides neither what to fill nor when.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    keeper::Loan,
    message::Message,
    quiet::Quiet,
    serve::Servable,
    store::{ContentFile, Store, StoreError},
    swarm::{FillJob, FillSource, PieceSink},
    tasks::Context,
    upstream::{self, UpstreamError},
};
use crate::{
    api::{hub::SourcesRequest, signed::Signed},
    logic::{
        bitfield::Bitfield,
        hotlist::Entry,
        infohash::Infohash,
        metainfo::{MAX_METAINFO_BYTES, Metainfo},
        node::Event,
        now::UnixSeconds,
        placement::Part,
        units::MIB,
    },
};

/// Verified pieces go into the piece map when this much has come together, or this long after: what
/// a kill can cost a fill, against what each sync costs the flash.
const RECORD_BYTES: u64 = 8 * MIB;
const RECORD_INTERVAL: Duration = Duration::from_secs(5);

/// Fetches what is missing of a content, and has it served from the first verified piece on.
pub async fn fill(
    context: Context,
    entry: Entry,
    (part, bytes_max): (Part, u64),
    clock: Clock,
    cancel: CancellationToken,
) {
    let infohash = entry.infohash;
    let quiet = Quiet {
        rules: Arc::clone(&context.fill_rules),
        throttle: context.filler.throttle().clone(),
        clock,
    };
    match fill_in_windows(&context, &entry, (part, bytes_max), &quiet, &cancel).await {
        Ok(Extent::UpToTheBudget) => context.event(Event::FillPaused(infohash)).await,
        Ok(Extent::All) => {
            tracing::info!(%infohash, "filled and verified");
            context.event(Event::FillCompleted(infohash)).await;
        }
        // Whoever cancelled knows.
        Err(_) if cancel.is_cancelled() => {}
        Err((problem, retryable)) => {
            tracing::warn!(%infohash, "fill stopped: {problem}");
            context.event(Event::FillFailed { infohash, problem, retryable }).await;
        }
    }
}

/// What went wrong, and whether the same may succeed later.
type Failure = (String, bool);

/// How far a fill has come.
enum Extent {
    All,
    UpToTheBudget,
}

/// As many runs as the owner's hours make of it; each goes on where the last one ended.
async fn fill_in_windows(
    context: &Context,
    entry: &Entry,
    (part, bytes_max): (Part, u64),
    quiet: &Quiet,
    cancel: &CancellationToken,
) -> Result<Extent, Failure> {
    let mut purse = Purse { bytes_max, held_bytes_max: None };
    loop {
        tokio::select! {
            () = quiet.wait_for_window(context, entry.infohash) => {}
            () = cancel.cancelled() => return Err(("cancelled".into(), true)),
        }
        let now = quiet.clock.now().wall.synced().unwrap_or_default();
        // The loan ends after all that has the file open.
        let (job, sink, _loan, extent) = prepare(context, entry, part, &mut purse, now).await?;
        let window = cancel.child_token();
        let run = run(context, job, &sink, window.clone());
        tokio::pin!(run);
        tokio::select! {
            ended = &mut run => return ended.map(|()| extent),
            () = quiet.steer() => {}
        }
        window.cancel();
        match run.await {
            Err(_) if !cancel.is_cancelled() => {}
            ended => return ended.map(|()| extent),
        }
    }
}

/// Finds out what there is and what is missing, takes the room, and has served what is there.
async fn prepare(
    context: &Context,
    entry: &Entry,
    part: Part,
    purse: &mut Purse,
    now: UnixSeconds,
) -> Result<(FillJob, Arc<Sink>, Loan, Extent), Failure> {
    let local = |e: UpstreamError| (e.to_string(), true);
    let infohash = entry.infohash;
    let (metainfo, torrent_bytes) = metainfo(context, entry).await?;
    let (loan, part, content) = {
        let (metainfo, torrent_bytes) = (Arc::clone(&metainfo), torrent_bytes.clone());
        let keeper = context.keeper.clone();
        context
            .stored(move |store| {
                let loan = keeper.lend(infohash);
                let part = store.begin(&metainfo, &torrent_bytes, part)?;
                Ok((loan, part, store.content(infohash)?))
            })
            .await
            .map_err(local)?
    };
    let stored =
        context.stored(move |store| store.stored_content(infohash)).await.map_err(local)?;
    let have = stored.map_or_else(|| Bitfield::empty(metainfo.piece_count()), |s| s.have);
    let all = part.pieces(metainfo.piece_length, metainfo.total_bytes);
    let wanted = purse.affords(&all, &have, &metainfo);
    let extent = if wanted == all { Extent::All } else { Extent::UpToTheBudget };
    context
        .tell(Message::Servable(Servable {
            infohash,
            piece_length: metainfo.piece_length,
            total_bytes: metainfo.total_bytes,
            info_bytes: metainfo.info_bytes.as_slice().into(),
            have: have.clone(),
        }))
        .await;
    let peers = sources(context, infohash, now).await;
    let missing = wanted.iter_held().filter(|piece| !have.has(*piece)).count();
    tracing::info!(
        name = entry.name, %infohash, missing, pieces = have.pieces(), peers = peers.len(), "filling"
    );
    let sink = Arc::new(Sink {
        infohash,
        metainfo: Arc::clone(&metainfo),
        content,
        store: context.store.clone(),
        messages: context.messages.clone(),
        unrecorded: parking_lot::Mutex::default(),
    });
    let job = FillJob {
        metainfo,
        torrent_bytes,
        web_seeds: entry.web_seeds.clone(),
        peers,
        have,
        wanted,
        sink: Arc::clone(&sink) as Arc<dyn PieceSink>,
    };
    Ok((job, sink, loan, extent))
}

/// What the owner's budgets leave for this fill, over all of its runs.
struct Purse {
    bytes_max: u64,
    /// With what was held when the first run began.
    held_bytes_max: Option<u64>,
}

impl Purse {
    /// Of the pieces that are wanted, those that are there and as many more as may be filled.
    fn affords(&mut self, wanted: &Bitfield, have: &Bitfield, metainfo: &Metainfo) -> Bitfield {
        let bytes_of = |piece| metainfo.piece_bytes(piece).map_or(0, u64::from);
        let mut held_bytes: u64 = have.iter_held().map(bytes_of).sum();
        let fresh = held_bytes.saturating_add(self.bytes_max);
        let held_bytes_max = *self.held_bytes_max.get_or_insert(fresh);
        let mut affordable = Bitfield::empty(wanted.pieces());
        for piece in wanted.iter_held() {
            if !have.has(piece) {
                if held_bytes.saturating_add(bytes_of(piece)) > held_bytes_max {
                    continue;
                }
                held_bytes += bytes_of(piece);
            }
            affordable.set(piece);
        }
        affordable
    }
}

async fn run(
    context: &Context,
    job: FillJob,
    sink: &Arc<Sink>,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let outcome = {
        let fill = context.filler.fill(job, cancel);
        tokio::pin!(fill);
        let mut record = tokio::time::interval(RECORD_INTERVAL);
        loop {
            tokio::select! {
                outcome = &mut fill => break outcome,
                // A failure keeps the pieces for the next try; the last one decides.
                _ = record.tick() => drop(sink.record_off_thread().await),
            }
        }
    };
    let recorded = sink.record_off_thread().await;
    outcome.map_err(|e| (e.to_string(), e.is_retryable()))?;
    recorded.map_err(|e| (e.to_string(), true))?;
    check_complete(context, sink.infohash).await
}

/// While it was filled, something that was held before may have turned out to be damaged.
async fn check_complete(context: &Context, infohash: Infohash) -> Result<(), (String, bool)> {
    let stored = context.stored(move |store| store.stored_content(infohash)).await;
    let stored = stored.map_err(|e| (e.to_string(), true))?;
    if stored.is_some_and(|stored| !stored.is_complete()) {
        return Err(("some of what was held before has turned out to be damaged".into(), true));
    }
    Ok(())
}

/// From the store after a restart, else from the operator.
async fn metainfo(context: &Context, entry: &Entry) -> Result<(Arc<Metainfo>, Bytes), Failure> {
    let infohash = entry.infohash;
    let stored = context
        .stored(move |store| store.torrent_bytes(infohash))
        .await
        .map_err(|e| (e.to_string(), true))?;
    let bytes = match stored {
        Some(bytes) => bytes,
        None => {
            upstream::get_outside(&context.outbound, &entry.metainfo_url, MAX_METAINFO_BYTES as u64)
                .await
                .map_err(|e| (e.to_string(), true))?
        }
    };
    let metainfo =
        Metainfo::parse_expecting(&bytes, infohash).map_err(|e| (e.to_string(), false))?;
    if metainfo.total_bytes != entry.size_bytes {
        let problem = format!(
            "the hot list says {} bytes, the metainfo {}: the operator must publish it again",
            entry.size_bytes, metainfo.total_bytes
        );
        return Err((problem, false));
    }
    Ok((Arc::new(metainfo), bytes.into()))
}

/// Other Larder devices that hold it. Without them the web seed does the work, so failure is fine.
async fn sources(
    context: &Context,
    infohash: Infohash,
    now: UnixSeconds,
) -> Vec<std::net::SocketAddr> {
    let Ok(operator) = context.operator() else { return vec![] };
    let device = context.identity.device.clone();
    let request = SourcesRequest { device, infohash, created_at: now };
    match operator.hub.sources(&Signed::new(&request, &context.identity.key)).await {
        Ok(answer) => answer.peers,
        Err(error) => {
            tracing::debug!(%infohash, "no peers to fill from: {error}");
            vec![]
        }
    }
}

/// Where a fill's bytes go: the content's file, then the piece map, then the serving engine. The
/// piece map is written for several pieces at once: each time costs the flash a sync.
struct Sink {
    infohash: Infohash,
    metainfo: Arc<Metainfo>,
    content: Arc<ContentFile>,
    store: Store,
    messages: mpsc::Sender<Message>,
    /// Verified and written, but not yet in the piece map: a kill now means fetching them again.
    unrecorded: parking_lot::Mutex<Vec<(u32, FillSource)>>,
}

impl Sink {
    /// Forces the data to the disk, then puts the pieces into the map, then has them served.
    fn record(&self) -> Result<(), StoreError> {
        let mut unrecorded = self.unrecorded.lock();
        let bytes_from = |source| -> u64 {
            let of_source = unrecorded.iter().filter(|(_, s)| *s == source);
            of_source.map(|(piece, _)| self.piece_bytes(*piece)).sum()
        };
        let (web_seed, peers) = (bytes_from(FillSource::WebSeed), bytes_from(FillSource::Peer));
        let pieces: Vec<u32> = unrecorded.iter().map(|(piece, _)| *piece).collect();
        self.store.mark_verified(self.infohash, &pieces, web_seed, peers)?;
        for (piece, source) in unrecorded.drain(..) {
            let bytes = self.piece_bytes(piece);
            self.tell(Message::PieceVerified { infohash: self.infohash, piece, source, bytes });
        }
        Ok(())
    }

    async fn record_off_thread(self: &Arc<Self>) -> Result<(), StoreError> {
        let sink = Arc::clone(self);
        match tokio::task::spawn_blocking(move || sink.record()).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn piece_bytes(&self, piece: u32) -> u64 {
        self.metainfo.piece_bytes(piece).map_or(0, u64::from)
    }

    /// The inbox is full only when the daemon is behind; the piece map has it either way.
    fn tell(&self, message: Message) {
        if let Err(mpsc::error::TrySendError::Full(message)) = self.messages.try_send(message) {
            let messages = self.messages.clone();
            tokio::spawn(async move { messages.send(message).await });
        }
    }
}

impl PieceSink for Sink {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.content.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.content.write_at(offset, data)
    }

    fn piece_verified(&self, piece: u32, source: FillSource) -> io::Result<()> {
        let unrecorded_bytes: u64 = {
            let mut unrecorded = self.unrecorded.lock();
            unrecorded.push((piece, source));
            unrecorded.iter().map(|(piece, _)| self.piece_bytes(*piece)).sum()
        };
        match unrecorded_bytes >= RECORD_BYTES {
            true => self.record().map_err(io::Error::other),
            false => Ok(()),
        }
    }
}
