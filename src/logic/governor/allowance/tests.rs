use proptest::prelude::*;

use super::*;
use crate::logic::{
    governor::{Pacer, Permit},
    now::{UnixSeconds, WallTime},
    units::GB,
};

/// Saturday 2026-11-21, 00:00 UTC.
const T0: u64 = 1_795_219_200;
const LIMIT: u64 = 1_000_000;

fn synced(seconds: u64) -> Now {
    Now {
        monotonic: Monotonic(Duration::from_secs(seconds)),
        wall: WallTime::Synced(UnixSeconds(T0 + seconds)),
    }
}

fn unsynced(seconds: u64) -> Now {
    Now { wall: WallTime::Unsynced, ..synced(seconds) }
}

fn with(change: impl FnOnce(&mut Settings)) -> Governor {
    let mut settings = Settings::with_limit(LIMIT);
    change(&mut settings);
    Governor::new(settings, Traffic::default(), synced(0))
}

fn ruled(governor: &Governor) -> (u64, Reason) {
    let ruling = governor.snapshot().ruling;
    (ruling.egress_bytes_per_second, ruling.reason)
}

#[test]
fn the_whole_lines_ratio_counts_what_the_household_moves() {
    let mut settings = Settings::with_limit(LIMIT);
    settings.line_asymmetry.ratio_max_24_hours = Some(2);
    let history = |egress_bytes, ingress_bytes| {
        let mut line = Traffic::default();
        line.add(Flow { egress_bytes, ingress_bytes }, synced(0).wall);
        line
    };
    let governor = |line| {
        Governor::new(settings.clone(), Traffic::default(), synced(0)).with_line(line, synced(0))
    };
    let ruling = |governor: &Governor| governor.snapshot().ruling;
    assert_eq!(ruling(&governor(history(9 * GB, 9 * GB))).reason, Reason::Limit);
    let mut governor = governor(history(9 * GB, 5 * GB));
    assert_eq!(ruling(&governor).reason, Reason::AsymmetrySlowed);
    let line = |egress_bytes, ingress_bytes| Counters {
        line: Some(Flow { egress_bytes, ingress_bytes }),
        ..Counters::default()
    };
    governor.handle_counters(line(7 * GB, GB), synced(1));
    assert_eq!(ruling(&governor).reason, Reason::AsymmetrySlowed, "a first reading adds nothing");
    governor.handle_counters(line(8 * GB, GB), synced(2));
    assert_eq!(ruling(&governor).reason, Reason::AsymmetryStopped);
    governor.handle_counters(line(0, 0), synced(3));
    governor.handle_counters(line(0, 9 * GB), synced(4));
    assert_eq!(ruling(&governor).reason, Reason::Limit, "the household has downloaded");
}

#[test]
fn auto_mode_is_named_when_it_allows_least_and_does_not_move_the_ceiling() {
    let mut governor = Governor::new(Settings::with_limit(LIMIT), Traffic::default(), synced(0));
    assert!(governor.poll_allowance().is_some());
    let auto = |egress_bytes_per_second, gives_way| Counters {
        auto: Some(Auto { egress_bytes_per_second, line_bytes_per_second: Some(9), gives_way }),
        ..Counters::default()
    };
    for (rate, gives_way, expected) in [
        (LIMIT / 2, false, (LIMIT / 2, Reason::AutoLine)),
        (LIMIT / 9, true, (LIMIT / 9, Reason::AutoHousehold)),
        (2 * LIMIT, false, (LIMIT, Reason::Limit)),
    ] {
        governor.handle_counters(auto(rate, gives_way), synced(1));
        let snapshot = governor.snapshot();
        assert_eq!((snapshot.ruling.egress_bytes_per_second, snapshot.ruling.reason), expected);
        assert_eq!(snapshot.line_bytes_per_second, Some(9));
        assert_eq!(governor.poll_allowance(), None, "the ceiling is what it was");
    }
}

/// What is left to the household is no collapse of the line.
#[test]
fn giving_way_for_hours_is_not_taken_for_throttling() {
    let mut governor = Governor::new(Settings::with_limit(LIMIT), Traffic::default(), synced(0));
    let mut total = 0;
    for second in 1..7200 {
        let gives_way = second > 600;
        let rate = if gives_way { LIMIT / 100 } else { LIMIT };
        total += rate;
        let auto = Auto { egress_bytes_per_second: rate, line_bytes_per_second: None, gives_way };
        let counters = Counters { peers_waiting: 9, auto: Some(auto), ..egress(total) };
        governor.handle_counters(counters, synced(second));
        assert_ne!(governor.snapshot().ruling.reason, Reason::Throttled, "after {second} s");
    }
}

fn egress(egress_bytes_total: u64) -> Counters {
    Counters { egress_bytes_total, ..Counters::default() }
}

fn off_on_saturday_morning() -> Schedule {
    let mut schedule = Schedule::default();
    schedule.week[5] = Schedule::parse_day("F05FFFFFFFFFFFFFFFFFFFFF").expect("a day");
    schedule
}

