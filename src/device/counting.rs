//! What went over the line, as the daemon tells it to the governor at each tick, and what follows from
//! the governor's word for the household. Part of the event loop: nothing here waits.

use super::{
    auto,
    daemon::{Daemon, setting},
};
use crate::logic::{governor::allowance::Counters, node::Event, now::Now};

impl Daemon {
    /// Tells the governor what went over the line, and keeps what was filled for the next start.
    pub(super) fn count(&mut self, now: Now) {
        self.keep_line(now);
        let stats = self.engine.stats();
        // The engine counts who waits only while somebody is served.
        let waiting = stats.peers_waiting.min(stats.peers_unchoked);
        let counters = Counters {
            auto: self.auto.as_ref().and_then(|auto| auto::ruling(&auto.view())),
            ..self.line.counters(stats.egress_wire_bytes_total, waiting)
        };
        self.node.handle_event(Event::Counted(counters), now);
        let allowance = self.node.snapshot().allowance;
        self.lan.heed(allowance.pause, &self.engine);
        let reason = allowance.ruling.reason;
        if std::mem::replace(&mut self.reason, reason) != reason {
            tracing::info!("what may leave has changed: {reason}");
        }
        if let Some((hour, bytes)) = self.line.take_due(now) {
            let store = self.context.store.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = store.add_ingress(hour, bytes) {
                    tracing::error!("cannot keep what was filled for the next start: {error}");
                }
            });
        }
    }

    /// Whom auto mode may ask, by the configuration and the policy.
    pub(super) fn look_up_destinations(&mut self) {
        let Some(auto) = &mut self.auto else { return };
        let reflector = self.node.policy().and_then(|policy| policy.reflector.as_deref());
        auto.look_up(self.config.hub.url.as_ref(), reflector, &self.context.messages);
    }

    /// The hours of the whole line, for the next start.
    fn keep_line(&mut self, now: Now) {
        if let Some(hours) = self.line.take_due_hours(self.node.line_traffic(), now) {
            let store = self.context.store.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = store.set_setting(setting::LINE_TRAFFIC, &hours) {
                    tracing::error!(
                        "cannot keep what the line carried for the next start: {error}"
                    );
                }
            });
        }
    }
}
