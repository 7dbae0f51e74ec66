//! Into which hour usage goes that was counted before the time was known. It is held with the moment
//! of the boot in which it happened, and dated once the time is known. Must not read a clock.

use super::super::now::{UnixSeconds, UtcHour};

/// The kernel's random name for one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootId(pub [u8; 16]);

/// A moment that needs no date: seconds since the machine was switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootMoment {
    pub boot: BootId,
    pub seconds: u32,
}

/// What is known of when usage happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub moment: BootMoment,
    /// `None` while the time is not known well enough for money.
    pub hour: Option<UtcHour>,
}

/// The line of the ledger that usage belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    Hour(UtcHour),
    /// Undated; the moment is a coarse one.
    Held(BootMoment),
}

/// For so long undated usage is held by the minute; a boot that has not learnt the time by then is
/// unlikely to earn anything, and is held by the hour so that its lines stay few.
const FINE_SECONDS: u32 = 6 * 3600;

impl BootMoment {
    fn coarse(self) -> BootMoment {
        let grain = if self.seconds < FINE_SECONDS { 60 } else { 3600 };
        BootMoment { seconds: self.seconds / grain * grain, ..self }
    }
}

impl Stamp {
    pub fn when(&self) -> When {
        match self.hour {
            Some(hour) => When::Hour(hour),
            None => When::Held(self.moment.coarse()),
        }
    }
}

/// The time, once it is known, and what it says of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTime {
    pub boot: BootId,
    pub boot_began: UnixSeconds,
    pub now: UnixSeconds,
}

/// Usage of this boot goes into the hour in which it happened. Of an earlier boot that never learnt
/// the time, nobody knows more than that it was over when this one began: that hour is taken, the
/// latest possible, but none of an earlier month, which may be settled. Never in the future.
pub fn date(moment: BootMoment, known: &KnownTime) -> UtcHour {
    let now = known.now.hour();
    let began = known.boot_began.hour();
    let hour = match moment.boot == known.boot {
        true => UnixSeconds(known.boot_began.0 + u64::from(moment.seconds)).hour(),
        false => began.max(now.day().month().hours().start),
    };
    hour.min(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THIS: BootId = BootId([1; 16]);
    const EARLIER: BootId = BootId([2; 16]);
    /// 2026-11-20 00:00.
    const MIDNIGHT: u64 = 1_795_132_800;

    #[test]
    fn dates_usage_of_this_boot_to_its_own_hour() {
        let known = KnownTime {
            boot: THIS,
            boot_began: UnixSeconds(MIDNIGHT - 600),
            now: UnixSeconds(MIDNIGHT + 7200),
        };
        let at = |seconds| date(BootMoment { boot: THIS, seconds }, &known);
        let midnight = UnixSeconds(MIDNIGHT).hour();
        assert_eq!(at(599), UtcHour(midnight.0 - 1));
        assert_eq!(at(600), midnight);
        assert_eq!(at(4200), UtcHour(midnight.0 + 1));
    }

    #[test]
    fn dates_usage_of_a_lost_boot_as_late_as_it_can_have_been_but_not_into_a_past_month() {
        let lost = BootMoment { boot: EARLIER, seconds: 5 };
        let known = |began, now| KnownTime {
            boot: THIS,
            boot_began: UnixSeconds(began),
            now: UnixSeconds(now),
        };
        let began = MIDNIGHT - 100_000;
        assert_eq!(date(lost, &known(began, MIDNIGHT)), UnixSeconds(began).hour());
        let last_month = MIDNIGHT - 25 * 86_400;
        let first = date(lost, &known(last_month, MIDNIGHT));
        assert_eq!(first.day().to_string(), "2026-11-01");
    }

    #[test]
    fn holds_the_first_hours_by_the_minute() {
        let when = |seconds| {
            let moment = BootMoment { boot: THIS, seconds };
            Stamp { moment, hour: None }.when()
        };
        assert_eq!(when(119), when(60));
        assert_ne!(when(120), when(60));
        assert_eq!(when(6 * 3600), when(7 * 3600 - 1));
        let hour = Some(UtcHour(7));
        let moment = BootMoment { boot: THIS, seconds: 3 };
        assert_eq!(Stamp { moment, hour }.when(), When::Hour(UtcHour(7)));
    }

    proptest! {
        /// A boot that learns the time late dates what it held as if it had known it all along,
        /// to within a minute (an hour, if it took more than six).
        #[test]
        fn it_does_not_matter_when_the_time_becomes_known(
            began in MIDNIGHT..MIDNIGHT + 40 * 86_400,
            served in 0u32..200_000,
            waited in 0u64..200_000,
        ) {
            let stamp = Stamp { moment: BootMoment { boot: THIS, seconds: served }, hour: None };
            let When::Held(held) = stamp.when() else { panic!("undated") };
            let now = UnixSeconds(began + u64::from(served) + waited);
            let hour = date(held, &KnownTime { boot: THIS, boot_began: UnixSeconds(began), now });
            let truth = began + u64::from(served);
            let grain = if served < FINE_SECONDS { 60 } else { 3600 };
            prop_assert!(hour <= UnixSeconds(truth).hour());
            prop_assert!(hour >= UnixSeconds(truth - grain + 1).hour());
        }

        #[test]
        fn never_dates_into_the_future_or_into_a_month_that_is_over(
            began in 0u64..4_000_000_000,
            up in 0u64..100_000_000,
            seconds in any::<u32>(),
        ) {
            let known = KnownTime {
                boot: THIS, boot_began: UnixSeconds(began), now: UnixSeconds(began + up),
            };
            let now = known.now.hour();
            let [ours, lost] =
                [THIS, EARLIER].map(|boot| date(BootMoment { boot, seconds }, &known));
            prop_assert!(ours <= now);
            prop_assert!(lost <= now);
            prop_assert_eq!(lost.day().month(), now.day().month());
        }
    }
}
