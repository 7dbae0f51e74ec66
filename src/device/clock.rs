//! Reads the clocks, once per decision: the only place in `device` that asks the system what time it
//! is. Whose word counts is `logic::timekeeper`'s to decide.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;

use crate::logic::{
    ledger::dating::{BootId, BootMoment, KnownTime, Stamp},
    now::{Monotonic, Now, UnixSeconds},
    timekeeper::{Heard, TOLERANCE, Timekeeper},
};

#[derive(Clone)]
pub struct Clock {
    start: Instant,
    boot: BootId,
    /// How long the machine had been running at `start`.
    booted_before: Duration,
    /// Clones share it: what one of them learns, all know.
    keeper: Arc<Mutex<Timekeeper>>,
}

impl Clock {
    /// `newest_entry`: up to when the ledger has entries.
    pub fn new(has_operator: bool, newest_entry: Option<UnixSeconds>) -> Clock {
        let (boot, booted_before) = boot();
        let keeper = Arc::new(Mutex::new(Timekeeper::new(has_operator, newest_entry)));
        Clock { start: Instant::now(), boot, booted_before, keeper }
    }

    /// Somebody pays, and says what time it is.
    pub fn has_operator(&self) -> bool {
        self.keeper.lock().has_operator()
    }

    pub fn now(&self) -> Now {
        let monotonic = self.monotonic();
        Now { monotonic, wall: self.keeper.lock().wall(system_time(), monotonic) }
    }

    /// For `tokio::time::sleep_until`.
    pub fn instant(&self, at: Monotonic) -> Instant {
        self.start + at.0
    }

    /// When what is counted now was served, for the ledger.
    pub fn stamp(&self) -> Stamp {
        let moment = BootMoment { boot: self.boot, seconds: self.up_seconds() };
        Stamp { moment, hour: self.confirmed().map(UnixSeconds::hour) }
    }

    /// By what undated usage may be dated, once the time is known well enough for that.
    pub fn known(&self) -> Option<KnownTime> {
        self.confirmed().map(|now| self.known_if(now))
    }

    /// The same as if it were `now`.
    pub fn known_if(&self, now: UnixSeconds) -> KnownTime {
        let boot_began = UnixSeconds(now.0.saturating_sub(self.up_seconds().into()));
        KnownTime { boot: self.boot, boot_began, now }
    }

    /// The hub said what time it is.
    pub fn learn(&self, hub: UnixSeconds) {
        let mut keeper = self.keeper.lock();
        let (system, now) = (system_time(), self.monotonic());
        let before = keeper.wall(system, now);
        let heard = keeper.handle_operator(hub, system, now);
        let minutes = TOLERANCE.as_secs() / 60;
        match heard {
            Heard::SystemIsWrong if keeper.wall(system, now) != before => tracing::warn!(
                "this device's clock is more than {minutes} minutes away from the hub's; using the hub's"
            ),
            Heard::Doubted => tracing::warn!(
                "the hub says another time than before; what is served is dated when it is sure"
            ),
            Heard::Implausible => tracing::warn!("the hub's clock is wrong; ignoring it"),
            Heard::Agrees | Heard::SystemIsWrong => {}
        }
    }

    fn confirmed(&self) -> Option<UnixSeconds> {
        self.keeper.lock().confirmed(system_time(), self.monotonic())
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    fn up_seconds(&self) -> u32 {
        let up = self.booted_before + self.start.elapsed();
        u32::try_from(up.as_secs()).unwrap_or(u32::MAX)
    }
}

fn system_time() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(since.as_secs())
}

/// The kernel's name for this boot, and how long ago it was. Where it does not say, this process
/// counts as a boot of its own.
fn boot() -> (BootId, Duration) {
    let read = || -> Option<(BootId, Duration)> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = HEXLOWER.decode(id.trim().replace('-', "").as_bytes()).ok()?;
        let up = fs::read_to_string("/proc/uptime").ok()?;
        let up = up.split_whitespace().next()?.parse::<f64>().ok()?;
        Some((BootId(id.try_into().ok()?), Duration::try_from_secs_f64(up).ok()?))
    };
    read().unwrap_or_else(|| (BootId(rand::random()), Duration::ZERO))
}
