//! What the owner lets fills spend: bytes a day and a month, and the life of the flash. Counts
//! nothing itself: the hours of traffic that the ledger keeps are the counters, so they survive
//! restarts. Judges fills only; what is served has its own rules (`governor::allowance`).

use crate::logic::{
    governor::allowance::Traffic,
    now::WallTime,
    units::{GIB, HumanBytes},
};

/// A filled byte is written once; piece map, rows and the filesystem's own blocks come on top.
const WRITTEN_PER_100_FILLED: u64 = 103;
/// Over so many days writing must be worth it.
const WEAR_DAYS: u32 = 30;
/// So much in that time wears no flash that anybody sells, however small the quota.
const HARMLESS_BYTES: u64 = GIB;

/// `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    pub fill_bytes_per_day_max: Option<u64>,
    pub ingress_bytes_per_month_max: Option<u64>,
    pub flash_bytes_per_day_max: Option<u64>,
    /// Bytes written for every 100 bytes served, over 30 days; the quota itself may be written once in
    /// that time whatever was served, or a new device could never begin; and a gibibyte, if that is more.
    pub flash_percent_of_egress_max: Option<u32>,
    pub quota_bytes: u64,
}

/// A budget that is used up. Reads as a sentence on the owner's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    #[error(
        "today's {} of fills are used up; filling goes on at midnight UTC, or raise \
         cache.fill_bytes_per_day_max", HumanBytes(*.0)
    )]
    FillDay(u64),
    #[error(
        "this month's {} of fills are used up; filling goes on next month, or raise \
         cache.ingress_bytes_per_month_max", HumanBytes(*.0)
    )]
    IngressMonth(u64),
    #[error(
        "today's {} of writing are used up, to spare the flash; filling goes on at midnight UTC, or \
         raise cache.flash_bytes_per_day_max", HumanBytes(*.0)
    )]
    FlashDay(u64),
    #[error(
        "the last 30 days' fills have not yet served enough to be worth the flash's wear; filling goes \
         on when more was served, or raise cache.flash_percent_of_egress_max"
    )]
    FlashPerEgress,
}

/// What may still be filled now, and which budget says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub bytes: u64,
    pub by: Option<Spent>,
}

impl Budgets {
    pub fn none(quota_bytes: u64) -> Budgets {
        Budgets {
            fill_bytes_per_day_max: None,
            ingress_bytes_per_month_max: None,
            flash_bytes_per_day_max: None,
            flash_percent_of_egress_max: None,
            quota_bytes,
        }
    }

    /// The least that any of them leaves.
    pub fn left(&self, traffic: &Traffic, wall: WallTime) -> Left {
        let day = traffic.day(wall).ingress_bytes;
        let month = traffic.month(wall).ingress_bytes;
        let mut left = Left { bytes: u64::MAX, by: None };
        let mut at_most = |bytes: u64, by: Spent| {
            if bytes < left.bytes {
                left = Left { bytes, by: Some(by) };
            }
        };
        if let Some(max) = self.fill_bytes_per_day_max {
            at_most(max.saturating_sub(day), Spent::FillDay(max));
        }
        if let Some(max) = self.ingress_bytes_per_month_max {
            at_most(max.saturating_sub(month), Spent::IngressMonth(max));
        }
        if let Some(max) = self.flash_bytes_per_day_max {
            at_most(filled_for(max).saturating_sub(day), Spent::FlashDay(max));
        }
        if let Some(percent) = self.flash_percent_of_egress_max {
            let flow = traffic.last_hours(WEAR_DAYS * 24, wall);
            let earned = u128::from(flow.egress_bytes) * u128::from(percent) / 100;
            let may_write = self
                .quota_bytes
                .max(HARMLESS_BYTES)
                .saturating_add(u64::try_from(earned).unwrap_or(u64::MAX));
            at_most(
                filled_for(may_write).saturating_sub(flow.ingress_bytes),
                Spent::FlashPerEgress,
            );
        }
        left
    }
}

