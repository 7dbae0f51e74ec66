//! The hub's two clocks; everything else is told the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::logic::now::{Monotonic, UnixSeconds};

pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.elapsed())
    }

    /// The hub's wall clock is its operator's business; a server has the right time.
    pub fn unix(&self) -> UnixSeconds {
        unix_now()
    }
}

pub fn unix_now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(since.as_secs())
}