#[test]
fn the_limit_alone_is_what_holds() {
    let mut governor = with(|_| {});
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit));
    assert_eq!(governor.poll_allowance(), Some(Allowance::BytesPerSecond(LIMIT)));
    assert_eq!(governor.poll_allowance(), None);
    governor.handle_limit(5000, synced(1));
    assert_eq!(governor.poll_allowance(), Some(Allowance::BytesPerSecond(5000)));
    assert_eq!(governor.poll_timeout(synced(1)), None);
}

#[test]
fn a_pause_ends_by_itself_and_goes_before_everything() {
    let mut governor = with(|s| s.schedule = off_on_saturday_morning());
    governor.handle_pause(Pause::Until(synced(60).monotonic), synced(0));
    assert_eq!(ruled(&governor), (0, Reason::Paused));
    assert_eq!(governor.poll_timeout(synced(1)), Some(synced(60).monotonic));
    governor.handle_timeout(synced(60));
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit));
    assert_eq!(governor.snapshot().pause, Pause::Off);
}

#[test]
fn follows_the_schedule_from_deadline_to_deadline() {
    let mut governor = with(|s| s.schedule = off_on_saturday_morning());
    let mut now = synced(0);
    let mut seen = vec![];
    for _ in 0..3 {
        now = synced(governor.poll_timeout(now).expect("another hour").0.as_secs());
        governor.handle_timeout(now);
        seen.push(ruled(&governor));
    }
    assert_eq!(
        seen,
        [(0, Reason::ScheduleOff), (LIMIT / 2, Reason::ScheduleReduced), (LIMIT, Reason::Limit)]
    );
}

#[test]
fn while_the_time_is_not_known_the_careful_hour_and_the_newest_day_hold() {
    let mut settings = Settings::with_limit(LIMIT);
    settings.schedule = off_on_saturday_morning();
    let governor = Governor::new(settings, Traffic::default(), unsynced(0));
    assert_eq!(ruled(&governor), (0, Reason::ClockUnset));

    let mut settings = Settings::with_limit(LIMIT);
    settings.caps.egress_bytes_per_day_max = Some(GB);
    let mut traffic = Traffic::default();
    let used = Flow { egress_bytes: GB, ingress_bytes: 0 };
    traffic.add_hour(UnixSeconds(T0).hour(), used);
    let mut governor = Governor::new(settings, traffic, unsynced(0));
    assert_eq!(ruled(&governor), (0, Reason::DailyCap));
    // The hub says that it is the next day.
    governor.handle_counters(egress(0), synced(86_400));
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit));
}

#[test]
fn caps_survive_a_restart_and_end_with_their_day_and_month() {
    let mut settings = Settings::with_limit(LIMIT);
    settings.caps =
        Caps { egress_bytes_per_day_max: Some(2 * GB), egress_bytes_per_month_max: Some(5 * GB) };
    let mut traffic = Traffic::default();
    let today = UnixSeconds(T0).hour();
    traffic.add_hour(today, Flow { egress_bytes: 3 * GB / 2, ingress_bytes: 0 });
    traffic.add_hour(
        crate::logic::now::UtcHour(today.0 - 30),
        Flow { egress_bytes: 2 * GB, ingress_bytes: 0 },
    );
    let mut governor = Governor::new(settings, traffic, synced(0));
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit));
    governor.handle_counters(egress(GB / 2), synced(1));
    assert_eq!(ruled(&governor), (0, Reason::DailyCap));
    governor.handle_timeout(synced(86_400));
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit));
    governor.handle_counters(egress(3 * GB / 2), synced(86_401));
    assert_eq!(ruled(&governor), (0, Reason::MonthlyCap));
    governor.handle_timeout(synced(10 * 86_400));
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit), "December");
}

#[test]
fn names_a_throttled_line_and_tries_again() {
    let mut governor = with(|_| {});
    let mut total = 0;
    let mut second = 0;
    let mut tell = |governor: &mut Governor, seconds: u64, rate: u64| {
        for _ in 0..seconds {
            second += 1;
            total += rate;
            let counters = Counters { peers_waiting: 9, ..egress(total) };
            governor.handle_counters(counters, synced(second));
        }
        second
    };
    tell(&mut governor, 600, LIMIT);
    let now = tell(&mut governor, 660, LIMIT / 20);
    assert_eq!(ruled(&governor), (0, Reason::Throttled));
    let again = governor.poll_timeout(synced(now)).expect("it is tried again");
    governor.handle_timeout(synced(again.0.as_secs()));
    assert_eq!(ruled(&governor), (LIMIT, Reason::Limit));
}

fn any_share() -> impl Strategy<Value = Share> {
    prop_oneof![Just(Share::OFF), Just(Share::FULL), (1u8..100).prop_map(Share::percent)]
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let week = prop::collection::vec(any_share(), 24);
    let cap = prop::option::of(0u64..200 * GB);
    let ratio = prop::option::of(1u32..50);
    (1024u64..20_000_000, week, -720i32..=840, (cap.clone(), cap), (ratio.clone(), ratio)).prop_map(
        |(limit, day, utc_offset_minutes, caps, ratios)| {
            let day: [Share; 24] = day.try_into().expect("24 hours");
            let mut settings = Settings::with_limit(limit);
            settings.schedule = Schedule { utc_offset_minutes, week: [day; 7] };
            settings.caps =
                Caps { egress_bytes_per_day_max: caps.0, egress_bytes_per_month_max: caps.1 };
            settings.asymmetry =
                Asymmetry { ratio_max_24_hours: ratios.0, ratio_max_30_days: ratios.1 };
            settings
        },
    )
}

