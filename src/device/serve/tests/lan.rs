//! The household's own peers, on an address of loopback that the owner has called the LAN's.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::logic::usage::{PeerClass, Usage};

const AT_HOME: [u8; 4] = [127, 0, 0, 2];

fn stage(allowance: Allowance) -> Stage {
    let lan_prefixes = Some(vec!["127.0.0.2/32".parse().expect("a network")]);
    let settings = ServeSettings { lan_prefixes, ..settings() };
    let stage = Stage::with(allowance, settings, Timeouts::default(), true);
    stage.engine.send(ServeCommand::PauseLan(false));
    stage.engine.take_usage();
    stage
}

/// All usage of both classes, once the payload is as much as expected.
fn delivered(stage: &Stage, wan_bytes: u64, lan_bytes: u64) -> (Usage, Usage) {
    let (mut wan, mut lan) = (Usage::default(), Usage::default());
    wait_until("the payload is acknowledged", || {
        for delta in stage.engine.take_usage() {
            match delta.class {
                PeerClass::Wan => wan.add(delta.usage),
                PeerClass::Lan => lan.add(delta.usage),
            }
        }
        assert!(
            wan.payload_bytes <= wan_bytes && lan.payload_bytes <= lan_bytes,
            "{wan:?} {lan:?}"
        );
        (wan.payload_bytes, lan.payload_bytes) == (wan_bytes, lan_bytes)
    });
    (wan, lan)
}

#[test]
fn the_lan_takes_what_it_can_and_the_wan_keeps_to_the_limit_and_to_its_turns() {
    let rate = 1_000_000;
    let stage = stage(Allowance::BytesPerSecond(rate));
    let start = Instant::now();
    let wan_is_served = AtomicBool::new(false);
    let some = &stage.blocks()[..80];
    let lan_rounds = thread::scope(|scope| {
        let lan = scope.spawn(|| {
            let mut leecher = Leecher::from_address(AT_HOME, &stage);
            leecher.become_unchoked();
            let mut rounds = 0;
            // As fast as it goes until the other one has what it wants.
            while !wan_is_served.load(Ordering::Relaxed) {
                leecher.download(&stage);
                rounds += 1;
            }
            rounds
        });
        let mut leecher = stage.leecher();
        leecher.become_unchoked();
        leecher.request(some);
        some.iter().for_each(|block| leecher.expect_block(&stage, *block));
        wan_is_served.store(true, Ordering::Relaxed);
        lan.join().expect("the LAN is served")
    });
    let elapsed = start.elapsed().as_secs_f64();
    let (wan_bytes, lan_bytes) =
        (some.len() as u64 * u64::from(BLOCK_BYTES), lan_rounds * stage.data.len() as u64);
    assert!(
        lan_bytes > 3 * wan_bytes,
        "the LAN took {lan_bytes} bytes, the WAN {wan_bytes} in {elapsed} s"
    );
    let (wan, lan) = delivered(&stage, wan_bytes, lan_bytes);
    let stats = stage.engine.stats();
    assert_eq!(stats.egress_wire_bytes_total, wan.wire_bytes);
    assert_eq!(stats.lan_egress_wire_bytes_total, lan.wire_bytes);
    let allowed = elapsed * rate as f64 + 25_000.0;
    assert!(wan.wire_bytes as f64 <= allowed, "{wan:?} of {allowed}");
}

#[test]
fn no_rule_about_the_uplink_stops_the_lan() {
    let stage = stage(Allowance::Paused);
    Leecher::raw(stage.address).expect_end();
    let mut leecher = Leecher::from_address(AT_HOME, &stage);
    leecher.become_unchoked();
    leecher.download(&stage);
    delivered(&stage, 0, stage.data.len() as u64);
    assert_eq!(stage.engine.stats().egress_wire_bytes_total, 0);
}

#[test]
fn the_lan_takes_no_slot_and_waits_for_none() {
    // Four slots, all taken.
    let stage = stage(Allowance::BytesPerSecond(100_000));
    let mut wan: Vec<Leecher> = (0..5).map(|_| stage.leecher()).collect();
    wan.iter_mut().for_each(|peer| peer.send(&[Message::Interested]));
    wait_until("the slots are taken", || stage.engine.stats().peers_unchoked == 4);
    let mut leecher = Leecher::from_address(AT_HOME, &stage);
    leecher.become_unchoked();
    leecher.download(&stage);
    assert_eq!(stage.engine.stats().peers_unchoked, 4);
    leecher.send(&[Message::NotInterested]);
    leecher.hear("Choke");
}

#[test]
fn the_owners_pause_is_for_the_lan_too() {
    let stage = stage(Allowance::Unlimited);
    let mut leecher = Leecher::from_address(AT_HOME, &stage);
    leecher.become_unchoked();
    stage.engine.send(ServeCommand::PauseLan(true));
    leecher.hear("Choke");
    stage.engine.take_usage();
    let sent = stage.engine.stats().lan_egress_wire_bytes_total;
    let block = stage.blocks()[0];
    leecher.request(&[block]);
    Leecher::raw_from_address(AT_HOME, &stage).expect_end();
    stage.engine.take_usage();
    assert_eq!(stage.engine.stats().lan_egress_wire_bytes_total, sent);
    stage.engine.send(ServeCommand::PauseLan(false));
    // What was asked for meanwhile is rejected, and then the way is free.
    leecher.hear(&format!("{:?}", Message::Reject(block)));
    leecher.hear("Unchoke");
    leecher.download(&stage);
    delivered(&stage, 0, stage.data.len() as u64);
}
