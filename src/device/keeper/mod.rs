//! The keeper: a thread beside the serving engine that lets pieces leave only while they are what the
//! metainfo says. It checks each before it is first served, keeps everyone from writing to a file that
//! is being served, and takes back what is damaged. It serves nothing and fills nothing.
//!
//! From a file that nobody can write to (it holds a lease on it, see fcntl(2)), what was checked may
//! leave again and again. From any other, blocks leave out of memory, from the very bytes that were
//! hashed. docs/adr/0027 says why.

mod desk;
mod kept;
mod round;
mod scrub;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::{
    desk::{Busy, Files, Task},
    kept::{Guard, Kept, Verdict},
    round::Round,
};
pub use self::{
    desk::{Desk, Loan, desk},
    scrub::Scrub,
};
use super::{
    message::{Found, Message},
    serve::{Remote, ServeCommand},
    store::{DiskTrouble, Store, is_gone},
};
use crate::logic::infohash::Infohash;

/// Files are looked at no more often than this: whether they are still where they were.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A piece that the disk did not give is asked for again after this.
const UNREADABLE_RETRY: Duration = Duration::from_secs(5);
/// So often in vain, and the piece is taken for lost, if the disk gives others.
const UNREADABLE_TRIES: u32 = 4;

pub struct Keeper {
    inbox: Receiver<Task>,
    files: Files,
    busy: Busy,
    store: Store,
    engine: Remote,
    messages: mpsc::Sender<Message>,
    kept: BTreeMap<Infohash, Kept>,
    /// Larder itself writes to these.
    lent: Vec<Infohash>,
    /// Peers wait for these.
    asked: VecDeque<(Infohash, u32)>,
    /// Whole contents that somebody may have changed.
    rounds: VecDeque<Round>,
    unreadable: Vec<Retry>,
    /// Damaged, but the piece map on disk does not say so yet.
    unmarked: Vec<(Infohash, u32)>,
    looked_at: Instant,
}

struct Retry {
    which: (Infohash, u32),
    at: Instant,
    tries: u32,
}

/// Why a content is not in our hands.
enum NotKept {
    /// Not held, or no longer.
    Gone,
    Trouble(io::Error),
}

impl Keeper {
    pub fn start(
        desk: &Desk,
        inbox: Receiver<Task>,
        store: Store,
        engine: Remote,
        messages: mpsc::Sender<Message>,
    ) -> io::Result<()> {
        let keeper = Keeper {
            inbox,
            files: desk.files(),
            busy: desk.busy(),
            store,
            engine,
            messages,
            kept: BTreeMap::new(),
            lent: vec![],
            asked: VecDeque::new(),
            rounds: VecDeque::new(),
            unreadable: vec![],
            unmarked: vec![],
            looked_at: Instant::now(),
        };
        thread::Builder::new().name("larder-keeper".into()).spawn(move || keeper.run())?;
        Ok(())
    }

