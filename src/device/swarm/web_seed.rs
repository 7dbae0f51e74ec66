//! Fetches runs of pieces from the operator's web seeds (BEP 19) with HTTP range requests, and checks
//! each piece against its hash before anyone else sees it. A web seed that is wrong is not used again
//! in this fill; one that is merely in trouble is asked again, from where it broke off.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
use url::Url;

use super::{
    FillError, FillSettings, Throttle,
    error::WebSeedProblem,
    http::{self, Ask, Validator},
    layout::{Span, file_url, first_span},
    progress::Progress,
};
use crate::{
    device::outbound::Outbound,
    logic::{backoff::Backoff, metainfo::Metainfo},
};

/// A server that is busy so often in a row, and delivers nothing in between, is left alone.
const BUSY_ANSWERS_MAX: u32 = 5;
/// After this many changes of a file its validators say nothing: some networks of caches give each
/// machine its own. The hashes go on telling right from wrong.
const CHANGES_MAX: u32 = 3;
/// Files of whose web seeds something is remembered; a device fills few at a time.
const MEMORIES_MAX: usize = 64;

/// What web seeds have done in earlier fills, by the URL of the file.
#[derive(Default)]
pub(super) struct Memories(Mutex<BTreeMap<Url, Memory>>);

#[derive(Clone, Debug, Default)]
struct Memory {
    /// The state of the file that did not verify: while it is the same, there is no need to look.
    poisoned: Validator,
    /// It asked to be left alone until then.
    busy_until: Option<Instant>,
}

/// What several fetches need to know, and what they learn.
pub(super) struct WebSeeds {
    outbound: Outbound,
    settings: FillSettings,
    progress: Arc<Progress>,
    throttle: Throttle,
    memories: Arc<Memories>,
    seeds: Vec<Seed>,
}

struct Seed {
    url: Url,
    state: Mutex<SeedState>,
}

#[derive(Default)]
struct SeedState {
    /// What it was given up for.
    given_up: Option<WebSeedProblem>,
    /// By file.
    validators: BTreeMap<usize, Validator>,
    changes: u32,
}

/// Verified pieces, on their way to the disk.
pub(super) type Pieces = mpsc::Sender<(u32, Bytes)>;

/// A run that is under way: the first piece that is still missing, and what there is of it.
struct Run {
    next: u32,
    end: u32,
    buffer: BytesMut,
}

/// What was asked for and has not come yet.
struct Reserved<'a> {
    throttle: &'a Throttle,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.throttle.refund(self.bytes);
    }
}

/// Why a run does not go on.
enum End {
    Seed(WebSeedProblem),
    /// Nobody takes the pieces any more: the fill is over.
    Over,
}

impl From<WebSeedProblem> for End {
    fn from(problem: WebSeedProblem) -> End {
        End::Seed(problem)
    }
}

impl WebSeeds {
    pub fn new(
        urls: Vec<Url>,
        outbound: Outbound,
        settings: FillSettings,
        progress: Arc<Progress>,
        throttle: Throttle,
        memories: Arc<Memories>,
    ) -> WebSeeds {
        let seeds = urls.into_iter().map(|url| Seed { url, state: Mutex::default() }).collect();
        WebSeeds { outbound, settings, progress, throttle, memories, seeds }
    }

    pub fn is_empty(&self) -> bool {
        self.seeds.is_empty()
    }

    pub fn rate(&self) -> Option<u64> {
        *self.throttle.rate().borrow()
    }

    /// A whole verified piece, from the first web seed that is still good.
    ///
    /// # Errors
    /// When none is good any more: the last one's problem.
    pub async fn fetch(&self, piece: u32) -> Result<Bytes, FillError> {
        let (out, mut pieces) = mpsc::channel(1);
        self.fetch_run(piece..piece + 1, out).await?;
        pieces.recv().await.map(|(_, data)| data).ok_or(FillError::Cancelled)
    }

