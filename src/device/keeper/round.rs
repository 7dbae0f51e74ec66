//! Looking through a whole content after somebody may have changed it, piece by piece and behind
//! everything that peers wait for.

use std::time::{Duration, Instant};

use super::{Found, Keeper, NotKept, ServeCommand, UNREADABLE_RETRY, Verdict, kept::Guard};
use crate::logic::infohash::Infohash;

/// Whoever opened the file is given time to finish: until then, little that is found would last.
const WRITER_RETRY: Duration = Duration::from_millis(200);
const WRITER_TRIES: u32 = 15;

pub(super) struct Round {
    pub infohash: Infohash,
    next: u32,
    not_before: Instant,
    tries: u32,
    found_damage: bool,
}

impl Round {
    pub fn due(&self) -> Instant {
        self.not_before
    }
}

impl Keeper {
    /// From the first piece, whatever an earlier round has seen.
    pub(super) fn begin_round(&mut self, infohash: Infohash) {
        let before = self.rounds.iter().position(|round| round.infohash == infohash);
        let before = before.and_then(|at| self.rounds.remove(at));
        self.rounds.push_back(Round {
            infohash,
            next: 0,
            not_before: Instant::now(),
            tries: 0,
            found_damage: before.is_some_and(|round| round.found_damage),
        });
    }

    /// One piece of the round that is due.
    pub(super) fn go_round(&mut self, now: Instant) {
        let Some(at) = self.rounds.iter().position(|round| round.due() <= now) else { return };
        let Some(mut round) = self.rounds.remove(at) else { return };
        let infohash = round.infohash;
        let kept = match self.keep(infohash) {
            Ok(kept) => kept,
            Err(NotKept::Gone) => return,
            Err(NotKept::Trouble(_)) => {
                round.not_before = now + UNREADABLE_RETRY;
                return self.rounds.push_back(round);
            }
        };
        let guarded = kept.guard();
        let awaits_writer = !guarded && round.tries < WRITER_TRIES;
        if awaits_writer || kept.guard == Guard::Breaking {
            round.tries += 1;
            round.not_before = now + WRITER_RETRY;
            return self.rounds.push_back(round);
        }
        if round.next >= kept.pieces() {
            // What was written after its piece was looked at is found once nobody can write.
            kept.suspect = !guarded;
            if round.found_damage {
                self.tell(Found::ToMend(infohash));
            }
            return;
        }
        let piece = round.next;
        round.next += 1;
        self.look_through(&mut round, piece, guarded);
        self.rounds.push_front(round);
    }

    fn look_through(&mut self, round: &mut Round, piece: u32, guarded: bool) {
        let infohash = round.infohash;
        if !self.is_held(infohash, piece) {
            return;
        }
        let Some(kept) = self.kept.get_mut(&infohash) else { return };
        match kept.verify(piece) {
            Verdict::Good(_) if guarded => {
                self.engine.send(ServeCommand::Proven { infohash, piece, bytes: None });
            }
            Verdict::Good(_) => {}
            // A piece that is being filled just now is not held.
            Verdict::Bad if self.is_held(infohash, piece) => {
                self.withdraw(infohash, piece);
                round.found_damage = true;
            }
            Verdict::Bad => {}
            Verdict::Unreadable(error) => self.handle_unreadable(infohash, piece, &error),
        }
    }

    /// By the piece map on disk.
    fn is_held(&self, infohash: Infohash, piece: u32) -> bool {
        let stored = self.store.stored_content(infohash).ok().flatten();
        stored.is_some_and(|stored| stored.have.has(piece))
    }
}
