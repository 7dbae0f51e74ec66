//! Daily and monthly caps on bytes, and the guard of the ratio between egress and ingress. Neither
//! ever asks for a download: only time, or the household's own fills, makes room again.

use std::time::Duration;

use super::{
    reason::Reason,
    schedule::Share,
    traffic::{Flow, Traffic},
};
use crate::logic::{governor::SLACK_MAX, now::WallTime};

/// The shell tells its counters this often.
pub const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Kept back so that the block which is on its way when the counters are read still fits: the pacer
/// lets one block out ahead of time, and what the rate brings in its slack.
const CAP_RESERVE_BYTES: u64 = 64 * 1024;

/// Of wire bytes to the WAN; `None` is no cap. Days and months are UTC, as in the books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub egress_bytes_per_day_max: Option<u64>,
    pub egress_bytes_per_month_max: Option<u64>,
}

impl Caps {
    pub fn is_trivial(&self) -> bool {
        *self == Caps::default()
    }

    /// What each cap leaves, as a rate: never more than would use it up before the counters are
    /// read again.
    pub(super) fn rates(
        &self,
        traffic: &Traffic,
        wall: WallTime,
    ) -> impl Iterator<Item = (u64, Reason)> {
        let month =
            self.egress_bytes_per_month_max.map(|cap| (cap, traffic.month_egress_bytes(wall)));
        let day = self.egress_bytes_per_day_max.map(|cap| (cap, traffic.day_egress_bytes(wall)));
        let month = month.map(|(cap, used)| (rate_left(cap, used), Reason::MonthlyCap));
        let day = day.map(|(cap, used)| (rate_left(cap, used), Reason::DailyCap));
        month.into_iter().chain(day)
    }
}

fn rate_left(cap_bytes: u64, used_bytes: u64) -> u64 {
    match cap_bytes.saturating_sub(used_bytes).saturating_sub(CAP_RESERVE_BYTES) {
        // A trickle would keep peers waiting for nothing.
        left if left < CAP_RESERVE_BYTES => 0,
        left => {
            let ahead = u128::from(left) * SLACK_MAX.as_millis() / COUNT_INTERVAL.as_millis();
            (left - u64::try_from(ahead).unwrap_or(left)) / COUNT_INTERVAL.as_secs()
        }
    }
}

/// The most that may leave for each byte that came, by our own counters; `None` is no guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asymmetry {
    pub ratio_max_24_hours: Option<u32>,
    pub ratio_max_30_days: Option<u32>,
}

/// A window with less egress than this a day is nobody's suspicious line, whatever its ratio is.
pub const FREE_EGRESS_BYTES_PER_DAY: u64 = 1_000_000_000;
/// From this part of the maximum on, in percent, egress is slowed down.
const SLOW_FROM_PERCENT: u128 = 80;
/// To this part of the owner's limit: the last fifth lasts four times as long.
const SLOW_TO: Share = Share::percent(25);

impl Asymmetry {
    pub fn is_trivial(&self) -> bool {
        *self == Asymmetry::default()
    }

    /// The stricter word of both windows.
    pub(super) fn rate(
        &self,
        limit: u64,
        traffic: &Traffic,
        wall: WallTime,
    ) -> Option<(u64, Reason)> {
        let judged = |ratio_max: Option<u32>, days: u32| {
            let ratio_max = ratio_max?;
            judge(traffic.last_hours(days * 24, wall), ratio_max, days)
        };
        let short = judged(self.ratio_max_24_hours, 1);
        let long = judged(self.ratio_max_30_days, 30);
        let share = short.into_iter().chain(long).min()?;
        let reason =
            if share.is_off() { Reason::AsymmetryStopped } else { Reason::AsymmetrySlowed };
        Some((share.of(limit), reason))
    }
}

/// `None` when there is nothing to object to.
fn judge(flow: Flow, ratio_max: u32, days: u32) -> Option<Share> {
    let egress = u128::from(flow.egress_bytes);
    let free = u128::from(FREE_EGRESS_BYTES_PER_DAY) * u128::from(days);
    let allowed = (u128::from(flow.ingress_bytes) * u128::from(ratio_max)).max(free);
    match egress * 100 {
        part if part >= allowed * 100 => Some(Share::OFF),
        part if part >= allowed * SLOW_FROM_PERCENT => Some(SLOW_TO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::{now::UnixSeconds, units::GB};

    const NOW: WallTime = WallTime::Synced(UnixSeconds(1_795_219_200));
    const LIMIT: u64 = 1_000_000;

    fn ruled(asymmetry: Asymmetry, egress_bytes: u64, ingress_bytes: u64) -> Option<(u64, Reason)> {
        let mut traffic = Traffic::default();
        traffic.add(Flow { egress_bytes, ingress_bytes }, NOW);
        asymmetry.rate(LIMIT, &traffic, NOW)
    }

    #[test]
    fn slows_down_and_then_stops_as_the_ratio_nears_its_maximum() {
        let ten = Asymmetry { ratio_max_24_hours: Some(10), ratio_max_30_days: None };
        assert_eq!(ruled(ten, 7 * GB, GB), None);
        assert_eq!(ruled(ten, 8 * GB, GB), Some((LIMIT / 4, Reason::AsymmetrySlowed)));
        assert_eq!(ruled(ten, 10 * GB, GB), Some((0, Reason::AsymmetryStopped)));
        assert_eq!(ruled(ten, GB / 2, 0), None, "a little is free");
        assert_eq!(ruled(Asymmetry::default(), 900 * GB, 0), None);
    }

    #[test]
    fn the_stricter_window_holds() {
        let both = Asymmetry { ratio_max_24_hours: Some(10), ratio_max_30_days: Some(2) };
        let short = ruled(both, 9 * GB, GB);
        assert_eq!(short, Some((LIMIT / 4, Reason::AsymmetrySlowed)), "30 GB a month are free");
        assert_eq!(ruled(both, 40 * GB, 5 * GB), Some((0, Reason::AsymmetryStopped)));
    }

    #[test]
    fn slows_into_the_cap_instead_of_running_over_it() {
        let last = 2 * CAP_RESERVE_BYTES;
        assert_eq!(rate_left(GB, GB - CAP_RESERVE_BYTES - last), last - last * 4 / 100);
        assert_eq!(rate_left(GB, GB - CAP_RESERVE_BYTES), 0);
        assert_eq!(rate_left(GB, 2 * GB), 0);
    }
}
