//! Whose word on the time is taken, and for what. A router's own clock may say 1970, or be years off
//! and step at any moment; the operator pays by the operator's clock. Reads no clock itself.
//!
//! Two questions, two answers. Leases and schedules need a time at once and live with a plausible one
//! ([`Timekeeper::wall`]). Money waits for the operator's word in this run ([`Timekeeper::confirmed`])
//! and from then on goes by the monotonic clock, so that no step of the system's clock moves it.

use std::time::Duration;

use super::now::{Monotonic, UnixSeconds, WallTime};

/// 2026-01-01: a router that says less has just booted without a clock.
pub const PLAUSIBLE_FROM: UnixSeconds = UnixSeconds(1_767_225_600);
/// Two clocks that are closer than this say the same. The hub refuses requests that are further off.
pub const TOLERANCE: Duration = Duration::from_secs(600);
/// An operator that takes back what it said must stay with it for so long, unless this device's own
/// clock bears it out.
const PATIENCE: Duration = Duration::from_secs(600);
/// A system clock that is further ahead of the newest entry of the ledger than this has to be
/// confirmed: reports are taken for that long.
const AWAY_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// What somebody said the time was, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    wall: UnixSeconds,
    at: Monotonic,
}

impl Word {
    /// What it says about a later moment.
    fn then(self, now: Monotonic) -> UnixSeconds {
        UnixSeconds(self.wall.0.saturating_add(now.saturating_since(self.at).as_secs()))
    }
}

/// See the module's first lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timekeeper {
    has_operator: bool,
    /// Up to when the ledger has entries: it cannot be earlier now.
    newest_entry: Option<UnixSeconds>,
    operator: Option<Word>,
    /// The operator's later word, when it contradicts the one that is gone by.
    doubt: Option<Word>,
}

/// What became of an operator's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Agrees,
    /// It is what is gone by now, and the system's clock is wrong.
    SystemIsWrong,
    /// It contradicts what it said before; money waits until it is sure.
    Doubted,
    /// Not a time in which this program can run.
    Implausible,
}

impl Timekeeper {
    pub fn new(has_operator: bool, newest_entry: Option<UnixSeconds>) -> Timekeeper {
        Timekeeper { has_operator, newest_entry, ..Timekeeper::default() }
    }

    pub fn has_operator(&self) -> bool {
        self.has_operator
    }

    /// The operator says that it is `told`.
    pub fn handle_operator(
        &mut self,
        told: UnixSeconds,
        system: UnixSeconds,
        now: Monotonic,
    ) -> Heard {
        if told < PLAUSIBLE_FROM {
            return Heard::Implausible;
        }
        let word = Word { wall: told, at: now };
        let confirms = |earlier: &Word| agree(earlier.then(now), told);
        let holds = self.operator.as_ref().is_none_or(confirms);
        let insists = self
            .doubt
            .is_some_and(|doubt| confirms(&doubt) && now.saturating_since(doubt.at) >= PATIENCE);
        if holds || insists || agree(system, told) {
            self.operator = Some(word);
            self.doubt = None;
            return match agree(system, told) {
                true => Heard::Agrees,
                false => Heard::SystemIsWrong,
            };
        }
        if !self.doubt.as_ref().is_some_and(confirms) {
            self.doubt = Some(word);
        }
        Heard::Doubted
    }

    /// For leases, schedules and what people see.
    pub fn wall(&self, system: UnixSeconds, now: Monotonic) -> WallTime {
        if let Some(word) = self.operator {
            let expected = word.then(now);
            // Small corrections are followed, steps are not.
            return WallTime::Synced(if agree(system, expected) { system } else { expected });
        }
        match self.believes(system) {
            true => WallTime::Synced(system),
            false => WallTime::Unsynced,
        }
    }

    /// For money: `None` while it has to wait.
    pub fn confirmed(&self, system: UnixSeconds, now: Monotonic) -> Option<UnixSeconds> {
        let known = match self.has_operator {
            true => self.operator.is_some() && self.doubt.is_none(),
            // Nobody pays: the page should only show what is likely.
            false => true,
        };
        self.wall(system, now).synced().filter(|_| known)
    }

    fn believes(&self, system: UnixSeconds) -> bool {
        let fits = |newest: UnixSeconds| {
            system.0.saturating_add(TOLERANCE.as_secs()) >= newest.0
                && system.0 <= newest.0.saturating_add(AWAY_MAX.as_secs())
        };
        system >= PLAUSIBLE_FROM && (!self.has_operator || self.newest_entry.is_none_or(fits))
    }
}

