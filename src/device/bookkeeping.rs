//! Takes what the engine has served into the ledger: each second into the journal, so that a kill loses
//! no more than that, and every few seconds onto the disk, for the power cut. Part of the event loop:
//! nothing here waits.

use std::time::Duration;

use super::{
    clock::Clock,
    daemon::Daemon,
    message::Message,
    serve::ServeStats,
    store::{LedgerBreak, Store, StoreError},
    tasks::ReportTime,
};
use crate::{
    api::signed::SigningKey,
    logic::{
        ledger::dating::{KnownTime, Stamp},
        now::Monotonic,
        usage::{UsageDelta, UsageLine},
    },
};

/// While there is something to count, it is taken and kept this often: with what the rounds take
/// themselves, a kill loses less than a second.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(900);
/// What has been kept for so long is synced at the next round. With the round itself a power cut loses
/// less than five seconds, and steady serving syncs 13 frames of 4 KiB a minute.
const SYNC_AFTER: Duration = Duration::from_millis(3_500);

/// What is on its way into the ledger.
#[derive(Default)]
pub struct Bookkeeping {
    /// Taken from the engine, not yet in the ledger.
    unsaved: Vec<UsageDelta>,
    saving: bool,
    syncing: bool,
    /// When the last of either began.
    writing_since: Option<Monotonic>,
    /// Since when the oldest count waits for a sync.
    unsynced_since: Option<Monotonic>,
    /// The engine's counters when its usage was last taken.
    asked_at: ServeStats,
    ledger_break: Option<LedgerBreak>,
    save_problem: Option<String>,
    sync_problem: Option<String>,
}

/// What goes into the ledger at once.
pub struct Round {
    stamp: Stamp,
    /// For lines that nobody pays yet: what is likely.
    likely: Option<KnownTime>,
    known: Option<KnownTime>,
    deltas: Vec<UsageDelta>,
}

/// What came of it.
#[derive(Debug)]
pub struct Saved {
    pub lines: Vec<UsageLine>,
    /// All lines of this month anew, because older ones were dated.
    pub month: Option<Vec<UsageLine>>,
}

impl Bookkeeping {
    /// Looks whether the ledger is as `key` left it, and forgets what is old where nobody is paid.
    pub fn open(store: &Store, key: &SigningKey, clock: &Clock) -> Result<Bookkeeping, StoreError> {
        let ledger_break = store.verify_ledger(&key.public_hex())?;
        if let Some(found) = ledger_break {
            tracing::error!("{found}");
        }
        if let Some(known) = clock.known() {
            store.prune(known.now.hour(), |_| !clock.has_operator())?;
        }
        Ok(Bookkeeping { ledger_break, ..Bookkeeping::default() })
    }

    /// Nothing is waiting to be written.
    pub fn is_quiet(&self, stats: ServeStats) -> bool {
        let idle = !self.saving && !self.syncing && self.unsynced_since.is_none();
        idle && self.unsaved.is_empty() && stats == self.asked_at
    }

    /// Since when the disk has not answered.
    pub fn writing_since(&self) -> Option<Monotonic> {
        self.writing_since.filter(|_| self.saving || self.syncing)
    }

    /// For the owner's page.
    pub fn problem(&self) -> Option<String> {
        match self.save_problem.as_ref().or(self.sync_problem.as_ref()) {
            Some(problem) => Some(format!("cannot write the ledger: {problem}")),
            None => self.ledger_break.map(|found| found.to_string()),
        }
    }

    fn log(&self, problem: &str) {
        if self.save_problem.is_none() && self.sync_problem.is_none() {
            tracing::error!("cannot write the ledger, will go on trying: {problem}");
        }
    }
}

impl Daemon {
    pub(super) fn keep_books(&mut self) {
        self.save();
        self.sync();
    }

    pub(super) fn handle_saved(&mut self, result: Result<Saved, (Vec<UsageDelta>, String)>) {
        self.bookkeeping.saving = false;
        match result {
            Ok(saved) => {
                self.bookkeeping.save_problem = None;
                if let Some(month) = saved.month {
                    self.books.replace(&month);
                }
                self.books.add(&saved.lines);
                self.tell_what_was_served(&saved.lines);
            }
            Err((deltas, problem)) => {
                self.bookkeeping.log(&problem);
                self.bookkeeping.save_problem = Some(problem);
                self.bookkeeping.unsaved.extend(deltas);
            }
        }
        self.sync();
    }

    pub(super) fn handle_synced(&mut self, result: Result<(), String>) {
        self.bookkeeping.syncing = false;
        if let Err(problem) = &result {
            self.bookkeeping.log(problem);
            self.bookkeeping.unsynced_since.get_or_insert(self.clock.now().monotonic);
        }
        self.bookkeeping.sync_problem = result.err();
    }

