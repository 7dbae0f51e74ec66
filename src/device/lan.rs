//! What the household's own peers get: whether they are served, and how much. Their bytes are in no rule
//! about the uplink, only the owner's pause concerns them.

use super::{
    serve::{Engine, ServeCommand, ServeStats},
    status::EgressHistory,
};
use crate::logic::{governor::allowance::Pause, now::Monotonic};

pub struct LanService {
    history: EgressHistory,
    /// As the engine was last told; it begins like that.
    is_paused: bool,
}

impl Default for LanService {
    fn default() -> LanService {
        LanService { history: EgressHistory::default(), is_paused: true }
    }
}

impl LanService {
    /// Call at each tick and after each wish of the owner's.
    pub fn heed(&mut self, pause: Pause, engine: &Engine) {
        let is_paused = pause != Pause::Off;
        if std::mem::replace(&mut self.is_paused, is_paused) != is_paused {
            engine.send(ServeCommand::PauseLan(is_paused));
        }
    }

    pub fn sample(&mut self, stats: ServeStats, now: Monotonic) {
        self.history.sample(stats.lan_egress_wire_bytes_total, now);
    }

    pub fn egress_bytes_per_second(&self) -> u64 {
        self.history.current()
    }
}