    /// Pieces that follow each other, verified and in order. Where one web seed fails, the next goes
    /// on.
    pub async fn fetch_run(&self, pieces: Range<u32>, out: Pieces) -> Result<(), FillError> {
        let mut last = FillError::NoSource;
        let mut run = Run { next: pieces.start, end: pieces.end, buffer: BytesMut::new() };
        for seed in &self.seeds {
            let known = seed.state.lock().given_up.clone();
            let problem = match known {
                Some(problem) => problem,
                None => match self.run_from(seed, &mut run, &out).await {
                    Ok(()) => return Ok(()),
                    Err(End::Over) => return Err(FillError::Cancelled),
                    Err(End::Seed(problem)) => {
                        seed.give_up(&problem);
                        problem
                    }
                },
            };
            // What it sent of the piece is not trusted.
            run.buffer.clear();
            last = FillError::WebSeed { url: seed.url.clone(), problem };
        }
        Err(last)
    }

    async fn run_from(&self, seed: &Seed, run: &mut Run, out: &Pieces) -> Result<(), End> {
        let metainfo = &self.progress.metainfo;
        let settings = &self.settings;
        let mut backoff = Backoff::new(settings.retry_first, settings.retry_longest);
        let mut busy_answers = 0;
        while let Some(span) = run.span(metainfo) {
            let url = file_url(&seed.url, metainfo, span.file);
            self.wait_while_busy(&url).await?;
            let before = run.position(metainfo);
            let problem = match self.stream(seed, &url, &span, run, out).await {
                Ok(()) => {
                    backoff.succeeded();
                    busy_answers = 0;
                    continue;
                }
                Err(End::Seed(problem)) => problem,
                Err(over) => return Err(over),
            };
            match &problem {
                WebSeedProblem::Busy(wait) if busy_answers < BUSY_ANSWERS_MAX => {
                    busy_answers += 1;
                    self.memories.busy(&url, (*wait).max(settings.retry_first));
                    continue;
                }
                // Ends by itself: after a few changes nobody looks for them any more.
                WebSeedProblem::Changed => {
                    run.buffer.clear();
                    continue;
                }
                // A server that delivers nothing to speak of does not get its patience back.
                WebSeedProblem::Trickles => {}
                _ if run.position(metainfo) > before => backoff.succeeded(),
                _ => {}
            }
            if !problem.is_transient() || backoff.failures() + 1 >= settings.attempts_max {
                return Err(problem.into());
            }
            let wait = backoff.failed(&mut rand::rng());
            tracing::debug!("{url}: {problem}; again in {wait:?}");
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn wait_while_busy(&self, url: &Url) -> Result<(), WebSeedProblem> {
        let until = self.memories.of(url).busy_until;
        let wait = until.map_or(Duration::ZERO, |end| end.duration_since(Instant::now()));
        if wait > self.settings.busy_wait_max {
            return Err(WebSeedProblem::Busy(wait));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// One exchange: what it brings goes into the run, piece by piece.
    async fn stream(
        &self,
        seed: &Seed,
        url: &Url,
        span: &Span,
        run: &mut Run,
        out: &Pieces,
    ) -> Result<(), End> {
        let validator = seed.validator(span.file);
        let rate = *self.throttle.rate().borrow();
        let end =
            span.bytes.end.min(span.bytes.start.saturating_add(self.throttle.ask_bytes_max()));
        let bytes = span.bytes.start..end;
        self.throttle.reserve(end - bytes.start).await;
        let mut reserved = Reserved { throttle: &self.throttle, bytes: end - bytes.start };
        let ask =
            Ask { url: url.clone(), bytes, file_bytes: span.file_bytes, validator: &validator };
        let mut answer = match http::ask(&self.outbound, &self.settings, ask).await {
            Err(WebSeedProblem::Changed) => {
                seed.changed(span.file, &validator, Validator::default());
                return Err(WebSeedProblem::Changed.into());
            }
            answer => answer?,
        };
        let poisoned = self.memories.of(url).poisoned;
        if !poisoned.is_empty() && poisoned == answer.validator {
            return Err(WebSeedProblem::Poisoned { piece: run.next }.into());
        }
        if answer.validator.differs_from(&validator) {
            seed.changed(span.file, &validator, answer.validator);
            return Err(WebSeedProblem::Changed.into());
        }
        seed.learn(span.file, &answer.validator);
        while let Some(chunk) = answer.chunk().await? {
            self.progress.count_fetched(chunk.len() as u64);
            self.throttle.count(chunk.len() as u64);
            reserved.bytes = reserved.bytes.saturating_sub(chunk.len() as u64);
            let fed = self.feed(run, chunk, out).await;
            if let Err(End::Seed(WebSeedProblem::Poisoned { .. })) = &fed {
                self.memories.poisoned(url, answer.validator.clone());
            }
            fed?;
            if self.throttle.fell_from(rate) {
                // Closed, it stops coming at once; the rest is asked for in smaller pieces.
                return Ok(());
            }
        }
        Ok(())
    }

    async fn feed(&self, run: &mut Run, mut chunk: Bytes, out: &Pieces) -> Result<(), End> {
        let metainfo = &self.progress.metainfo;
        while !chunk.is_empty() && run.next < run.end {
            let piece = run.next;
            let length = metainfo.piece_bytes(piece).unwrap_or(0) as usize;
            if run.buffer.capacity() == 0 {
                run.buffer.reserve(length);
            }
            let part = chunk.split_to(chunk.len().min(length - run.buffer.len()));
            run.buffer.extend_from_slice(&part);
            if run.buffer.len() < length {
                return Ok(());
            }
            let data = std::mem::take(&mut run.buffer).freeze();
            if !verifies(metainfo.clone(), piece, data.clone()).await? {
                return Err(WebSeedProblem::Poisoned { piece }.into());
            }
            run.next += 1;
            out.send((piece, data)).await.map_err(|_| End::Over)?;
        }
        Ok(())
    }
}

async fn verifies(metainfo: Arc<Metainfo>, piece: u32, data: Bytes) -> Result<bool, End> {
    let hashed = tokio::task::spawn_blocking(move || metainfo.verifies(piece, &data));
    hashed.await.map_err(|_| End::Over)
}

impl Run {
    /// The first byte that is not there yet, in the content.
    fn position(&self, metainfo: &Metainfo) -> u64 {
        metainfo.piece_offset(self.next) + self.buffer.len() as u64
    }

    /// What to ask for next.
    fn span(&self, metainfo: &Metainfo) -> Option<Span> {
        let end = metainfo.piece_offset(self.end).min(metainfo.total_bytes);
        first_span(metainfo, self.position(metainfo)..end)
    }
}

impl Seed {
    fn give_up(&self, problem: &WebSeedProblem) {
        // Runs are fetched side by side: only the first says so.
        if self.state.lock().given_up.replace(problem.clone()).is_none() {
            tracing::warn!("web seed {}: {problem}", self.url);
        }
    }

    fn validator(&self, file: usize) -> Validator {
        let state = self.state.lock();
        match state.changes < CHANGES_MAX {
            true => state.validators.get(&file).cloned().unwrap_or_default(),
            false => Validator::default(),
        }
    }

    fn learn(&self, file: usize, validator: &Validator) {
        let mut state = self.state.lock();
        let known = state.validators.entry(file).or_default();
        if known.is_empty() {
            known.clone_from(validator);
        }
    }

    /// Several requests may notice the same change: it counts once.
    fn changed(&self, file: usize, before: &Validator, now: Validator) {
        let mut state = self.state.lock();
        if state.validators.get(&file) != Some(before) {
            return;
        }
        state.changes += 1;
        state.validators.insert(file, now);
        tracing::info!("web seed {}: the file has changed while it was fetched", self.url);
    }
}

impl Memories {
    fn of(&self, url: &Url) -> Memory {
        self.0.lock().get(url).cloned().unwrap_or_default()
    }

    fn poisoned(&self, url: &Url, validator: Validator) {
        self.remember(url, |memory| memory.poisoned = validator);
    }

    fn busy(&self, url: &Url, wait: Duration) {
        self.remember(url, |memory| memory.busy_until = Some(Instant::now() + wait));
    }

    fn remember(&self, url: &Url, change: impl FnOnce(&mut Memory)) {
        let mut memories = self.0.lock();
        if memories.len() >= MEMORIES_MAX && !memories.contains_key(url) {
            memories.pop_first();
        }
        change(memories.entry(url.clone()).or_default());
    }
}