/// What can be filled with so many bytes written.
fn filled_for(written_bytes: u64) -> u64 {
    (u128::from(written_bytes) * 100 / u128::from(WRITTEN_PER_100_FILLED)) as u64
}

/// What an eMMC of the cheaper kind bears for years: 64 GiB of cells, 1,000 times, over five years.
pub const FLASH_BYTES_PER_DAY_DEFAULT: u64 = 32 * GIB;
/// Serving half of what is written is the least that is worth it.
pub const FLASH_PERCENT_OF_EGRESS_DEFAULT: u32 = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logic::{governor::allowance::Flow, now::UnixSeconds};

    const GB: u64 = 1_000_000_000;
    /// 2026-11-21 00:00 UTC.
    const DAY: u64 = 1_795_219_200;

    fn at(hour: u64) -> WallTime {
        WallTime::Synced(UnixSeconds(DAY + hour * 3600))
    }

    fn moved(flows: &[(u64, u64, u64)]) -> Traffic {
        let mut traffic = Traffic::default();
        for (hour, egress_bytes, ingress_bytes) in flows {
            traffic.add(
                Flow { egress_bytes: *egress_bytes, ingress_bytes: *ingress_bytes },
                at(*hour),
            );
        }
        traffic
    }

    #[test]
    fn the_tightest_budget_says_what_is_left() {
        let budgets = Budgets {
            fill_bytes_per_day_max: Some(10 * GB),
            ingress_bytes_per_month_max: Some(25 * GB),
            ..Budgets::none(GB)
        };
        let traffic = moved(&[(1, 0, 9 * GB), (25, 0, 9 * GB)]);
        assert_eq!(
            budgets.left(&traffic, at(26)),
            Left { bytes: GB, by: Some(Spent::FillDay(10 * GB)) }
        );
        assert_eq!(
            budgets.left(&traffic, at(50)),
            Left { bytes: 7 * GB, by: Some(Spent::IngressMonth(25 * GB)) }
        );
        assert_eq!(Budgets::none(0).left(&traffic, at(26)).by, None);
    }

    #[test]
    fn flash_is_written_once_for_nothing_and_then_for_what_is_served() {
        let budgets = Budgets { flash_percent_of_egress_max: Some(200), ..Budgets::none(103 * GB) };
        let left = |flows: &[_]| budgets.left(&moved(flows), at(30)).bytes;
        assert_eq!(left(&[]), 100 * GB);
        assert_eq!(left(&[(1, 0, 100 * GB)]), 0);
        // 51.5 GB served are worth 103 GB written, which is 100 GB filled.
        assert_eq!(left(&[(1, 51_500_000_000, 100 * GB)]), 100 * GB);
        let spent = budgets.left(&moved(&[(1, 0, 100 * GB)]), at(30)).by.expect("a budget");
        assert!(spent.to_string().ends_with("or raise cache.flash_percent_of_egress_max"));
    }

    proptest! {
        /// Whatever is asked for in whatever steps, no day and no month gets more than it may.
        #[test]
        fn no_day_and_no_month_is_ever_above_its_budget(
            day_max in 0u64..5000, month_max in 0u64..40_000, flash_max in 0u64..6000,
            steps in prop::collection::vec((0u64..40, 0u64..3000), 0..100),
        ) {
            let budgets = Budgets {
                fill_bytes_per_day_max: Some(day_max),
                ingress_bytes_per_month_max: Some(month_max),
                flash_bytes_per_day_max: Some(flash_max),
                ..Budgets::none(0)
            };
            let (mut traffic, mut hour) = (Traffic::default(), 0);
            for (hours, wanted) in steps {
                hour += hours;
                let ingress_bytes = wanted.min(budgets.left(&traffic, at(hour)).bytes);
                traffic.add(Flow { egress_bytes: 0, ingress_bytes }, at(hour));
                let day = traffic.day(at(hour)).ingress_bytes;
                prop_assert!(day <= day_max && day * 103 <= flash_max * 100);
                prop_assert!(traffic.month(at(hour)).ingress_bytes <= month_max);
            }
        }
    }
}