    fn save(&mut self) {
        let stats = self.engine.stats();
        // An idle engine is not woken to say that it did nothing. A connection that has closed since
        // has settled its last blocks then, without sending anything more.
        let served = stats.peers_connected > 0 || stats != self.bookkeeping.asked_at;
        let round = self.round(vec![]);
        let store = &self.context.store;
        let to_date = round.known.is_some() && store.has_undated();
        if self.bookkeeping.saving || (!served && !to_date && self.bookkeeping.unsaved.is_empty()) {
            return;
        }
        self.bookkeeping.asked_at = stats;
        let mut deltas = std::mem::take(&mut self.bookkeeping.unsaved);
        if served {
            deltas.extend(self.engine.take_usage());
        }
        if deltas.is_empty() && !to_date {
            return;
        }
        if !deltas.is_empty() {
            self.bookkeeping.unsynced_since.get_or_insert(self.clock.now().monotonic);
        }
        self.bookkeeping.saving = true;
        self.bookkeeping.writing_since = Some(self.clock.now().monotonic);
        let (context, round) = (self.context.clone(), Round { deltas, ..round });
        tokio::spawn(async move {
            let store = context.store.clone();
            if let Ok(result) = tokio::task::spawn_blocking(move || save(&store, round)).await {
                context.tell(Message::Saved(result)).await;
            }
        });
    }

    fn round(&self, deltas: Vec<UsageDelta>) -> Round {
        let likely = self.clock.now().wall.synced().map(|now| self.clock.known_if(now));
        Round { stamp: self.clock.stamp(), likely, known: self.clock.known(), deltas }
    }

    /// Not while counts are being added: what is synced then would be only a part.
    fn sync(&mut self) {
        let now = self.clock.now().monotonic;
        let books = &mut self.bookkeeping;
        let due = |since: &mut Monotonic| now.saturating_since(*since) >= SYNC_AFTER;
        if books.saving || books.syncing || books.unsynced_since.take_if(due).is_none() {
            return;
        }
        books.syncing = true;
        books.writing_since = Some(now);
        let context = self.context.clone();
        tokio::spawn(async move {
            let store = context.store.clone();
            if let Ok(result) = tokio::task::spawn_blocking(move || store.sync_usage()).await {
                context.tell(Message::Synced(result.map_err(|e| e.to_string()))).await;
            }
        });
    }

    pub(super) fn report_time(&self) -> ReportTime {
        ReportTime {
            likely: self.clock.now().wall.synced().unwrap_or_default(),
            confirmed: self.clock.known().map(|known| known.now),
        }
    }

    /// At stop, for [`Round::close`]: what was taken and is not in the ledger yet.
    pub(super) async fn last_round(&mut self) -> Round {
        while self.bookkeeping.saving {
            match self.inbox.recv().await {
                Some(Message::Saved(result)) => self.handle_saved(result),
                Some(_) => {}
                None => break,
            }
        }
        let deltas = std::mem::take(&mut self.bookkeeping.unsaved);
        self.round(deltas)
    }
}

impl Round {
    /// With the engine's last word, into the database.
    pub(super) fn close(mut self, store: &Store, last: Vec<UsageDelta>) {
        self.deltas.extend(last);
        let saved = save(store, self).map_err(|(_, problem)| problem);
        let checkpoint = || store.checkpoint_usage().map_err(|e| e.to_string());
        if let Err(problem) = saved.and_then(|_| checkpoint()) {
            tracing::error!("the last second's counts are lost: {problem}");
        }
    }
}

/// What was counted before the time was known is dated as soon as it is.
fn save(store: &Store, round: Round) -> Result<Saved, (Vec<UsageDelta>, String)> {
    let written = || -> Result<Option<Vec<UsageLine>>, StoreError> {
        let mut month = None;
        if let Some(known) = round.known.filter(|_| store.has_undated())
            && store.date_undated(&known)? > 0
        {
            month = Some(month_lines(store, &known)?);
        }
        store.add_usage(round.stamp, &round.deltas)?;
        Ok(month)
    };
    match written() {
        Ok(month) => {
            let mut lines = vec![];
            if let Some(likely) = round.likely {
                let hour = likely.now.hour();
                lines.extend(round.deltas.iter().map(|d| UsageLine {
                    infohash: d.infohash,
                    hour,
                    class: d.class,
                    usage: d.usage,
                }));
            }
            Ok(Saved { lines, month })
        }
        Err(error) => Err((round.deltas, error.to_string())),
    }
}

/// The ledger's lines of the month in which `likely` is, those without a date among them.
pub fn month_lines(store: &Store, likely: &KnownTime) -> Result<Vec<UsageLine>, StoreError> {
    let hours = likely.now.hour().day().month().hours();
    let mut lines = store.usage_between(hours.start, hours.end)?;
    let undated = store.undated_lines(likely)?;
    lines.extend(undated.into_iter().filter(|line| hours.contains(&line.hour)));
    Ok(lines)
}
