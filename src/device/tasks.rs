//! What the node commands, carried out: each function runs as a task of its own and ends by sending
//! messages to the daemon. Waits on the network and the disk happen here, never in the daemon.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::Client;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    identity::Identity,
    keeper::Desk,
    message::{Message, Topic},
    serve::Servable,
    store::{ContentFile, Store, StoreError},
    swarm::{FillJob, FillSource, Filler, PieceSink},
    upstream::{self, AnnounceRequest, Hub, ListRepository, UpstreamError},
};
use crate::{
    api::{
        hub::{EnrolRequest, SourcesRequest, Statement, StatementRequest},
        signed::{Signed, SignedError},
    },
    logic::{
        bitfield::Bitfield,
        hotlist::{Entry, HotList},
        infohash::Infohash,
        metainfo::{MAX_METAINFO_BYTES, Metainfo},
        node::{AnnounceEvent, Event},
        now::UnixSeconds,
        units::MIB,
    },
};

/// Verified pieces go into the piece map when this much has come together, or this long after: what
/// a kill can cost a fill, against what each sync costs the flash.
const RECORD_BYTES: u64 = 8 * MIB;
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// What every task needs; cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub identity: Arc<Identity>,
    pub store: Store,
    pub http: Client,
    /// Nobody, when no hub is configured.
    pub operator: Option<Arc<Operator>>,
    pub filler: Arc<Filler>,
    pub keeper: Desk,
    pub messages: mpsc::Sender<Message>,
}

/// Whom this device works for.
pub struct Operator {
    pub hub: Hub,
    pub repository: Mutex<ListRepository>,
}

impl Context {
    /// The node asks for nothing that needs an operator when there is none.
    fn operator(&self) -> Result<&Operator, UpstreamError> {
        let none = || UpstreamError::Local("no hub is configured: set hub.url".into());
        self.operator.as_deref().ok_or_else(none)
    }

    pub async fn tell(&self, message: Message) {
        // Nobody listens only while the daemon stops; then nothing needs to be heard.
        let _ = self.messages.send(message).await;
    }

    async fn event(&self, event: Event) {
        self.tell(Message::Event(event)).await;
    }

    async fn contact(&self, topic: Topic, result: Result<Option<UnixSeconds>, &UpstreamError>) {
        self.tell(Message::Contact(topic, result.map_err(ToString::to_string))).await;
    }

    /// Runs blocking store work off the async threads.
    async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, UpstreamError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(|e| UpstreamError::Local(e.to_string())),
            Err(panic) => Err(UpstreamError::Local(panic.to_string())),
        }
    }
}

pub async fn enrol(context: Context, claim_code: String, now: UnixSeconds) {
    if claim_code.is_empty() {
        let problem = "this device is not enrolled: put the operator's claim code into \
                       hub.claim_code and start larderd again";
        context.tell(Message::Contact(Topic::Enrolment, Err(problem.into()))).await;
        return context.event(Event::EnrolFailed).await;
    }
    let request =
        EnrolRequest { claim_code, peer_id: context.identity.peer_id_hex(), created_at: now };
    let enrolled = match context.operator() {
        Ok(operator) => operator.hub.enrol(&Signed::new(&request, &context.identity.key)).await,
        Err(error) => Err(error),
    };
    match enrolled {
        Ok(answer) => {
            context.contact(Topic::Enrolment, Ok(Some(answer.server_time))).await;
            tracing::info!(device = answer.device, "enrolled with the operator");
            context.event(Event::Enrolled).await;
        }
        Err(error) => {
            context.contact(Topic::Enrolment, Err(&error)).await;
            context.event(Event::EnrolFailed).await;
        }
    }
}

pub async fn fetch_list(context: Context, held: Option<HotList>) {
    let fetched = match context.operator() {
        Ok(operator) => operator.repository.lock().await.fetch(held.as_ref()).await,
        Err(error) => Err(error),
    };
    match fetched {
        Ok(Some(fetched)) => {
            let (list, policy, valid_until) = (fetched.list, fetched.policy, fetched.valid_until);
            if held.as_ref().is_none_or(|held| held.epoch != list.epoch) {
                tracing::info!(
                    epoch = list.epoch,
                    entries = list.entries.len(),
                    "hot list verified"
                );
            }
            context.contact(Topic::List, Ok(None)).await;
            context.event(Event::ListVerified { list, policy, valid_until }).await;
        }
        Ok(None) => {
            context.contact(Topic::List, Ok(None)).await;
            context.event(Event::ListUnchanged).await;
        }
        Err(error) => {
            context.contact(Topic::List, Err(&error)).await;
            context.event(Event::ListFailed).await;
        }
    }
}

/// What the operator's documents say about reporting.
#[derive(Default)]
pub struct Terms {
    pub statement_keys: Vec<String>,
    pub listed: BTreeSet<Infohash>,
}

/// Sends every report that waits, then asks what they are worth.
pub async fn report(context: Context, now: UnixSeconds, terms: Terms) {
    match try_report(&context, now, terms).await {
        Ok(()) => context.event(Event::ReportsDelivered).await,
        Err(error) => {
            context.contact(Topic::Reports, Err(&error)).await;
            context.event(Event::ReportsFailed).await;
        }
    }
}

