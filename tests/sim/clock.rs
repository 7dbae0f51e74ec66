//! The clock of a simulated household: what the system says, which may be anything, and the real judge of
//! it. Seconds of `truth` count from the beginning of the simulation; nobody in the house knows them.

use std::time::Duration;

use larder::logic::{
    now::{Monotonic, UnixSeconds, WallTime},
    timekeeper::{Heard, Timekeeper},
};

pub const T0: u64 = 1_795_219_200;
/// How soon after the clock has changed the daemon looks at it.
pub const TICK: u64 = 10;

/// The system's clock, and the real judge of it.
#[derive(Default)]
pub struct SystemClock {
    off_by: i64,
    is_reset: bool,
    keeper: Timekeeper,
    booted_at: u64,
    /// When anything last changed what the judge says.
    changed_at: u64,
    /// The hub's last word that was believed was a lie.
    is_misled: bool,
}

impl SystemClock {
    pub fn boot(&mut self, truth: u64) {
        let keeper = Timekeeper::new(true, None);
        let (off_by, is_reset) = (self.off_by, self.is_reset);
        let (booted_at, changed_at) = (truth, truth);
        *self = SystemClock { off_by, is_reset, keeper, booted_at, changed_at, is_misled: false };
    }

    fn system(&self, truth: u64) -> UnixSeconds {
        let ticking = if self.is_reset { truth } else { T0 + truth };
        UnixSeconds(ticking.saturating_add_signed(self.off_by))
    }

    fn up(&self, truth: u64) -> Monotonic {
        Monotonic(Duration::from_secs(truth - self.booted_at))
    }

    pub fn wall(&self, truth: u64) -> WallTime {
        self.keeper.wall(self.system(truth), self.up(truth))
    }

    pub fn learn(&mut self, told: UnixSeconds, truth: u64) {
        let before = self.wall(truth);
        let heard = self.keeper.handle_operator(told, self.system(truth), self.up(truth));
        if matches!(heard, Heard::Agrees | Heard::SystemIsWrong) {
            self.is_misled = told.0.abs_diff(T0 + truth) > 5;
        }
        if self.wall(truth) != before {
            self.changed_at = truth;
        }
    }

    pub fn set(&mut self, off_by: i64, is_reset: bool, truth: u64) {
        (self.off_by, self.is_reset, self.changed_at) = (off_by, is_reset, truth);
    }

    /// Whether leases can be held against it.
    pub fn is_right(&self, truth: u64) -> bool {
        let settled = truth > self.changed_at + 2 * TICK;
        settled && self.wall(truth).synced().is_some_and(|wall| wall.0.abs_diff(T0 + truth) <= 2)
    }

    /// How far off a time is by which money would be dated now, and nobody has lied.
    pub fn money_is_off_by(&self, truth: u64) -> Option<u64> {
        let dated = self.keeper.confirmed(self.system(truth), self.up(truth));
        dated.filter(|_| !self.is_misled).map(|time| time.0.abs_diff(T0 + truth))
    }
}
