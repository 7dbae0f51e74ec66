//! What went through the line, by UTC hour, as far back as any rule looks. An echo of the ledger: it
//! is filled from it at start and kept up by counters; it never writes anything.

use std::collections::BTreeMap;

use crate::logic::now::{UtcHour, WallTime};

/// Bytes on the wire to the WAN, and bytes that were filled from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

impl Flow {
    /// Between two readings of a counter; nothing if it began anew in between.
    pub fn since(self, before: Flow) -> Flow {
        Flow {
            egress_bytes: self.egress_bytes.saturating_sub(before.egress_bytes),
            ingress_bytes: self.ingress_bytes.saturating_sub(before.ingress_bytes),
        }
    }

    pub fn add(&mut self, other: Flow) {
        self.egress_bytes = self.egress_bytes.saturating_add(other.egress_bytes);
        self.ingress_bytes = self.ingress_bytes.saturating_add(other.ingress_bytes);
    }
}

/// The longest month: no rule looks further back.
pub const HOURS_KEPT: u32 = 31 * 24;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    hours: BTreeMap<UtcHour, Flow>,
    undated: Flow,
}

impl Traffic {
    /// What is dated, oldest first.
    pub fn hours(&self) -> impl Iterator<Item = (UtcHour, Flow)> {
        self.hours.iter().map(|(hour, flow)| (*hour, *flow))
    }

    /// From the ledger; lines of one hour add up.
    pub fn add_hour(&mut self, hour: UtcHour, flow: Flow) {
        self.hours.entry(hour).or_default().add(flow);
    }

    /// While the time is not known the bytes wait; with the first known hour they count as its own,
    /// as the ledger dates them.
    pub fn add(&mut self, flow: Flow, wall: WallTime) {
        self.undated.add(flow);
        let Some(hour) = wall.synced().map(|now| now.hour()) else { return };
        let undated = std::mem::take(&mut self.undated);
        if undated != Flow::default() {
            self.add_hour(hour, undated);
        }
        let oldest = UtcHour(hour.0.saturating_sub(HOURS_KEPT));
        if self.hours.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            self.hours = self.hours.split_off(&oldest);
        }
    }

    pub fn day_egress_bytes(&self, wall: WallTime) -> u64 {
        self.day(wall).egress_bytes
    }

    pub fn month_egress_bytes(&self, wall: WallTime) -> u64 {
        self.month(wall).egress_bytes
    }

    /// Of the current UTC day.
    pub fn day(&self, wall: WallTime) -> Flow {
        let first = self.hour(wall).day().0 * 24;
        self.since(UtcHour(first))
    }

    /// Of the current UTC month.
    pub fn month(&self, wall: WallTime) -> Flow {
        let month = self.hour(wall).day().month();
        self.since(month.hours().start)
    }

    /// Of the current hour and the full ones before it.
    pub fn last_hours(&self, hours: u32, wall: WallTime) -> Flow {
        self.since(UtcHour((self.hour(wall).0 + 1).saturating_sub(hours)))
    }

    /// While the time is not known it may still be the newest hour that the ledger knows: no new day
    /// begins, and what is undated counts on it. The true sum of today is never more than that.
    fn hour(&self, wall: WallTime) -> UtcHour {
        let newest = || self.hours.last_key_value().map(|(hour, _)| *hour).unwrap_or_default();
        wall.synced().map_or_else(newest, |now| now.hour())
    }

    /// Bytes dated in the future (by a clock that was wrong once) count as well.
    fn since(&self, first: UtcHour) -> Flow {
        let mut sum = self.undated;
        self.hours.range(first..).for_each(|(_, flow)| sum.add(*flow));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::now::UnixSeconds;

    /// 2026-11-21 00:00 UTC.
    const DAY: u64 = 1_795_219_200;

    fn at(hour: u64) -> WallTime {
        WallTime::Synced(UnixSeconds(DAY + hour * 3600))
    }

    fn egress(egress_bytes: u64) -> Flow {
        Flow { egress_bytes, ingress_bytes: 0 }
    }

    #[test]
    fn sums_by_utc_day_month_and_window() {
        let mut traffic = Traffic::default();
        let today = UnixSeconds(DAY).hour().0;
        traffic.add_hour(UtcHour(today - 21 * 24), egress(1)); // 31 October
        traffic.add_hour(UtcHour(today - 20 * 24), egress(10)); // 1 November
        traffic.add_hour(UtcHour(today - 1), egress(100));
        traffic.add(egress(1000), at(3));
        assert_eq!(traffic.day_egress_bytes(at(3)), 1000);
        assert_eq!(traffic.month_egress_bytes(at(3)), 1110);
        assert_eq!(traffic.last_hours(24, at(3)).egress_bytes, 1100);
        assert_eq!(traffic.last_hours(4, at(3)).egress_bytes, 1000);
        assert_eq!(traffic.day_egress_bytes(at(24)), 0);
        assert_eq!(traffic.month_egress_bytes(at(10 * 24)), 0);
    }

    #[test]
    fn no_new_day_begins_while_the_time_is_not_known() {
        let mut traffic = Traffic::default();
        traffic.add(egress(5), at(1));
        traffic.add(egress(7), WallTime::Unsynced);
        assert_eq!(traffic.day_egress_bytes(WallTime::Unsynced), 12);
        assert_eq!(traffic.month_egress_bytes(WallTime::Unsynced), 12);
        // The clock is set, and it is the next day: what was undated counts as today's.
        traffic.add(egress(0), at(30));
        assert_eq!(traffic.day_egress_bytes(at(30)), 7);
    }

    #[test]
    fn forgets_what_no_rule_looks_at() {
        let mut traffic = Traffic::default();
        (0..40 * 24).for_each(|hour| traffic.add(egress(1), at(hour)));
        assert_eq!(traffic.hours.len(), HOURS_KEPT as usize + 1);
    }
}