async fn try_report(
    context: &Context,
    now: UnixSeconds,
    terms: Terms,
) -> Result<(), UpstreamError> {
    let Terms { statement_keys, listed } = terms;
    let hub = &context.operator()?.hub;
    let identity = Arc::clone(&context.identity);
    context
        .stored(move |store| {
            let pinned = store.contents()?.into_iter().filter(|c| c.pinned).map(|c| c.infohash);
            let own = pinned.filter(|infohash| !listed.contains(infohash)).collect();
            while store.build_report(&identity.device, now, &identity.key, &own)?.is_some() {}
            Ok(())
        })
        .await?;
    for (number, signed) in context.stored(Store::unsent_reports).await? {
        let receipt = hub.report(&signed).await?;
        context.contact(Topic::Reports, Ok(Some(receipt.server_time))).await;
        context.stored(move |store| store.report_accepted(number)).await?;
    }
    let pending = context.stored(Store::unsent_reports).await?.len() as u64;
    let reported_bytes = context.stored(Store::reported_bytes).await?;
    context.tell(Message::Reported { reported_bytes, pending }).await;

    let month = now.hour().day().month();
    let request = StatementRequest {
        device: context.identity.device.clone(),
        month: month.to_string(),
        created_at: now,
    };
    let signed = hub.statement(&Signed::new(&request, &context.identity.key)).await?;
    let statement = open_statement(&signed, &statement_keys, &request)
        .map_err(|e| UpstreamError::Statement(e.to_string()))?;
    context.contact(Topic::Reports, Ok(None)).await;
    context.stored(move |store| store.save_statement(month, &signed)).await?;
    context.tell(Message::Settled(statement)).await;
    Ok(())
}

/// A statement counts only if the policy's key signed it, for this device and this month.
pub fn open_statement(
    signed: &Signed,
    statement_keys: &[String],
    request: &StatementRequest,
) -> Result<Statement, SignedError> {
    let statement: Statement = signed.open(statement_keys)?;
    if statement.device != request.device || statement.month != request.month {
        return Err(SignedError::Malformed("it is about another device or month".into()));
    }
    Ok(statement)
}

pub async fn announce(
    context: Context,
    entry: Entry,
    event: AnnounceEvent,
    port: u16,
    uploaded: u64,
) {
    let request = AnnounceRequest {
        infohash: entry.infohash,
        peer_id: context.identity.peer_id,
        port,
        uploaded,
        downloaded: entry.size_bytes,
        left: 0,
        event,
        tracker_tiers: &entry.tracker_tiers,
    };
    match upstream::announce(&context.http, &request).await {
        Ok(answer) => {
            if event != AnnounceEvent::None {
                tracing::info!(infohash = %entry.infohash, ?event, port, "announced");
            }
            let (infohash, interval) = (entry.infohash, answer.interval);
            if !answer.peers.is_empty() {
                context.tell(Message::Named { infohash, leechers: answer.peers }).await;
            }
            context.event(Event::Announced { infohash, interval }).await;
        }
        Err(error) => {
            tracing::warn!(infohash = %entry.infohash, "announce failed: {error}");
            context.event(Event::AnnounceFailed(entry.infohash)).await;
        }
    }
}

/// Fetches what is missing of a content, and has it served from the first verified piece on.
pub async fn fill(context: Context, entry: Entry, now: UnixSeconds, cancel: CancellationToken) {
    let infohash = entry.infohash;
    match try_fill(&context, entry, now, cancel.clone()).await {
        Ok(()) => {
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

async fn try_fill(
    context: &Context,
    entry: Entry,
    now: UnixSeconds,
    cancel: CancellationToken,
) -> Result<(), (String, bool)> {
    let local = |e: UpstreamError| (e.to_string(), true);
    let infohash = entry.infohash;
    let (metainfo, torrent_bytes) = metainfo(context, &entry).await?;
    // Ends after all that has the file open.
    let (_loan, content) = {
        let (metainfo, torrent_bytes) = (Arc::clone(&metainfo), torrent_bytes.clone());
        let keeper = context.keeper.clone();
        context
            .stored(move |store| {
                store.begin(&metainfo, &torrent_bytes)?;
                let loan = keeper.lend(infohash);
                Ok((loan, store.content(infohash)?))
            })
            .await
            .map_err(local)?
    };
    let stored =
        context.stored(move |store| store.stored_content(infohash)).await.map_err(local)?;
    let have = stored.map_or_else(|| Bitfield::empty(metainfo.piece_count()), |s| s.have);
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
    tracing::info!(
        name = entry.name, %infohash, missing = have.pieces() - have.held(),
        pieces = have.pieces(), peers = peers.len(), "filling"
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
        web_seeds: entry.web_seeds,
        peers,
        have,
        sink: Arc::clone(&sink) as Arc<dyn PieceSink>,
    };
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
    check_complete(context, infohash).await
}

/// While it was filled, something that was held before may have turned out to be damaged.
async fn check_complete(context: &Context, infohash: Infohash) -> Result<(), (String, bool)> {
    let stored = context.stored(move |store| store.stored_content(infohash)).await;
    let stored = stored.map_err(|e| (e.to_string(), true))?;
    if stored.is_some_and(|stored| !stored.have.is_complete()) {
        return Err(("some of what was held before has turned out to be damaged".into(), true));
    }
    Ok(())
}

/// From the store after a restart, else from the operator.
async fn metainfo(
    context: &Context,
    entry: &Entry,
) -> Result<(Arc<Metainfo>, Bytes), (String, bool)> {
    let infohash = entry.infohash;
    let stored = context
        .stored(move |store| store.torrent_bytes(infohash))
        .await
        .map_err(|e| (e.to_string(), true))?;
    let bytes = match stored {
        Some(bytes) => bytes,
        None => upstream::get(&context.http, &entry.metainfo_url, MAX_METAINFO_BYTES as u64)
            .await
            .map_err(|e| (e.to_string(), true))?,
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
