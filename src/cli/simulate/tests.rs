use super::*;

/// Small enough for a test, and with everything in it that the models have.
const SMALL: &str = "
days = 3
[catalogue]
contents = 400
arrivals_per_day = 20
zipf = 0.9
[demand]
requests_per_day = 3000
[devices]
online_share = 0.95
";

fn outcomes(model: &str, seed: u64, share: f64, policies: &[Policy]) -> Vec<Outcome> {
    let demand = Generated::new(Model::parse(model).expect("a model"), seed);
    let bytes: u64 = demand.catalogue().iter().sum();
    let scene = Scene {
        devices: 10,
        disk_bytes: (bytes as f64 * share / 10.0) as u64,
        uplink_bytes_per_second: 20_000_000,
        epoch_seconds: 60.0,
    };
    policies.iter().map(|policy| run::run(&demand, scene, *policy).expect("plays")).collect()
}

/// The goals that issue 4 sets, with margins: docs/simulate.md has the whole table.
#[test]
fn placement_earns_what_pulling_would_with_a_fraction_of_its_fills() {
    for (seed, share) in [(101, 0.03), (102, 0.1)] {
        let outcomes = outcomes(SMALL, seed, share, &[Policy::Ours, Policy::Pull, Policy::Oracle]);
        let [ours, pull, oracle] = &outcomes[..] else { panic!("three policies") };
        assert!(ours.offload_ratio >= pull.offload_ratio, "{outcomes:#?}");
        assert!(ours.fill_bytes as f64 <= 0.4 * pull.fill_bytes as f64, "{outcomes:#?}");
        assert!(ours.offload_ratio >= 0.8 * oracle.offload_ratio, "{outcomes:#?}");
    }
}

#[test]
fn every_byte_comes_from_a_device_or_from_the_origin() {
    let policies = [Policy::Ours, Policy::Pull, Policy::Top, Policy::Oracle];
    let outcomes = outcomes(SMALL, 7, 0.05, &policies);
    for o in &outcomes {
        assert_eq!(o.origin_bytes + o.egress_bytes, o.requested_bytes + o.fill_bytes, "{o:?}");
        assert_eq!(o.requested_bytes, outcomes[0].requested_bytes, "the same demand for all");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    let play = |seed| outcomes(SMALL, seed, 0.05, &[Policy::Ours]);
    assert_eq!(play(3), play(3));
    assert_ne!(play(3), play(4));
}

#[test]
fn reads_a_disk_in_bytes_or_as_a_share_of_the_catalogue() {
    assert_eq!("5000".parse(), Ok(Disk::Bytes(5000)));
    assert_eq!("3%".parse(), Ok(Disk::Share(0.03)));
    for bad in ["", "%", "3 GB", "-1", "-1%", "inf%"] {
        assert!(bad.parse::<Disk>().is_err(), "{bad}");
    }
}

/// One content is asked for every half hour, and then a hundred times as often.
#[test]
fn a_content_that_jumps_to_a_hundred_times_its_demand_is_served_within_two_minutes() {
    let mut trace = tempfile::NamedTempFile::new().expect("a file");
    let mut requests: Vec<(f64, String)> = (0..4000)
        .map(|n| (f64::from(n) * 20.0, format!("other-{} 500000000", (n * n + n / 7) % 300)))
        .collect();
    let jump = 60_000.0;
    requests.extend((0..33).map(|n| (f64::from(n) * 1800.0, "film 1000000000".to_owned())));
    requests.extend((0..300).map(|n| (jump + f64::from(n) * 18.0, "film 1000000000".to_owned())));
    requests.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (at, what) in requests {
        use std::io::Write;
        writeln!(trace, "{at} {what}").expect("written");
    }
    let demand = Trace::open(trace.path()).expect("a trace");
    let film = demand.catalogue().iter().position(|size| *size == 1_000_000_000).expect("there");
    let scene = Scene {
        devices: 20,
        disk_bytes: 500_000_000,
        uplink_bytes_per_second: 20_000_000,
        epoch_seconds: 60.0,
    };
    let missed = run::missed_bytes(&demand, scene, film as u32, jump + 120.0).expect("plays");
    assert_eq!(missed, 0, "two minutes after the jump the origin sent some of it");
}