    /// What peers wait for comes first, piece by piece; whatever is said meanwhile is heard in between.
    fn run(mut self) {
        loop {
            let wait = self.next_wait();
            let task = match wait {
                Some(Duration::ZERO) => self.inbox.try_recv().map_err(|e| match e {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                Some(wait) => self.inbox.recv_timeout(wait),
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match task {
                Ok(task) => self.while_busy(|keeper| keeper.handle(task)),
                Err(RecvTimeoutError::Timeout) => self.while_busy(Keeper::work),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn while_busy(&mut self, work: impl FnOnce(&mut Keeper)) {
        *self.busy.lock() = Some(Instant::now());
        work(self);
        *self.busy.lock() = None;
    }

    fn next_wait(&self) -> Option<Duration> {
        if !self.asked.is_empty() {
            return Some(Duration::ZERO);
        }
        let retries = self.unreadable.iter().map(|retry| retry.at);
        let next = retries.chain(self.rounds.iter().map(Round::due)).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, task: Task) {
        match task {
            Task::Check(infohash, piece) => self.ask(infohash, piece),
            Task::Withheld(infohash) => self.handle_withheld(infohash),
            Task::Guard(infohash) => {
                if let Ok(kept) = self.keep(infohash) {
                    kept.guard();
                }
            }
            Task::Lend(infohash, done) => {
                self.lend(infohash);
                // Whoever asked may have been cancelled.
                let _ = done.send(());
            }
            Task::Returned(infohash) => {
                self.lent.retain(|lent| *lent != infohash);
                if let Ok(kept) = self.keep(infohash) {
                    kept.is_lent = false;
                    kept.guard();
                }
            }
            Task::Forget(infohash) => self.forget(infohash),
            Task::LeaseWanted => self.look_at_leases(),
            Task::Rotten(infohash, piece) => {
                if let Some(kept) = self.kept.get(&infohash) {
                    kept.forget_cached(piece);
                }
                self.withdraw(infohash, piece);
                self.tell(Found::ToMend(infohash));
            }
            Task::Look => self.look(),
        }
    }

    fn ask(&mut self, infohash: Infohash, piece: u32) {
        let waits = self.asked.contains(&(infohash, piece))
            || self.unreadable.iter().any(|retry| retry.which == (infohash, piece));
        if !waits {
            self.asked.push_back((infohash, piece));
        }
    }

    /// One piece, or one step.
    fn work(&mut self) {
        if let Some((infohash, piece)) = self.asked.pop_front() {
            return self.check(infohash, piece);
        }
        let now = Instant::now();
        let due = self.unreadable.iter().find(|retry| retry.at <= now).map(|retry| retry.which);
        if let Some((infohash, piece)) = due {
            return self.check(infohash, piece);
        }
        self.go_round(now);
    }

    /// For a peer that waits.
    fn check(&mut self, infohash: Infohash, piece: u32) {
        let kept = match self.keep(infohash) {
            Ok(kept) => kept,
            Err(NotKept::Gone) => return,
            Err(NotKept::Trouble(error)) => {
                return self.handle_unreadable(infohash, piece, &error);
            }
        };
        if kept.guard == Guard::Breaking {
            kept.postponed.push(piece);
            return;
        }
        let verdict = if kept.guard() { kept.verify(piece) } else { kept.read(piece) };
        match verdict {
            Verdict::Good(bytes) => {
                self.engine.send(ServeCommand::Proven { infohash, piece, bytes });
                self.handle_readable(infohash, piece);
            }
            Verdict::Bad => {
                self.withdraw(infohash, piece);
                self.tell(Found::ToMend(infohash));
            }
            Verdict::Unreadable(error) => self.handle_unreadable(infohash, piece, &error),
        }
    }

    /// Peers wait on while the disk has trouble. What is unreadable again and again is lost.
    fn handle_unreadable(&mut self, infohash: Infohash, piece: u32, error: &io::Error) {
        let at = Instant::now() + UNREADABLE_RETRY;
        let which = (infohash, piece);
        let known = self.unreadable.iter().find(|retry| retry.which == which);
        let tries = known.map_or(0, |retry| retry.tries) + 1;
        self.unreadable.retain(|retry| retry.which != which);
        self.unreadable.push(Retry { which, at, tries });
        if tries == 1 {
            tracing::debug!(%infohash, piece, "a piece cannot be read: {error}");
            self.tell(Found::Unreadable(Some(DiskTrouble::of(error))));
        }
        if tries >= UNREADABLE_TRIES && self.kept.get(&infohash).is_some_and(Kept::reads_some) {
            self.withdraw(infohash, piece);
            self.tell(Found::ToMend(infohash));
        }
    }

    /// Or given up.
    fn handle_readable(&mut self, infohash: Infohash, piece: u32) {
        let before = self.unreadable.len();
        self.unreadable.retain(|retry| retry.which != (infohash, piece));
        if before > 0 && self.unreadable.is_empty() {
            self.tell(Found::Unreadable(None));
        }
    }

    /// Out of the engine at once, and out of the piece map.
    fn withdraw(&mut self, infohash: Infohash, piece: u32) {
        tracing::warn!(%infohash, piece, "a piece is damaged: it is not served until it is filled again");
        self.handle_readable(infohash, piece);
        self.engine.send(ServeCommand::Withdraw { infohash, pieces: vec![piece] });
        if let Err(error) = self.store.mark_damaged(infohash, &[piece]) {
            // After a restart it would be checked before it is served, too.
            tracing::error!(%infohash, piece, "cannot write down that it is damaged: {error}");
            self.unmarked.push((infohash, piece));
        }
        let bytes = self.kept.get(&infohash).map_or(0, |kept| kept.piece_bytes(piece));
        self.tell(Found::Damaged { infohash, bytes });
    }

    /// The content with its file open.
    fn keep(&mut self, infohash: Infohash) -> Result<&mut Kept, NotKept> {
        if !self.kept.contains_key(&infohash) {
            match Kept::open(&self.store, infohash) {
                Ok(Some(mut kept)) => {
                    kept.is_lent = self.lent.contains(&infohash);
                    self.files.insert(infohash, &kept.file);
                    self.kept.insert(infohash, kept);
                }
                Ok(None) => return Err(NotKept::Gone),
                Err(error) if is_gone(&error) => {
                    self.lose(infohash, &error);
                    return Err(NotKept::Gone);
                }
                Err(error) => return Err(NotKept::Trouble(error)),
            }
        }
        self.kept.get_mut(&infohash).ok_or(NotKept::Gone)
    }

    /// The file is gone, or is none any more.
    fn lose(&mut self, infohash: Infohash, why: &dyn std::fmt::Display) {
        tracing::error!(%infohash, "the content's file is gone ({why}); it will be filled again");
        self.forget(infohash);
        self.tell(Found::Lost(infohash));
    }

    fn forget(&mut self, infohash: Infohash) {
        self.files.remove(infohash);
        self.kept.remove(&infohash);
        self.asked.retain(|(of, _)| *of != infohash);
        self.unreadable.retain(|retry| retry.which.0 != infohash);
        self.rounds.retain(|round| round.infohash != infohash);
        self.unmarked.retain(|(of, _)| *of != infohash);
    }

    /// We are going to write to it ourselves: only where nothing is held, so what is on its way to peers
    /// can go on.
    fn lend(&mut self, infohash: Infohash) {
        self.lent.push(infohash);
        let Some(kept) = self.kept.get_mut(&infohash) else { return };
        kept.is_lent = true;
        if kept.guard != Guard::Open {
            self.engine.send(ServeCommand::Distrust { infohash });
            kept.unguard();
        }
    }

    /// Somebody who wants to write waits for us; the engine lets go of the file first.
    fn look_at_leases(&mut self) {
        for (infohash, kept) in &mut self.kept {
            if kept.is_wanted() {
                tracing::warn!(infohash = %infohash, "somebody opens the content's file for writing");
                kept.guard = Guard::Breaking;
                self.engine.send(ServeCommand::Withhold { infohash: *infohash });
            }
        }
    }

    /// From here on somebody else may write. All of it has to be looked at.
    fn handle_withheld(&mut self, infohash: Infohash) {
        let Some(kept) = self.kept.get_mut(&infohash) else { return };
        kept.unguard();
        let postponed = std::mem::take(&mut kept.postponed);
        if std::mem::take(&mut kept.replaced) {
            self.files.remove(infohash);
            self.kept.remove(&infohash);
        }
        self.begin_round(infohash);
        postponed.into_iter().for_each(|piece| self.ask(infohash, piece));
    }

    /// Now and then: whether each file is still the one that was opened, and can be guarded by now.
    fn look(&mut self) {
        if self.looked_at.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.looked_at = Instant::now();
        self.look_at_leases();
        let mut lost = vec![];
        let mut doubtful = vec![];
        for (infohash, kept) in &mut self.kept {
            match kept.look(&self.store, *infohash) {
                Ok(true) => {
                    if kept.guard() && std::mem::take(&mut kept.suspect) {
                        doubtful.push(*infohash);
                    }
                }
                Ok(false) if !kept.replaced => {
                    tracing::warn!(infohash = %infohash, "the content's file was replaced");
                    (kept.replaced, kept.guard) = (true, Guard::Breaking);
                    self.engine.send(ServeCommand::Withhold { infohash: *infohash });
                }
                Ok(false) => {}
                Err(error) if is_gone(&error) => lost.push((*infohash, error)),
                // A disk with trouble says so when a piece is read.
                Err(_) => {}
            }
        }
        lost.into_iter().for_each(|(infohash, error)| self.lose(infohash, &error));
        doubtful.into_iter().for_each(|infohash| self.begin_round(infohash));
        for (infohash, piece) in std::mem::take(&mut self.unmarked) {
            if self.store.mark_damaged(infohash, &[piece]).is_err() {
                self.unmarked.push((infohash, piece));
            }
        }
    }

    /// A daemon that stops does not listen any more.
    fn tell(&self, found: Found) {
        let _ = self.messages.blocking_send(Message::Found(found));
    }
}
