//! The household's figures, in virtual time. A simulation: what it shows is that the decisions are
//! right, not that a kernel and a real line carry them out.

use proptest::prelude::*;

use super::{sim::Uplink, *};

const SECOND: Duration = Duration::from_secs(1);
const LINE_MBIT: u64 = 20;
const LINE: u64 = LINE_MBIT * 125_000;
const RUNS: u64 = 5;
/// Connected peers, and how much a probe's round trip varies to either side, in microseconds.
const CASES: [(u32, u64); 4] = [(8, 0), (40, 0), (8, 500), (40, 1000)];

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Of five runs that begin at other moments.
fn median<T: Ord + Copy>(run: impl Fn(u64) -> T) -> T {
    let mut results: Vec<T> = (0..RUNS).map(run).collect();
    results.sort_unstable();
    results[results.len() / 2]
}

/// Serving for a while, and stopped in whatever it was about to do.
fn settled(peers: u32, jitter_micros: u64, seed: u64) -> Uplink {
    let mut uplink = Uplink::new(LINE_MBIT, peers, jitter_micros, seed);
    uplink.run(10 * SECOND + millis(seed * 1370));
    uplink.take_pings();
    uplink
}

#[test]
fn household_pings_stay_short_while_nine_tenths_of_the_line_are_used() {
    for (peers, jitter) in CASES {
        let figures = |seed| {
            let mut uplink = settled(peers, jitter, seed);
            let served = uplink.served(30 * SECOND);
            (served, uplink.take_pings())
        };
        let served = median(|seed| figures(seed).0);
        let p95 = median(|seed| figures(seed).1[1]);
        let p99 = median(|seed| figures(seed).1[2]);
        println!("{peers} peers, jitter {jitter} µs: {served} B/s, p95 {p95:?}, p99 {p99:?}");
        assert!(served >= LINE * 9 / 10, "{peers} peers, jitter {jitter}: {served} B/s");
        assert!(p95 <= Duration::from_micros(2500), "{peers} peers, jitter {jitter}: p95 {p95:?}");
        assert!(p99 <= millis(5), "{peers} peers, jitter {jitter}: p99 {p99:?}");
    }
}

#[test]
fn gives_way_to_the_households_upload_and_comes_back() {
    let alone = {
        let mut uplink = Uplink::limited(0, LINE_MBIT, 0, 0, 0);
        uplink.start_upload();
        uplink.run(10 * SECOND);
        uplink.household_bytes()
    };
    for (peers, jitter) in CASES {
        let run = |seed| {
            let mut uplink = settled(peers, jitter, seed);
            let before = uplink.controller.snapshot().bytes_per_second;
            let started = uplink.micros;
            uplink.start_upload();
            uplink.run(10 * SECOND);
            let half = uplink.time_until(started, |rate| rate <= before / 2);
            let tenth = uplink.time_until(started, |rate| rate < before / 10);
            let share = uplink.household_bytes() * 1000 / alone;
            let stopped = uplink.micros;
            uplink.stop_upload();
            uplink.run(10 * SECOND);
            let back = uplink.time_until(stopped, |rate| rate >= LINE * 9 / 10);
            let never = Duration::MAX;
            (half.unwrap_or(never), tenth.unwrap_or(never), share, back.unwrap_or(never))
        };
        let (half, tenth) = (median(|seed| run(seed).0), median(|seed| run(seed).1));
        let (share, back) = (median(|seed| run(seed).2), median(|seed| run(seed).3));
        println!("{peers} peers, jitter {jitter} µs: {half:?} {tenth:?} {share} ‰ {back:?}");
        assert!(half <= millis(350), "{peers} peers, jitter {jitter}: half after {half:?}");
        assert!(tenth <= millis(600), "{peers} peers, jitter {jitter}: a tenth after {tenth:?}");
        assert!(share >= 970, "{peers} peers, jitter {jitter}: {share} ‰ of alone");
        assert!(back <= 8 * SECOND, "{peers} peers, jitter {jitter}: back after {back:?}");
    }
}

