//! Hostile peers against the real `larderd`: in each attack honest peers keep nine tenths of what may
//! leave, memory stays flat, and the owner's page answers. Bytes are judged here, not seconds: the
//! rates are measured by `make bench-hostile`, with the same attacks.

#[allow(dead_code, reason = "the bench needs more of it")]
mod attack;
#[allow(dead_code, reason = "e2e needs more of it")]
#[path = "../e2e/harness.rs"]
mod harness;
mod honest;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    time::Duration,
};

use attack::{Attack, Attacker, Target};
use harness::{Lab, finished_download, spawn, wait_for};
use honest::{Crowd, Peer};
use larder::{
    api::endpoints::{DeviceEndpoints, ENDPOINTS_FILE},
    logic::units::MIB,
};

/// So small that its list of hashes fills three pieces of metadata.
const PIECE: u32 = 16 * 1024;
const PIECES: u32 = 2_048;
/// On the wire. Slow enough for a busy machine to reach it in a debug build.
const ALLOWANCE: u64 = 4_000_000;
const HONEST: usize = 8;
/// What the honest peers take while they are attacked.
const ENOUGH: u64 = 24 * MIB;
/// Five hundred connections of a few hundred bytes, and what an allocator keeps.
const MEMORY_MAX: u64 = 8 * MIB;

struct Stage {
    lab: Lab,
    target: Target,
}

fn honest_id(n: usize) -> [u8; 20] {
    let mut id = *b"-OK0001-honestpeer00";
    id[19] += n as u8;
    id
}

impl Stage {
    /// A device that serves one content to whoever comes.
    fn new() -> Stage {
        let mut lab = Lab::new();
        lab.device_extra = format!("egress_bytes_per_second_max = {ALLOWANCE}");
        let bytes = (PIECE * PIECES) as usize;
        let infohash = finished_download(&lab.path(""), bytes, PIECE, 7).infohash;
        let config = lab.write_device_config();
        let preloaded = Command::new(env!("CARGO_BIN_EXE_larderd"))
            .args(["preload".as_ref(), "--config".as_ref(), config.as_os_str()])
            .args(["--torrents".as_ref(), lab.path("torrents").as_os_str()])
            .args(["--data".as_ref(), lab.path("data").as_os_str()])
            .output()
            .expect("runs");
        assert!(preloaded.status.success(), "{}", String::from_utf8_lossy(&preloaded.stderr));
        lab.start_device();
        lab.wait_until_served(infohash);
        let visitor = Ipv4Addr::new(127, 11, 0, 1);
        let (_, peer_id) = Peer::connect(visitor, *b"-OK0001-visitor00000", lab.peer(), infohash)
            .expect("it answers");
        let target = Target {
            address: lab.peer(),
            infohash,
            peer_id,
            piece_bytes: PIECE,
            pieces: PIECES,
            honest_ids: (0..HONEST).map(honest_id).collect(),
            sources: Ipv4Addr::new(127, 20, 0, 1),
        };
        Stage { lab, target }
    }

