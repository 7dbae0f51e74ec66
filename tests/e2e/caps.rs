//! The owner's own rules on real programs: a daily cap holds over a restart, the schedule closes the
//! door, and the owner is told which of them it is.

use std::fs;

use larder::{
    api::admin::{State, Status},
    logic::governor::allowance::Reason,
};

use crate::harness::{Lab, random_file, sha256, spawn, wait_for, without_web_seeds};

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 3 * MIB;

fn wait_for_reason(lab: &Lab, wanted: Reason) -> Status {
    wait_for(&format!("{wanted:?}"), || {
        lab.status().filter(|status| status.allowance_reason == wanted)
    })
}

#[test]
fn daily_cap_holds_over_a_kill_and_ends_when_the_owner_raises_it() {
    let (size, cap) = (12 * MIB, 6 * MIB);
    let mut lab = Lab::new();
    let limit = format!("egress_bytes_per_second_max = {LIMIT}\n");
    lab.device_extra = format!("{limit}[caps]\negress_bytes_per_day_max = {cap}");
    lab.start_hub();
    lab.start_device();
    let source = lab.path("film.bin");
    random_file(&source, size as usize, 7);
    let infohash = lab.publish(&source).infohash;
    lab.wait_until_served(infohash);
    let torrent = lab.path("film.torrent");
    fs::write(&torrent, without_web_seeds(&lab.metainfo(infohash))).expect("writes");
    let copy = lab.path("copy");
    let mut client = spawn(lab.aria2c(&copy).arg(&torrent), &lab.path("aria2.log"));

    let status = wait_for("the cap", || {
        lab.status().filter(|s| s.allowance_reason == Reason::DailyCap && s.state == State::Resting)
    });
    assert_eq!(status.egress_bytes_per_second_allowed, 0);
    assert_eq!(status.egress_bytes_per_second_max, LIMIT);
    // Headers are 4 % of what the cap counts; the last 128 KiB are kept back.
    let served = wait_for("the ledger to have it", || {
        lab.content(infohash).map(|c| c.egress_bytes).filter(|bytes| *bytes >= cap * 9 / 10)
    });
    assert!(served <= cap, "{served} bytes of payload under a cap of {cap} on the wire");

    lab.kill_device();
    lab.start_device();
    let status = wait_for_reason(&lab, Reason::DailyCap);
    assert_eq!(status.egress_bytes_per_second_allowed, 0);
    let after = lab.content(infohash).expect("it is still held").egress_bytes;
    assert!(after <= cap, "{after} bytes after the restart");

    lab.kill_device();
    lab.device_extra = format!("{limit}[caps]\negress_bytes_per_day_max = {}", 4 * cap);
    lab.start_device();
    let status = wait_for("aria2 to finish", || client.0.try_wait().expect("our child"));
    assert!(status.success());
    assert_eq!(sha256(&copy.join("film.bin")), sha256(&source));
}

#[test]
fn schedule_that_is_off_lets_nothing_out_and_says_so() {
    let mut lab = Lab::new();
    let days = larder::logic::governor::allowance::DAY_NAMES;
    let week: Vec<String> =
        days.iter().map(|day| format!("{day} = \"000000000000000000000000\"")).collect();
    lab.device_extra = format!("[schedule]\n{}", week.join("\n"));
    lab.start_hub();
    lab.start_device();
    let source = lab.path("film.bin");
    random_file(&source, MIB as usize, 8);
    let infohash = lab.publish(&source).infohash;
    // It fills all the same: what comes in is not what goes out.
    lab.wait_until_served(infohash);
    let status = wait_for_reason(&lab, Reason::ScheduleOff);
    assert_eq!((status.state, status.egress_bytes_per_second_allowed), (State::Resting, 0));
}