#[test]
fn settles_on_a_slower_line_within_three_seconds() {
    for (peers, jitter) in CASES {
        let figures = |seed| {
            let mut uplink = settled(peers, jitter, seed);
            uplink.set_mbit(8);
            uplink.run(3 * SECOND);
            uplink.take_pings();
            let served = uplink.served(5 * SECOND);
            (served, uplink.take_pings())
        };
        let served = median(|seed| figures(seed).0);
        let p95 = median(|seed| figures(seed).1[1]);
        let p99 = median(|seed| figures(seed).1[2]);
        println!("{peers} peers, jitter {jitter} µs: {served} B/s, p95 {p95:?}, p99 {p99:?}");
        assert!(served >= 900_000, "{peers} peers, jitter {jitter}: {served} B/s");
        // A packet takes 1.5 ms on this line.
        assert!(p95 <= millis(12), "{peers} peers, jitter {jitter}: p95 {p95:?}");
        assert!(p99 <= millis(20), "{peers} peers, jitter {jitter}: p99 {p99:?}");
    }
}

/// The counters of the WAN interface tell before there is any queue to see.
#[test]
fn on_a_router_it_makes_room_within_a_few_ticks() {
    let run = |seed, is_router| {
        let mut uplink = Uplink::new(LINE_MBIT, 8, 0, seed);
        uplink.is_router = is_router;
        uplink.run(10 * SECOND + millis(seed * 1370));
        let before = uplink.controller.snapshot().bytes_per_second;
        let started = uplink.micros;
        uplink.start_upload();
        uplink.run(SECOND);
        let half = uplink.time_until(started, |rate| rate <= before / 2);
        half.unwrap_or(Duration::MAX)
    };
    let (router, host) = (median(|seed| run(seed, true)), median(|seed| run(seed, false)));
    println!("at half after {router:?}, on a host {host:?}");
    assert!(router <= millis(80) && router < host, "{router:?}, on a host {host:?}");
}

#[test]
fn a_routers_counters_cost_nothing_while_nobody_else_sends() {
    let figures = |seed| {
        let mut uplink = Uplink::new(LINE_MBIT, 8, 500, seed);
        uplink.is_router = true;
        uplink.run(10 * SECOND + millis(seed * 1370));
        uplink.served(20 * SECOND)
    };
    let served = median(figures);
    assert!(served >= LINE * 9 / 10, "{served} B/s");
}

#[test]
fn begins_anew_when_nothing_was_known_and_careful_when_something_was() {
    let mut controller = DelayController::new(u64::MAX, Monotonic::START);
    controller.handle_path_change(Monotonic(SECOND));
    assert_eq!(controller.snapshot().state, State::Start);
    let mut uplink = settled(8, 0, 3);
    let before = uplink.controller.snapshot();
    uplink.controller.handle_resume(Monotonic(Duration::from_micros(uplink.micros)));
    let after = uplink.controller.snapshot();
    assert!(after.bytes_per_second < before.bytes_per_second / 2, "{after:?} after {before:?}");
    assert_eq!(after.line_bytes_per_second, before.line_bytes_per_second);
    uplink.run(3 * SECOND);
    let later = uplink.controller.snapshot().bytes_per_second;
    assert!(later >= LINE * 85 / 100, "{later} B/s");
}

#[test]
fn echoes_that_were_held_up_together_are_no_queue() {
    let mut uplink = settled(8, 0, 2);
    let mut now = Monotonic(Duration::from_micros(uplink.micros));
    let before = uplink.controller.snapshot();
    for late in [60, 40, 20] {
        now = now + millis(1);
        let sample = Sample {
            rtt: millis(20 + late),
            acknowledged_bytes_total: 1 << 40,
            acknowledged_at: now,
            peers_want_more: true,
        };
        uplink.controller.handle_sample(sample, now);
    }
    assert_eq!(uplink.controller.snapshot().bytes_per_second, before.bytes_per_second);
}

#[test]
fn finds_a_faster_line_by_itself() {
    let back = median(|seed| {
        let mut uplink = Uplink::new(8, 8, 0, seed);
        uplink.run(20 * SECOND);
        let changed = uplink.micros;
        uplink.set_mbit(LINE_MBIT);
        uplink.run(30 * SECOND);
        uplink.time_until(changed, |rate| rate >= LINE * 9 / 10).unwrap_or(Duration::MAX)
    });
    assert!(back <= 20 * SECOND, "{back:?}");
}