proptest! {
    /// Each rule alone allows at least what all of them together do, and somebody is named who says
    /// exactly that.
    #[test]
    fn never_allows_more_than_any_single_rule(
        settings in any_settings(),
        paused in any::<bool>(),
        hours in prop::collection::vec((0u32..800, 0..20 * GB, 0..GB), 0..40),
        at in 0u64..14 * 86_400,
        time_known in any::<bool>(),
    ) {
        let now = if time_known { synced(at) } else { unsynced(at) };
        let mut traffic = Traffic::default();
        for (ago, egress_bytes, ingress_bytes) in hours {
            let hour = crate::logic::now::UtcHour(UnixSeconds(T0).hour().0 - ago);
            traffic.add_hour(hour, Flow { egress_bytes, ingress_bytes });
        }
        let mut settings = settings;
        settings.pause = if paused { Pause::UntilResumed } else { Pause::Off };
        let limit = settings.egress_bytes_per_second_max;
        let alone = |keep: &dyn Fn(&mut Settings)| {
            let mut one = Settings::with_limit(limit);
            keep(&mut one);
            Governor::new(one, traffic.clone(), now).snapshot().ruling
        };
        let rules = [
            alone(&|_| {}),
            alone(&|s| s.pause = settings.pause),
            alone(&|s| s.schedule = settings.schedule.clone()),
            alone(&|s| s.caps.egress_bytes_per_day_max = settings.caps.egress_bytes_per_day_max),
            alone(&|s| s.caps.egress_bytes_per_month_max = settings.caps.egress_bytes_per_month_max),
            alone(&|s| s.asymmetry = settings.asymmetry),
        ];
        let all = Governor::new(settings.clone(), traffic.clone(), now).snapshot().ruling;
        for rule in rules {
            prop_assert!(all.egress_bytes_per_second <= rule.egress_bytes_per_second);
        }
        prop_assert!(rules.contains(&all), "{all:?} is nobody's word");
    }

    /// A pacer that is fed by the governor, with counters that come late, never runs over a cap by
    /// more than what one interval's lateness brings.
    #[test]
    fn caps_hold_to_one_intervals_worth(
        limit in 20_000u64..50_000_000,
        cap in 1_000_000u64..200_000_000,
        late_millis in prop::collection::vec(0u64..1500, 1..40),
    ) {
        let mut governor = with(|s| {
            s.egress_bytes_per_second_max = limit;
            s.caps.egress_bytes_per_day_max = Some(cap);
        });
        let mut pacer = Pacer::new(governor.snapshot().ruling.allowance(), Monotonic::START);
        let (mut millis, mut rounds) = (0u64, late_millis.iter().cycle());
        for _ in 0..60 {
            let late = rounds.next().expect("it cycles");
            let until = millis + 1000 + late;
            while millis < until {
                let at = Monotonic(Duration::from_millis(millis));
                while pacer.take(16_384, at) == Permit::Granted {}
                millis += 20;
            }
            let now = Now { monotonic: Monotonic(Duration::from_millis(millis)), ..synced(millis / 1000) };
            governor.handle_counters(egress(pacer.spent_bytes()), now);
            if let Some(allowance) = governor.poll_allowance() {
                pacer.set_allowance(allowance, now.monotonic);
            }
        }
        // At most 2.5 s pass between two readings.
        let one_interval = limit.min(cap) * 5 / 2;
        prop_assert!(pacer.spent_bytes() <= cap + one_interval);
    }

    /// On time (within a timer's slack), not a byte runs over.
    #[test]
    fn caps_hold_to_the_byte_when_counters_are_on_time(
        limit in 20_000u64..50_000_000,
        cap in 1_000_000u64..200_000_000,
    ) {
        let mut governor = with(|s| {
            s.egress_bytes_per_second_max = limit;
            s.caps.egress_bytes_per_day_max = Some(cap);
        });
        let mut pacer = Pacer::new(governor.snapshot().ruling.allowance(), Monotonic::START);
        for millis in 0..60_000u64 {
            let at = Monotonic(Duration::from_millis(millis));
            if millis % 1000 == 0 {
                let now = Now { monotonic: at, ..synced(millis / 1000) };
                governor.handle_counters(egress(pacer.spent_bytes()), now);
                if let Some(allowance) = governor.poll_allowance() {
                    pacer.set_allowance(allowance, at);
                }
            }
            while pacer.take(16_384, at) == Permit::Granted {}
            prop_assert!(pacer.spent_bytes() <= cap);
        }
        if limit * 50 > cap {
            prop_assert!(pacer.spent_bytes() + 200 * 1024 >= cap, "and it is used up");
        }
    }
}
