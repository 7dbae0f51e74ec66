//! What went over the line, for the governor: the ledger's last month at start, the counters from
//! then on, and what was filled in each hour, kept for the next start. Decides nothing.

use std::time::Duration;

use super::{
    gateway::InterfaceCounters,
    store::{Store, StoreError},
};
use crate::logic::{
    governor::allowance::{Counters, Flow, HOURS_KEPT, Traffic},
    now::{Monotonic, Now, UtcHour, WallTime},
};

/// What was filled is written this often at most, to spare the flash. A kill loses that much of the
/// ratio's better side, which errs towards serving less.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// A month of the whole line is some 30 KB.
const SAVE_LINE_INTERVAL: Duration = Duration::from_secs(3600);

/// What the whole line sent and received in an hour.
pub type Hour = (UtcHour, u64, u64);

#[derive(Default)]
pub struct Line {
    ingress_bytes_total: u64,
    unsaved_ingress_bytes: u64,
    saved_at: Option<Monotonic>,
    /// Of the home's router, while a rule asks for them.
    interface: Option<InterfaceCounters>,
    interface_saved_at: Option<Monotonic>,
}

impl Line {
    pub fn with_interface(interface: Option<InterfaceCounters>) -> Line {
        Line { interface, ..Line::default() }
    }

    /// What the whole line has carried, when it is to be written now.
    pub fn take_due_hours(&mut self, traffic: &Traffic, now: Now) -> Option<Vec<Hour>> {
        let early = |then: Monotonic| now.monotonic.saturating_since(then) < SAVE_LINE_INTERVAL;
        if self.interface_saved_at.is_none() {
            self.interface_saved_at = Some(now.monotonic);
        }
        if self.interface.is_none() || self.interface_saved_at.is_some_and(early) {
            return None;
        }
        self.interface_saved_at = Some(now.monotonic);
        self.hours(traffic)
    }

    /// The same, due or not: at stop.
    pub fn hours(&self, traffic: &Traffic) -> Option<Vec<Hour>> {
        self.interface.as_ref()?;
        Some(traffic.hours().map(|(hour, f)| (hour, f.egress_bytes, f.ingress_bytes)).collect())
    }

    pub fn filled(&mut self, bytes: u64) {
        self.ingress_bytes_total += bytes;
        self.unsaved_ingress_bytes += bytes;
    }

    pub fn counters(&self, egress_bytes_total: u64, peers_waiting: u32) -> Counters {
        Counters {
            egress_bytes_total,
            ingress_bytes_total: self.ingress_bytes_total,
            peers_waiting,
            line: self
                .interface
                .as_ref()
                .and_then(|interface| interface.read().ok())
                .map(|bytes| Flow { egress_bytes: bytes.sent, ingress_bytes: bytes.received }),
            auto: None,
        }
    }

    /// What is to be written now, if anything; while the time is not known it waits.
    pub fn take_due(&mut self, now: Now) -> Option<(UtcHour, u64)> {
        let early = |then: Monotonic| now.monotonic.saturating_since(then) < SAVE_INTERVAL;
        if self.saved_at.is_some_and(early) {
            return None;
        }
        let due = self.take(now.wall)?;
        self.saved_at = Some(now.monotonic);
        Some(due)
    }

    /// The same, due or not: at stop.
    pub fn take(&mut self, wall: WallTime) -> Option<(UtcHour, u64)> {
        let hour = wall.synced()?.hour();
        let bytes = std::mem::take(&mut self.unsaved_ingress_bytes);
        (bytes > 0).then_some((hour, bytes))
    }
}

/// As [`Line::hours`] gave them.
pub fn line_traffic(hours: Vec<Hour>) -> Traffic {
    let mut traffic = Traffic::default();
    for (hour, egress_bytes, ingress_bytes) in hours {
        traffic.add_hour(hour, Flow { egress_bytes, ingress_bytes });
    }
    traffic
}

/// The ledger's word on the hours that any rule looks at.
pub fn traffic(store: &Store, now: Now) -> Result<Traffic, StoreError> {
    let hour = now.wall.synced().map(|wall| wall.hour());
    let mut traffic = Traffic::default();
    for (hour, egress_bytes) in store.wan_wire_bytes_by_hour(hour, HOURS_KEPT)? {
        traffic.add_hour(hour, Flow { egress_bytes, ingress_bytes: 0 });
    }
    for (hour, ingress_bytes) in store.ingress_by_hour(hour, HOURS_KEPT)? {
        traffic.add_hour(hour, Flow { egress_bytes: 0, ingress_bytes });
    }
    let undated = Flow { egress_bytes: store.undated_wan_wire_bytes()?, ingress_bytes: 0 };
    traffic.add(undated, WallTime::Unsynced);
    Ok(traffic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::{
        infohash::Infohash,
        ledger::dating::{BootMoment, Stamp},
        now::UnixSeconds,
        usage::{PeerClass, Usage, UsageDelta},
    };

    const NOW: UnixSeconds = UnixSeconds(1_795_219_200);

    fn at(seconds: u64, wall: WallTime) -> Now {
        Now { monotonic: Monotonic(Duration::from_secs(seconds)), wall }
    }

    fn served(class: PeerClass, wire_bytes: u64) -> UsageDelta {
        let usage = Usage { payload_bytes: 1, wire_bytes };
        UsageDelta { infohash: Infohash([1; 20]), class, usage }
    }

    #[test]
    fn the_ledger_tells_the_governor_what_left_before_the_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let now = at(0, WallTime::Synced(NOW));
        let long_ago = UtcHour(NOW.hour().0 - 2 * HOURS_KEPT);
        let wan = |bytes| served(PeerClass::Wan, bytes);
        let stamp = |hour| Stamp { moment: BootMoment::default(), hour };
        store.add_usage(stamp(Some(long_ago)), &[wan(1)]).unwrap();
        let lan = served(PeerClass::Lan, 500);
        store.add_usage(stamp(Some(NOW.hour())), &[wan(10), wan(20), lan]).unwrap();
        store.add_usage(stamp(None), &[wan(100)]).unwrap();
        store.add_ingress(NOW.hour(), 4).unwrap();
        store.add_ingress(NOW.hour(), 3).unwrap();
        let flow = traffic(&store, now).unwrap().last_hours(24, now.wall);
        assert_eq!(flow, Flow { egress_bytes: 130, ingress_bytes: 7 });
        // Without the time the newest hours are found all the same.
        let unsynced = at(0, WallTime::Unsynced);
        let read = traffic(&store, unsynced).unwrap();
        assert_eq!(read.day_egress_bytes(unsynced.wall), 130);
        assert_eq!(read, traffic(&store, now).unwrap());
    }

    #[test]
    fn writes_what_was_filled_once_a_minute_and_only_with_the_time() {
        let mut line = Line::default();
        line.filled(5);
        assert_eq!(line.take_due(at(0, WallTime::Unsynced)), None);
        let synced = WallTime::Synced(NOW);
        assert_eq!(line.take_due(at(1, synced)), Some((NOW.hour(), 5)));
        line.filled(6);
        assert_eq!(line.take_due(at(2, synced)), None);
        assert_eq!(line.take_due(at(61, synced)), Some((NOW.hour(), 6)));
        assert_eq!(line.take(synced), None);
        assert_eq!(line.counters(1, 2).ingress_bytes_total, 11);
    }
}