    /// Anonymous memory of `larderd`.
    fn memory(&self) -> u64 {
        let pid = self.lab.device.as_ref().expect("it runs").0.id();
        let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("Linux says");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// What `larderd` counts as having left on the wire. Waits until nothing more does.
    fn spent(&self) -> u64 {
        wait_for("the line to be quiet", || {
            let history = self.lab.status()?.egress_history;
            (*history.last()? < ALLOWANCE / 20).then(|| history.iter().sum())
        })
    }

    fn assert_page_answers(&self) {
        let endpoints = fs::read(self.lab.path("device").join(ENDPOINTS_FILE)).expect("it runs");
        let endpoints: DeviceEndpoints = serde_json::from_slice(&endpoints).expect("well-formed");
        let address = endpoints.admin_url.trim_start_matches("http://").trim_end_matches('/');
        let mut page = TcpStream::connect(address).expect("connects");
        page.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
        let request =
            format!("GET /api/v1/session HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        page.write_all(request.as_bytes()).expect("writes");
        let mut answer = String::new();
        page.read_to_string(&mut answer).expect("answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// An honest peer that comes during the attack, and tries again as clients do.
    fn assert_newcomers_get_in(&self) {
        let mut tries = 0;
        wait_for("a newcomer to be served", || {
            tries += 1;
            let own = Ipv4Addr::from(0x7f0c_0000 + tries);
            let id = *b"-OK0001-newcomer0000";
            let (mut peer, _) =
                Peer::connect(own, id, self.target.address, self.target.infohash).ok()?;
            let mut messages = 0;
            let done = || {
                messages += 1;
                messages > 20
            };
            peer.download(&self.target, 77, done).ok()
        });
    }
}

/// The attackers are in this process: so many of them fit.
fn attackers_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("asks");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(500)
}

fn withstands(attack: Attack) {
    let connections = attack.connections().min(attackers_max());
    if connections < attack.connections() {
        eprintln!(
            "the limit on open files allows {connections} attackers, not {}",
            attack.connections()
        );
    }
    let stage = Stage::new();
    let honest = Crowd::start(&stage.target);
    honest.wait_until_under_way();
    let before = stage.memory();
    let attacker = Attacker::launch(attack, connections, stage.target.clone());
    let opened = || attacker.tally.opened.load(Ordering::Relaxed);
    wait_for("all attackers to have come", || (opened() >= connections as u64).then_some(()));
    let start = honest.received_bytes();
    wait_for("the honest peers' download", || {
        stage.assert_page_answers();
        (honest.received_bytes() >= start + ENOUGH).then_some(())
    });
    let after = stage.memory();
    assert!(after <= before + MEMORY_MAX, "{before} bytes of memory before, {after} after");
    stage.assert_newcomers_get_in();
    let opened = opened();
    let wire = honest.wire_bytes();
    honest.stop();
    drop(attacker);
    let spent = stage.spent();
    println!(
        "{attack:?}: {opened} connections, {wire} of {spent} bytes, memory {before} to {after}"
    );
    assert!(wire * 10 >= spent * 9, "honest peers had {wire} of {spent} bytes that left");
    stage.assert_page_answers();
}

#[test]
fn a_low_limit_on_open_files_means_fewer_connections_and_a_word_on_it() {
    let mut lab = Lab::new();
    lab.device_extra = "connections_max = 5000".into();
    let config = lab.write_device_config();
    let larderd =
        format!("ulimit -n 400; exec {:?} --config {config:?}", env!("CARGO_BIN_EXE_larderd"));
    let log = lab.path("larderd.log");
    let _device = spawn(Command::new("sh").args(["-c", &larderd]), &log);
    wait_for("it to be ready", || {
        fs::read_to_string(&log).ok()?.contains("is ready").then_some(())
    });
    let said = lab.device_log();
    assert!(said.contains("serve.connections_max is 144 instead of 5000"), "{said}");
}

#[test]
fn handshakes_that_drip_in() {
    withstands(Attack::Slowloris);
}

#[test]
fn ten_thousand_connections() {
    withstands(Attack::Crowd);
}

#[test]
fn floods_of_requests() {
    withstands(Attack::Requests);
}

#[test]
fn floods_of_requests_for_metadata() {
    withstands(Attack::Metadata);
}

#[test]
fn oversized_and_negative_lengths() {
    withstands(Attack::Lengths);
}

#[test]
fn contents_that_nobody_has() {
    withstands(Attack::WrongInfohash);
}

#[test]
fn peers_that_never_read() {
    withstands(Attack::NeverReads);
}

#[test]
fn somebody_who_claims_to_be_us() {
    withstands(Attack::Ourselves);
}

#[test]
fn copies_of_honest_ids() {
    withstands(Attack::DuplicateIds);
}