#[test]
fn silence_is_no_sign_of_a_slow_line() {
    let mut uplink = settled(8, 0, 1);
    let before = uplink.controller.snapshot().line_bytes_per_second.expect("it knows the line");
    uplink.peers_want_more = false;
    uplink.run(60 * SECOND);
    let after = uplink.controller.snapshot().line_bytes_per_second.expect("it knows the line");
    assert!(after >= before * 9 / 10, "{before} became {after}");
}

#[test]
fn paces_at_the_limit_when_the_line_carries_more() {
    let mut uplink = Uplink::limited(1_000_000, LINE_MBIT, 8, 0, 3);
    uplink.run(5 * SECOND);
    assert_eq!(uplink.controller.snapshot().bytes_per_second, 1_000_000);
    uplink.controller.handle_rate_max(500_000);
    assert_eq!(uplink.controller.poll_rate(), Some(500_000));
}

#[test]
fn knows_the_line_again_after_a_pause() {
    let mut uplink = settled(8, 0, 5);
    uplink.set_rate_max(0);
    uplink.run(60 * SECOND);
    assert_eq!(uplink.served(10 * SECOND), 0);
    uplink.set_rate_max(u64::MAX);
    uplink.run(SECOND);
    let served = uplink.served(10 * SECOND);
    assert!(served >= LINE * 85 / 100, "{served} B/s");
    // Also when it never saw the line before.
    let mut uplink = Uplink::limited(0, LINE_MBIT, 8, 0, 5);
    uplink.run(60 * SECOND);
    uplink.set_rate_max(u64::MAX);
    uplink.run(30 * SECOND);
    let served = uplink.served(10 * SECOND);
    assert!(served >= LINE * 85 / 100, "{served} B/s");
}

#[test]
fn gives_way_when_probes_stay_out() {
    let mut controller = DelayController::new(u64::MAX, Monotonic::START);
    let mut now = Monotonic::START;
    let before = controller.snapshot().bytes_per_second;
    let mut steps = 0;
    while let Some(due) = controller.poll_timeout() {
        assert!(due > now && steps < 10, "it falls to the floor, step by step");
        (now, steps) = (due, steps + 1);
        controller.handle_timeout(due);
    }
    assert!(before > RATE_MIN && controller.snapshot().bytes_per_second == RATE_MIN);
}

#[test]
fn takes_a_steady_longer_way_for_a_longer_way() {
    let mut uplink = settled(8, 500, 2);
    uplink.base_rtt_micros += 15_000;
    uplink.run(10 * SECOND);
    assert!(uplink.controller.snapshot().bytes_per_second < LINE / 10, "it looks like a queue");
    uplink.run(90 * SECOND);
    let served = uplink.served(10 * SECOND);
    assert!(served >= LINE * 8 / 10, "{served} B/s");
}

#[test]
fn a_long_upload_is_not_taken_for_a_longer_way() {
    let mut uplink = settled(8, 0, 4);
    uplink.start_upload();
    uplink.run(300 * SECOND);
    let served = uplink.served(30 * SECOND);
    assert!(served < LINE / 20, "{served} B/s");
}

proptest! {
    /// Whatever the network answers, the rate stays between the floor and the other rules' allowance.
    #[test]
    fn never_paces_above_the_allowance_or_below_the_floor(
        rate_max in 1_000u64..20_000_000,
        lowered in 1_000u64..20_000_000,
        samples in prop::collection::vec((0u64..500_000, 0u64..2_000_000, any::<bool>()), 1..200),
    ) {
        let mut controller = DelayController::new(rate_max, Monotonic::START);
        let (mut total, mut max) = (0, rate_max);
        for (i, (rtt_micros, bytes, peers_want_more)) in samples.into_iter().enumerate() {
            if i == 100 {
                max = lowered;
                controller.handle_rate_max(lowered);
            }
            total += bytes;
            let sample = Sample {
                rtt: Duration::from_micros(rtt_micros),
                acknowledged_bytes_total: total,
                acknowledged_at: Monotonic(PROBE_INTERVAL * i as u32),
                peers_want_more,
            };
            controller.handle_sample(sample, Monotonic(PROBE_INTERVAL * i as u32));
            let rate = controller.snapshot().bytes_per_second;
            prop_assert!(rate <= max, "{rate} over {max}");
            prop_assert!(rate >= RATE_MIN.min(max).min(rate_max), "{rate} is less than the floor");
        }
    }
}
