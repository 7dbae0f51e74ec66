//! How serving goes, for auto mode: every few milliseconds while somebody is served, what the kernel
//! has sent and the peers have acknowledged. Asks each connection; decides nothing.

use std::time::{Duration, Instant};

use super::Loop;
use crate::{
    device::serve::{Measured, connection::Connection},
    logic::{
        choke::slots_for,
        governor::{Allowance, delay::PROBE_INTERVAL},
        now::Monotonic,
        usage::PeerClass,
    },
};

/// Auto mode moves the allowance many times a second, and peers would be choked and unchoked with it. So
/// slots become fewer only when the allowance has been low for this long.
const SLOTS_LINGER: Duration = Duration::from_secs(10);

/// What is kept between two looks.
pub(super) struct Measure {
    /// Called when serving begins after nobody was served.
    alarm: Box<dyn Fn() + Send>,
    /// While somebody is served.
    next_at: Option<Monotonic>,
    totals: Measured,
    /// Since when the allowance would have had fewer slots than there are.
    low_since: Option<Monotonic>,
}

impl Loop {
    /// As the allowance has it; in auto mode, more at once and fewer after a while.
    pub(super) fn set_slots(&mut self, now: Monotonic) {
        let allowance = self.pacer.allowance();
        let slots = slots_for(allowance);
        let Some(measure) = &mut self.measure else { return self.choker.set_slots(slots, now) };
        let moves = matches!(allowance, Allowance::BytesPerSecond(1..));
        if moves && slots < self.choker.slots() {
            let since = *measure.low_since.get_or_insert(now);
            if now.saturating_since(since) < SLOTS_LINGER {
                return;
            }
        }
        measure.low_since = None;
        self.choker.set_slots(slots, now);
    }

    pub(super) fn begin_to_measure(&mut self, alarm: Box<dyn Fn() + Send>) {
        let totals = Measured {
            at: Instant::now(),
            sent_wire_bytes_total: 0,
            acknowledged_wire_bytes_total: 0,
            peers_want_more: false,
            peers_unchoked: 0,
            peer: None,
        };
        self.measure = Some(Measure { alarm, next_at: None, totals, low_since: None });
    }

    pub(super) fn measure_at(&self) -> Option<Monotonic> {
        self.measure.as_ref()?.next_at
    }

    /// Each round; does something when it is time.
    pub(super) fn measure(&mut self, now: Monotonic) {
        let Some(measure) = &mut self.measure else { return };
        let unchoked = self.choker.unchoked();
        let begins = measure.next_at.is_none() && unchoked > 0;
        let ends = measure.next_at.is_some() && unchoked == 0;
        if !begins && !ends && measure.next_at.is_none_or(|at| at > now) {
            return;
        }
        measure.next_at = (unchoked > 0).then(|| now + PROBE_INTERVAL);
        let totals = &mut measure.totals;
        totals.peers_want_more = false;
        totals.peers_unchoked = unchoked;
        let on_the_line = |c: &&mut Box<Connection>| c.class == PeerClass::Wan;
        for connection in self.connections.iter_mut().flatten().filter(on_the_line) {
            if count(connection, totals) || connection.session.has_output(&self.shelf) {
                totals.peers_want_more = true;
                totals.peer = connection.peer();
            }
        }
        totals.at = Instant::now();
        self.set_slots(now);
        let Some(measure) = &mut self.measure else { return };
        let totals = &measure.totals;
        *self.stats.measured.lock() = Some(*totals);
        if begins {
            (measure.alarm)();
        }
    }

    /// What a connection that closes has delivered still counts.
    pub(super) fn measure_last(&mut self, connection: &mut Connection) {
        if let Some(measure) = &mut self.measure
            && connection.class == PeerClass::Wan
        {
            count(connection, &mut measure.totals);
        }
    }
}

/// Whether something of it is still on its way.
fn count(connection: &mut Connection, totals: &mut Measured) -> bool {
    let (since, waits) = connection.measure();
    totals.sent_wire_bytes_total += since.sent_bytes;
    totals.acknowledged_wire_bytes_total += since.acknowledged_bytes;
    waits
}
