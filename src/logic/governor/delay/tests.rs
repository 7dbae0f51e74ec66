//! The household figures, in virtual time. A simulation: what it shows is that the decisions
//! are right, not that a kernel carries them out.

use std::time::Duration;

use super::{sim::Uplink, *};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn prints_figures() {
    for (peers, jitter) in [(8, 0), (40, 0), (8, 500), (40, 500), (8, 1000), (40, 1000)] {
        for seed in 0..3 {
            let mut uplink = Uplink::new(20, peers, jitter, seed);
            uplink.run(5 * SECOND);
            uplink.take_pings();
            let before = uplink.acked_bytes();
            uplink.run(30 * SECOND);
            let mbit = (uplink.acked_bytes() - before) as f64 * 8.0 / 30e6;
            let pings = uplink.take_pings();
            let s = uplink.controller.snapshot();
            uplink.rates.clear();
            let rate = s.bytes_per_second;
            let t0 = uplink.micros;
            uplink.start_upload();
            uplink.run(10 * SECOND);
            let find = |part: u64, rates: &VecDeque<(u64, u64)>| {
                rates.iter().find(|r| r.1 <= rate / part).map(|r| (r.0 - t0) / 1000)
            };
            let half = find(2, &uplink.rates);
            let tenth = find(10, &uplink.rates);
            let house = uplink.household.acked_bytes;
            uplink.stop_upload();
            let t1 = uplink.micros;
            uplink.rates.clear();
            uplink.run(10 * SECOND);
            let back = uplink.rates.iter().find(|r| r.1 >= 2_250_000).map(|r| (r.0 - t1) / 1000);
            uplink.take_pings();
            uplink.run(5 * SECOND);
            let t2 = uplink.micros;
            uplink.set_mbit(8);
            uplink.rates.clear();
            uplink.run(3 * SECOND);
            let log: Vec<_> = uplink.rates.iter().map(|r| ((r.0 - t2) / 1000, r.1 / 125)).collect();
            uplink.take_pings();
            uplink.run(5 * SECOND);
            let after = uplink.take_pings();
            println!(
                "peers {peers} jitter {jitter}: {mbit:.2} Mbit/s pings {pings:?} {s:?}\n  half {half:?} tenth {tenth:?} house {house} back {back:?}\n after change {after:?} {:?} {log:?}",
                uplink.controller.snapshot()
            );
        }
    }
}
