//! The owner's week: for each hour of local time, how much of the limit holds. Knows no time zones:
//! local time is UTC and a fixed number of minutes, so summer time is the owner's to follow.

use std::{array, fmt};

use crate::logic::now::{UnixSeconds, WallTime};

pub const DAYS: usize = 7;
pub const HOURS: usize = 24;
/// As the configuration names them; the week begins on Monday.
pub const DAY_NAMES: [&str; DAYS] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// From Baker Island to the Line Islands.
pub const UTC_OFFSET_MINUTES: std::ops::RangeInclusive<i32> = -12 * 60..=14 * 60;

/// A part of the limit in percent, 100 at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

impl Share {
    pub const OFF: Share = Share(0);
    pub const FULL: Share = Share(100);

    pub const fn percent(percent: u8) -> Share {
        Share(if percent < 100 { percent } else { 100 })
    }

    pub fn is_off(self) -> bool {
        self == Share::OFF
    }

    pub fn of(self, bytes_per_second: u64) -> u64 {
        let part = u128::from(bytes_per_second) * u128::from(self.0) / 100;
        u64::try_from(part).expect("a part is not more than the whole")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub utc_offset_minutes: i32,
    /// Monday first, midnight first.
    pub week: [[Share; HOURS]; DAYS],
}

/// One day as it is written: 24 characters, one an hour from midnight on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADay {
    #[error("needs 24 characters, one for each hour from midnight on, and has {0}")]
    Length(usize),
    #[error("has {0:?}: write F for full, 1 to 9 for 10 to 90 percent, 0 for off")]
    Character(char),
}

impl Default for Schedule {
    /// Always full, as if there were none.
    fn default() -> Schedule {
        Schedule { utc_offset_minutes: 0, week: [[Share::FULL; HOURS]; DAYS] }
    }
}

impl Schedule {
    /// `F` is full, a digit is that many tenths, `0` is off.
    pub fn parse_day(text: &str) -> Result<[Share; HOURS], NotADay> {
        let hours = text
            .chars()
            .map(|c| match (c, c.to_digit(10)) {
                ('F', _) => Ok(Share::FULL),
                (_, Some(tenths)) => Ok(Share::percent(tenths as u8 * 10)),
                _ => Err(NotADay::Character(c)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        <[Share; HOURS]>::try_from(hours).map_err(|hours| NotADay::Length(hours.len()))
    }

    /// What holds now. While the time is not known it is the most careful hour of the week: to serve
    /// in an hour that the owner keeps would break a promise, to wait for the hub to tell the time
    /// costs a few cents.
    pub fn share(&self, wall: WallTime) -> Share {
        match wall {
            WallTime::Synced(now) => self.at(now),
            WallTime::Unsynced => self.week.iter().flatten().copied().min().unwrap_or(Share::FULL),
        }
    }

    /// True when every hour is full.
    pub fn is_trivial(&self) -> bool {
        self.week.iter().flatten().all(|share| *share == Share::FULL)
    }

    /// Seconds to the next full hour of local time.
    pub fn seconds_to_next_hour(&self, now: UnixSeconds) -> u64 {
        3600 - self.local_seconds(now) % 3600
    }

    fn at(&self, now: UnixSeconds) -> Share {
        let (day, hour) = self.day_and_hour(now);
        self.week[day][hour]
    }

    /// Of local time, as indices into the week.
    pub fn day_and_hour(&self, now: UnixSeconds) -> (usize, usize) {
        let local_hours = self.local_seconds(now) / 3600;
        // 1970-01-01 was a Thursday.
        let day = (local_hours / HOURS as u64 + 3) % DAYS as u64;
        (day as usize, (local_hours % HOURS as u64) as usize)
    }

    fn local_seconds(&self, now: UnixSeconds) -> u64 {
        now.0.saturating_add_signed(i64::from(self.utc_offset_minutes) * 60)
    }
}

/// One line a day, as it is parsed.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, day) in DAY_NAMES.iter().zip(&self.week) {
            let hours: [char; HOURS] = array::from_fn(|hour| match day[hour] {
                Share::FULL => 'F',
                Share(percent) => char::from(b'0' + percent / 10),
            });
            writeln!(f, "{name} {}", hours.iter().collect::<String>())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday 2026-11-21, 07:30 UTC.
    const SATURDAY: UnixSeconds = UnixSeconds(1_795_246_200);

    fn with_day(day: usize, text: &str) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.week[day] = Schedule::parse_day(text).unwrap();
        schedule
    }

    #[test]
    fn reads_a_day_hour_by_hour() {
        let day = Schedule::parse_day("FFFFFFFF555555555505FFF0").unwrap();
        assert_eq!(day[7], Share::FULL);
        assert_eq!(day[8], Share::percent(50));
        assert_eq!((day[18], day[23]), (Share::OFF, Share::OFF));
        assert_eq!(Schedule::parse_day("FF"), Err(NotADay::Length(2)));
        let words = Schedule::parse_day("fFFFFFFFFFFFFFFFFFFFFFFF");
        assert_eq!(words, Err(NotADay::Character('f')));
        let shown = with_day(1, "FFFFFFFF555555555505FFF0").to_string();
        assert!(shown.contains("tuesday FFFFFFFF555555555505FFF0\n"), "{shown}");
    }

    #[test]
    fn follows_local_time_over_midnight_and_the_end_of_the_week() {
        let mut schedule = with_day(5, "FFFFFFF0FFFFFFFFFFFFFFFF");
        assert_eq!(schedule.share(WallTime::Synced(SATURDAY)), Share::OFF);
        schedule.utc_offset_minutes = 60;
        assert_eq!(schedule.share(WallTime::Synced(SATURDAY)), Share::FULL);
        // In Shanghai, Monday begins on Sunday at 16:00 UTC.
        let mut monday = with_day(0, "0FFFFFFFFFFFFFFFFFFFFFFF");
        monday.utc_offset_minutes = 480;
        let sunday_1600_utc = UnixSeconds(SATURDAY.0 + 86_400 + 8 * 3600 + 1800);
        assert_eq!(monday.share(WallTime::Synced(sunday_1600_utc)), Share::OFF);
        let before = UnixSeconds(sunday_1600_utc.0 - 1);
        assert_eq!(monday.share(WallTime::Synced(before)), Share::FULL);
    }

    #[test]
    fn keeps_to_the_most_careful_hour_while_the_time_is_not_known() {
        assert_eq!(Schedule::default().share(WallTime::Unsynced), Share::FULL);
        let half = with_day(2, "FFFFFFFF5FFFFFFFFFFFFFFF");
        assert_eq!(half.share(WallTime::Unsynced), Share::percent(50));
        let off = with_day(2, "FFFFFFFF0FFFFFFFFFFFFFFF");
        assert_eq!(off.share(WallTime::Unsynced), Share::OFF);
    }

    #[test]
    fn knows_when_the_next_local_hour_begins() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.seconds_to_next_hour(SATURDAY), 1800);
        schedule.utc_offset_minutes = 345; // Kathmandu
        assert_eq!(schedule.seconds_to_next_hour(SATURDAY), 2700);
    }
}
