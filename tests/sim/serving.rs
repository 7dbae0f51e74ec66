//! Swarms and what they must not be able to do: exceed the allowance or the slots, starve anyone, hold
//! what others could use, or grow without bound.

use std::time::Duration;

use larder::logic::choke::{TENURE, slots_for};
use larder::logic::governor::Allowance;
use proptest::prelude::*;

use crate::{
    net::Line,
    peer::{BLOCK_BYTES, Kind},
    world::World,
};

const MBIT: u64 = 125_000;

/// A good line: never slower than the device.
fn line(round_trip_millis: u64) -> Line {
    Line {
        bytes_per_second: 100 * MBIT,
        round_trip: Duration::from_millis(round_trip_millis),
        send_buffer_bytes: 128 * 1024,
    }
}

fn slow(bytes_per_second: u64) -> Line {
    Line { bytes_per_second, send_buffer_bytes: 32 * 1024, ..line(80) }
}

fn honest(blocks: u32) -> Kind {
    Kind::Honest { blocks, outstanding: 16 }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// 1 for shares that are all the same.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|x| x * x).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn equals_get_equal_shares_at_once_and_all_that_is_allowed() {
    let mut world = World::new(80 * MBIT);
    for n in 0..50 {
        world.add(honest(u32::MAX), line(10 + n % 7 * 20), millis(n * 3));
    }
    world.run_until(Duration::from_secs(20));
    let shares: Vec<f64> = world.peers.iter().map(|p| p.payload_bytes as f64).collect();
    assert!(jain(&shares) >= 0.995, "{}", jain(&shares));
    let used = world.device.window.used(world.now);
    assert!((0.985..=1.005).contains(&used), "{used}");
}

#[test]
fn equals_that_queue_for_slots_get_equal_shares_in_the_end() {
    let mut world = World::new(2 * MBIT);
    for n in 0..12 {
        world.add(honest(u32::MAX), line(40), millis(n * 10));
    }
    world.run_until(TENURE * 3 * 4);
    let shares: Vec<f64> = world.peers.iter().map(|p| p.payload_bytes as f64).collect();
    assert!(jain(&shares) >= 0.97, "{} {shares:?}", jain(&shares));
}

#[test]
fn a_flash_crowd_is_served_to_the_last_peer() {
    let mut world = World::new(40 * MBIT);
    for n in 0..3_000u64 {
        world.add(honest(2), line(20 + n % 100), millis(n / 3));
    }
    let ideal = 3_000 * 2 * u64::from(BLOCK_BYTES) / (40 * MBIT);
    let took = world.run_until_served(Duration::from_secs(3 * ideal));
    println!("a flash crowd: {took:?}, ideal {ideal} s");
    let booked = world.device.booked.payload_bytes;
    assert_eq!(booked, 3_000 * 2 * u64::from(BLOCK_BYTES));
}

#[test]
fn slow_readers_hold_neither_tokens_nor_slots() {
    let mut world = World::new(10 * MBIT);
    for n in 0..40 {
        world.add(honest(u32::MAX), slow(300 + n * 60), millis(0));
    }
    for _ in 0..20 {
        world.add(Kind::NeverReads, slow(0), millis(0));
    }
    for n in 0..10 {
        world.add(honest(u32::MAX), line(40), millis(500 + n));
    }
    // Until it has shown how it reads, everyone is as good as everyone else.
    world.run_until(Duration::from_secs(60));
    let before = world.device.window.total;
    world.run_until(Duration::from_secs(300));
    let used = (world.device.window.total - before) as f64 / (240 * 10 * MBIT) as f64;
    println!("with slow readers: {used:.3} of the allowance used");
    assert!(used >= 0.95, "{used}");
}