fn agree(one: UnixSeconds, other: UnixSeconds) -> bool {
    one.0.abs_diff(other.0) <= TOLERANCE.as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: UnixSeconds = UnixSeconds(1_795_219_200);
    const TEN_YEARS: u64 = 10 * 365 * 24 * 3600;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn after(start: UnixSeconds, seconds: u64) -> UnixSeconds {
        UnixSeconds(start.0 + seconds)
    }

    #[test]
    fn does_not_believe_a_clock_from_1970() {
        let mut keeper = Timekeeper::new(true, None);
        assert_eq!(keeper.wall(UnixSeconds(60), at(5)), WallTime::Unsynced);
        assert_eq!(keeper.wall(NOON, at(5)), WallTime::Synced(NOON));
        assert_eq!(keeper.confirmed(NOON, at(5)), None);
        assert_eq!(keeper.handle_operator(NOON, UnixSeconds(60), at(6)), Heard::SystemIsWrong);
        let later = after(NOON, 60);
        assert_eq!(keeper.wall(UnixSeconds(120), at(66)), WallTime::Synced(later));
        assert_eq!(keeper.confirmed(UnixSeconds(120), at(66)), Some(later));
    }

    #[test]
    fn does_not_believe_a_clock_behind_the_ledger_or_years_ahead_of_it() {
        let keeper = Timekeeper::new(true, Some(NOON));
        for (system, believed) in [
            (after(NOON, 3600), true),
            (after(NOON, 200 * 24 * 3600), true),
            (after(NOON, TEN_YEARS), false),
            (UnixSeconds(NOON.0 - 7200), false),
        ] {
            let wall = keeper.wall(system, at(1));
            assert_eq!(wall.synced().is_some(), believed, "{system:?}");
        }
        // Nobody pays a device that stands alone, and nobody could correct it.
        let alone = Timekeeper::new(false, Some(NOON));
        let earlier = UnixSeconds(NOON.0 - 7200);
        assert_eq!(alone.confirmed(earlier, at(1)), Some(earlier));
    }

    #[test]
    fn holds_money_back_while_the_operator_contradicts_itself() {
        let mut keeper = Timekeeper::new(true, None);
        keeper.handle_operator(NOON, NOON, at(0));
        let (system, wrong) = (after(NOON, 60), after(NOON, TEN_YEARS));
        assert_eq!(keeper.handle_operator(wrong, system, at(60)), Heard::Doubted);
        assert_eq!(keeper.wall(system, at(60)), WallTime::Synced(system));
        assert_eq!(keeper.confirmed(system, at(60)), None);
        let system = after(NOON, 120);
        assert_eq!(keeper.handle_operator(system, system, at(120)), Heard::Agrees);
        assert_eq!(keeper.confirmed(system, at(120)), Some(system));
    }

    #[test]
    fn follows_an_operator_that_stays_with_a_correction() {
        let mut keeper = Timekeeper::new(true, None);
        let wrong = after(NOON, TEN_YEARS);
        keeper.handle_operator(wrong, UnixSeconds(0), at(0));
        for minute in 1..=10 {
            let told = after(NOON, minute * 60);
            assert_eq!(
                keeper.handle_operator(told, UnixSeconds(0), at(minute * 60)),
                Heard::Doubted
            );
        }
        let told = after(NOON, 660);
        assert_eq!(keeper.handle_operator(told, UnixSeconds(0), at(660)), Heard::SystemIsWrong);
        assert_eq!(keeper.confirmed(UnixSeconds(0), at(660)), Some(told));
    }

    proptest! {
        /// However the system's clock jumps, once the operator has said the time, money goes by it
        /// to within the tolerance.
        #[test]
        fn no_step_of_the_systems_clock_moves_money(
            steps in prop::collection::vec((0u64..7200, -(TEN_YEARS as i64)..TEN_YEARS as i64, any::<bool>()), 1..50),
        ) {
            let mut keeper = Timekeeper::new(true, None);
            let (mut now, mut known) = (0, false);
            for (wait, offset, told) in steps {
                now += wait;
                let truth = after(NOON, now);
                let system = UnixSeconds(truth.0.saturating_add_signed(offset));
                if told {
                    keeper.handle_operator(truth, system, at(now));
                    known = true;
                }
                match keeper.confirmed(system, at(now)) {
                    Some(time) => prop_assert!(known && agree(time, truth)),
                    None => prop_assert!(!known),
                }
            }
        }
    }
}
