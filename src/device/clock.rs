//! Reads the two clocks, once per decision, and judges whether wall time can be trusted. The only
//! place in `device` that asks the system what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::logic::now::{Monotonic, Now, UnixSeconds, WallTime};

/// 2026-01-01: a router that says less has just booted without a clock.
const PLAUSIBLE_FROM: UnixSeconds = UnixSeconds(1_767_225_600);
/// A system clock further from the hub's than this is not believed.
const TOLERANCE_SECONDS: u64 = 600;

#[derive(Clone)]
pub struct Clock {
    start: Instant,
    /// The hub's time and when we heard it, kept only while the system's clock disagrees with it.
    learned: Option<(UnixSeconds, Monotonic)>,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { start: Instant::now(), learned: None }
    }

    pub fn now(&self) -> Now {
        let monotonic = self.monotonic();
        Now { monotonic, wall: judge(system_time(), self.learned, monotonic) }
    }

    /// For `tokio::time::sleep_until`.
    pub fn instant(&self, at: Monotonic) -> Instant {
        self.start + at.0
    }

    /// The hub said what time it is.
    pub fn learn(&mut self, hub: UnixSeconds) {
        let disagrees = hub.0.abs_diff(system_time().0) > TOLERANCE_SECONDS;
        if disagrees && self.learned.is_none() {
            tracing::warn!(
                "this device's clock is more than {} minutes away from the hub's; using the hub's",
                TOLERANCE_SECONDS / 60
            );
        }
        self.learned = disagrees.then(|| (hub, self.monotonic()));
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }
}

fn system_time() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(since.as_secs())
}

fn judge(
    system: UnixSeconds,
    learned: Option<(UnixSeconds, Monotonic)>,
    now: Monotonic,
) -> WallTime {
    match learned {
        Some((hub, heard)) => {
            WallTime::Synced(UnixSeconds(hub.0 + now.saturating_since(heard).as_secs()))
        }
        None if system >= PLAUSIBLE_FROM => WallTime::Synced(system),
        None => WallTime::Unsynced,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn does_not_believe_a_clock_from_1970() {
        let later = Monotonic(Duration::from_secs(100));
        assert_eq!(judge(UnixSeconds(60), None, later), WallTime::Unsynced);
        assert_eq!(judge(PLAUSIBLE_FROM, None, later), WallTime::Synced(PLAUSIBLE_FROM));
        let heard = Monotonic(Duration::from_secs(40));
        assert_eq!(
            judge(UnixSeconds(60), Some((UnixSeconds(1_790_000_000), heard)), later),
            WallTime::Synced(UnixSeconds(1_790_000_060))
        );
    }
}
