//! The two clocks. A router boots in 1970: rates and leases in hand run on monotonic time, and
//! money is written only under wall time that is known to be right. Reads neither clock itself.

use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Time since an arbitrary start (the process's own), which never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    pub const START: Monotonic = Monotonic(Duration::ZERO);

    pub fn saturating_since(self, earlier: Monotonic) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Monotonic;
    fn add(self, d: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(d))
    }
}

impl Sub<Duration> for Monotonic {
    type Output = Monotonic;
    fn sub(self, d: Duration) -> Monotonic {
        Monotonic(self.0.saturating_sub(d))
    }
}

/// Seconds since 1970-01-01 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    pub fn hour(self) -> UtcHour {
        UtcHour(u32::try_from(self.0 / 3600).unwrap_or(u32::MAX))
    }
}

/// Whole hours since 1970-01-01 UTC: the grain of the ledger.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UtcHour(pub u32);

impl UtcHour {
    pub fn start(self) -> UnixSeconds {
        UnixSeconds(u64::from(self.0) * 3600)
    }

    pub fn day(self) -> UtcDay {
        UtcDay(self.0 / 24)
    }
}

/// Whole days since 1970-01-01 UTC; written `2026-11-21` on the wire and on screens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay(pub u32);

impl UtcDay {
    /// Year, month (1–12), day (1–31) of the proleptic Gregorian calendar.
    pub fn civil(self) -> (u32, u32, u32) {
        // Howard Hinnant's `civil_from_days`, for days at or after 1970.
        let z = self.0 + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u32::from(month <= 2);
        (year, month, day)
    }

    pub fn month(self) -> UtcMonth {
        let (year, month, _) = self.civil();
        UtcMonth { year, month }
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = self.civil();
        write!(f, "{y:04}-{m:02}-{d:02}")
    }
}

/// A calendar month in UTC, written `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcMonth {
    pub year: u32,
    pub month: u32,
}

impl UtcMonth {
    /// The hours of this month: the first, and the first of the next month.
    pub fn hours(self) -> std::ops::Range<UtcHour> {
        let next = match self.month {
            12 => UtcMonth { year: self.year + 1, month: 1 },
            month => UtcMonth { month: month + 1, ..self },
        };
        UtcHour(self.first_day().0 * 24)..UtcHour(next.first_day().0 * 24)
    }

    pub fn first_day(self) -> UtcDay {
        // Howard Hinnant's `days_from_civil`, for the first of a month at or after 1970.
        let year = self.year - u32::from(self.month <= 2);
        let era = year / 400;
        let yoe = year - era * 400;
        let mp = (self.month + 9) % 12;
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + (153 * mp + 2) / 5;
        UtcDay(era * 146_097 + doe - 719_468)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a month is written like 2026-11")]
pub struct NotAMonth;

impl FromStr for UtcMonth {
    type Err = NotAMonth;
    fn from_str(s: &str) -> Result<Self, NotAMonth> {
        let (year, month) = s.split_once('-').ok_or(NotAMonth)?;
        if year.len() != 4
            || month.len() != 2
            || !s.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        {
            return Err(NotAMonth);
        }
        let year = year.parse().map_err(|_| NotAMonth)?;
        let month = month.parse().map_err(|_| NotAMonth)?;
        if year < 1970 || !(1..=12).contains(&month) {
            return Err(NotAMonth);
        }
        Ok(UtcMonth { year, month })
    }
}

impl fmt::Display for UtcMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// Wall time, or the admission that it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallTime {
    Synced(UnixSeconds),
    Unsynced,
}

impl WallTime {
    pub fn synced(self) -> Option<UnixSeconds> {
        match self {
            WallTime::Synced(t) => Some(t),
            WallTime::Unsynced => None,
        }
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub monotonic: Monotonic,
    pub wall: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_days_as_calendar_dates() {
        assert_eq!(UtcDay(0).to_string(), "1970-01-01");
        assert_eq!(UnixSeconds(1_709_164_800).hour().day().to_string(), "2024-02-29");
        assert_eq!(UnixSeconds(1_795_219_199).hour().day().to_string(), "2026-11-20");
        assert_eq!(UnixSeconds(1_795_219_200).hour().day().month().to_string(), "2026-11");
    }

    #[test]
    fn reads_months_and_knows_their_hours() {
        let november: UtcMonth = "2026-11".parse().expect("a month");
        assert_eq!(november.to_string(), "2026-11");
        assert_eq!(november.first_day().to_string(), "2026-11-01");
        for text in ["1970-01", "2024-02", "2026-12", "2100-03"] {
            let month: UtcMonth = text.parse().expect("a month");
            let hours = month.hours();
            assert_eq!(hours.start.day().month(), month, "{text}");
            assert_eq!(UtcHour(hours.end.0 - 1).day().month(), month, "{text}");
            assert_ne!(hours.end.day().month(), month, "{text}");
        }
        for bad in ["", "2026", "2026-13", "2026-00", "1969-12", "2026-1", "+026-11", "2026-1-1"] {
            assert_eq!(bad.parse::<UtcMonth>(), Err(NotAMonth), "{bad}");
        }
    }
}