#[test]
fn hostile_peers_take_nothing_from_honest_ones() {
    let mut world = World::new(20 * MBIT);
    for n in 0..20u64 {
        world.add(Kind::NeverReads, slow(0), millis(n));
        world.add(Kind::FloodsRequests, line(30), millis(n));
        world.add(Kind::CancelStorm, line(30), millis(n));
        world.add(Kind::Flaps, line(30), millis(n));
        world.add(Kind::Silent, line(30), millis(n));
        world.add(Kind::Vanishes { after: millis(200 + n * 40) }, line(30), millis(n * 50));
    }
    for n in 0..40u64 {
        world.add(honest(10), line(20 + n), millis(100 + n * 5));
    }
    let took = world.run_until_served(Duration::from_secs(600));
    println!("among hostile peers: {took:?}; {} bytes a peer", world.device.kept_bytes_max);
}

#[test]
fn changes_of_the_allowance_act_at_once() {
    let mut world = World::new(20 * MBIT);
    for n in 0..30u64 {
        world.add(honest(u32::MAX), line(20 + n), millis(n));
    }
    let plan = [(5, 2), (10, 50), (15, 0), (25, 10), (26, 1), (40, 100), (45, 0), (46, 20)];
    for (at, mbit) in plan {
        world.set_allowance_at(Duration::from_secs(at), mbit * MBIT);
    }
    world.run_until(Duration::from_secs(16));
    let paused = world.device.window.total;
    world.run_until(Duration::from_secs(24));
    assert_eq!(world.device.window.total, paused, "nothing leaves while paused");
    world.run_until(Duration::from_secs(60));
    let used = world.device.window.used(world.now);
    assert!(used >= 0.97, "{used}");
}

fn kind() -> impl Strategy<Value = (Kind, Line)> {
    let lines = (0u64..200, 1u64..100, 16u64..256).prop_map(|(ms, mbit, kib)| Line {
        bytes_per_second: mbit * MBIT,
        round_trip: millis(ms),
        send_buffer_bytes: kib * 1024,
    });
    prop_oneof![
        6 => (1u32..30, 1usize..40, lines.clone()).prop_map(|(blocks, outstanding, line)| {
            (Kind::Honest { blocks, outstanding }, line)
        }),
        1 => Just((Kind::NeverReads, slow(0))),
        1 => lines.clone().prop_map(|line| (Kind::FloodsRequests, line)),
        1 => lines.clone().prop_map(|line| (Kind::CancelStorm, line)),
        1 => lines.clone().prop_map(|line| (Kind::Flaps, line)),
        1 => lines.clone().prop_map(|line| (Kind::Silent, line)),
        2 => (50u64..3_000, lines).prop_map(|(ms, line)| {
            (Kind::Vanishes { after: millis(ms) }, line)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The window, the slots, the memory and the books are checked all along by the world.
    #[test]
    fn whoever_comes_is_served_within_a_bound(
        mbit in 1u64..60,
        changes in prop::collection::vec((1u64..20, 1u64..60), 0..3),
        peers in prop::collection::vec((kind(), 0u64..5_000), 1..60),
    ) {
        let mut world = World::new(mbit * MBIT);
        let lowest = changes.iter().map(|(_, mbit)| *mbit).chain([mbit]).min().unwrap_or(mbit);
        for (at, mbit) in changes {
            world.set_allowance_at(Duration::from_secs(at), mbit * MBIT);
        }
        for ((kind, line), at) in &peers {
            world.add(*kind, *line, millis(*at));
        }
        let slots = slots_for(Allowance::BytesPerSecond(lowest * MBIT));
        let turns = (peers.len() as u32).div_ceil(slots) + 1;
        let blocks: u32 = world.peers.iter().map(|p| match p.kind {
            Kind::Honest { blocks, .. } => blocks,
            _ => 0,
        }).sum();
        let seconds = u64::from(blocks) * u64::from(BLOCK_BYTES) / (lowest * MBIT);
        world.run_until_served(Duration::from_secs(30 + 20 * seconds) + TENURE * 4 * turns);
    }
}
