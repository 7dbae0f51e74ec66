//! The hours in which the owner lets fills run, and how fast: a week of shares of the fill's own rate.

use crate::logic::{
    governor::allowance::{DAY_NAMES, Schedule},
    now::{UnixSeconds, WallTime},
};

/// The owner's rules for fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    pub week: Schedule,
    /// `None` is as fast as it comes.
    pub bytes_per_second_max: Option<u64>,
}

/// What the rules say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `None` is as fast as it comes.
    Fill { bytes_per_second: Option<u64> },
    /// One sentence for the owner.
    Wait { sentence: String },
}

impl Hours {
    pub fn verdict(&self, wall: WallTime) -> Verdict {
        let share = self.week.share(wall);
        if !share.is_off() {
            return Verdict::Fill {
                bytes_per_second: self.bytes_per_second_max.map(|rate| share.of(rate).max(1)),
            };
        }
        let sentence = match wall {
            WallTime::Unsynced => {
                "waits for its window: fill.windows has hours that are off, and the time is not \
                 known yet"
                    .to_owned()
            }
            WallTime::Synced(now) => self.waits(now),
        };
        Verdict::Wait { sentence }
    }

    /// When to ask again at the latest: a window begins and ends with an hour of local time.
    pub fn seconds_to_next_look(&self, wall: WallTime) -> u64 {
        const UNKNOWN: u64 = 60;
        wall.synced().map_or(UNKNOWN, |now| self.week.seconds_to_next_hour(now))
    }

    fn waits(&self, now: UnixSeconds) -> String {
        match self.next_open(now) {
            Some((day, hour)) => {
                format!("waits for its window, which opens on {} at {hour:02}:00", capitalised(day))
            }
            None => "waits for a window, but fill.windows has none: give it an hour that is not 0"
                .to_owned(),
        }
    }

    /// Day and hour of local time.
    fn next_open(&self, now: UnixSeconds) -> Option<(&'static str, usize)> {
        const HOUR: u64 = 3600;
        let first = now.0 + self.week.seconds_to_next_hour(now);
        let starts = (0..7 * 24).map(|hour| UnixSeconds(first + hour * HOUR));
        starts
            .filter(|at| !self.week.share(WallTime::Synced(*at)).is_off())
            .map(|at| {
                let (day, hour) = self.week.day_and_hour(at);
                (DAY_NAMES[day], hour)
            })
            .next()
    }
}

fn capitalised(day: &str) -> String {
    let (first, rest) = day.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::governor::allowance::Share;

    /// Saturday 2026-11-21, 07:30 UTC.
    const SATURDAY: WallTime = WallTime::Synced(UnixSeconds(1_795_246_200));

    fn nights(bytes_per_second_max: Option<u64>) -> Hours {
        let mut week = Schedule::default();
        let day = Schedule::parse_day("FF5000000000000000000000").expect("a day");
        week.week = [day; 7];
        Hours { week, bytes_per_second_max }
    }

    #[test]
    fn without_rules_a_fill_goes_as_fast_as_it_comes() {
        let verdict = Hours::default().verdict(WallTime::Unsynced);
        assert_eq!(verdict, Verdict::Fill { bytes_per_second: None });
    }

    #[test]
    fn says_when_its_window_opens() {
        let Verdict::Wait { sentence } = nights(None).verdict(SATURDAY) else {
            panic!("it is day")
        };
        assert_eq!(sentence, "waits for its window, which opens on Sunday at 00:00");
        let mut east = nights(None);
        east.week.utc_offset_minutes = 16 * 60 + 30 - 150; // 21:30 of the same day
        assert!(matches!(east.verdict(SATURDAY), Verdict::Wait { .. }));
        let mut never = Hours::default();
        never.week.week = [[Share::OFF; 24]; 7];
        let Verdict::Wait { sentence } = never.verdict(SATURDAY) else { panic!("never") };
        assert!(sentence.contains("has none"), "{sentence}");
        let unknown = nights(None).verdict(WallTime::Unsynced);
        assert!(matches!(unknown, Verdict::Wait { sentence } if sentence.contains("not known")));
    }

    #[test]
    fn a_digit_is_a_part_of_the_rate() {
        let mut hours = nights(Some(1000));
        hours.week.utc_offset_minutes = -(5 * 60 + 30); // 02:00
        assert_eq!(hours.verdict(SATURDAY), Verdict::Fill { bytes_per_second: Some(500) });
        hours.week.utc_offset_minutes = -(6 * 60 + 30);
        assert_eq!(hours.verdict(SATURDAY), Verdict::Fill { bytes_per_second: Some(1000) });
        assert_eq!(hours.seconds_to_next_look(SATURDAY), 3600);
    }
}
