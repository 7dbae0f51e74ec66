//! Whether a peer uses its place: it takes blocks, or waits for a turn that it has not wasted.
//! Judges only; who loses a place to whom is `admission`'s business.

use std::time::Duration;

use crate::logic::now::Monotonic;

/// How long a peer may take nothing although it could, before somebody else may have its place: a few
/// round trips to say what it wants, and time for an interested one to ask.
pub const IDLE_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Or it is too early to tell.
    InUse,
    /// It could take, and has not since then.
    Idle { since: Monotonic },
}

/// What a peer has done with its turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merit {
    /// When it last took a part of a block; before the first, when it came or had its first turn.
    useful_at: Monotonic,
    took: bool,
    /// It has had a turn and took nothing in it; from then on new turns earn it no more patience.
    wasted: bool,
}

impl Merit {
    pub fn new(now: Monotonic) -> Merit {
        Merit { useful_at: now, took: false, wasted: false }
    }

    pub fn handle_turn_began(&mut self, now: Monotonic) {
        self.took = false;
        if !self.wasted {
            self.useful_at = now;
        }
    }

    pub fn handle_took(&mut self, now: Monotonic) {
        *self = Merit { useful_at: now, took: true, wasted: false };
    }

    pub fn handle_turn_ended(&mut self) {
        self.wasted |= !self.took;
    }

    pub fn standing(&self, waits_for_turn: bool, now: Monotonic) -> Standing {
        let waits = waits_for_turn && !self.wasted;
        if waits || now.saturating_since(self.useful_at) < IDLE_AFTER {
            return Standing::InUse;
        }
        Standing::Idle { since: self.useful_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    const IDLE_FROM_0: Standing = Standing::Idle { since: Monotonic::START };

    #[test]
    fn whoever_wants_nothing_is_idle_after_a_while_and_whoever_waits_is_not() {
        let merit = Merit::new(at(0));
        assert_eq!(merit.standing(false, at(9)), Standing::InUse);
        assert_eq!(merit.standing(false, at(10)), IDLE_FROM_0);
        assert_eq!(merit.standing(true, at(9_999)), Standing::InUse);
    }

    #[test]
    fn a_turn_that_is_used_keeps_the_place_and_a_wasted_one_does_not() {
        let mut merit = Merit::new(at(0));
        merit.handle_turn_began(at(20));
        assert_eq!(merit.standing(false, at(29)), Standing::InUse);
        assert_eq!(merit.standing(false, at(30)), Standing::Idle { since: at(20) });
        merit.handle_took(at(31));
        merit.handle_turn_ended();
        assert_eq!(merit.standing(true, at(99)), Standing::InUse);
        merit.handle_turn_began(at(99));
        merit.handle_turn_ended();
        assert_eq!(merit.standing(true, at(109)), Standing::Idle { since: at(99) });
    }

    #[test]
    fn toggling_interest_buys_no_time() {
        let mut merit = Merit::new(at(0));
        for now in 1..100 {
            merit.handle_turn_began(at(now));
            merit.handle_turn_ended();
        }
        assert_eq!(merit.standing(true, at(100)), Standing::Idle { since: at(1) });
        merit.handle_took(at(100));
        assert_eq!(merit.standing(false, at(101)), Standing::InUse);
    }
}
