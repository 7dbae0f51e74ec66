//! A household with a router: larderd on it, a desk on its LAN, and the internet. Needs root.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Instant};

use larder::{
    api::hub::Books,
    logic::{infohash::Infohash, rating, units::Micros},
};

use crate::clients::{TRANSMISSION, transmission_by};
use crate::harness::{
    Lab, NAMESPACE_ADDRESS, Namespace, aria2c, free_ports, json, random_file, sha256, spawn,
    wait_for, without_web_seeds,
};

const SIZE: usize = 9_000_001;
/// The hub's own, unless told otherwise.
const PRICE: Micros = Micros(100_000);
/// Stands for the internet (RFC 2544): nobody's home has it.
const ROUTER_ON_THE_WAN: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);

/// Hub and device on the router, which also has the only way from the desk to the internet.
struct Home {
    lab: Lab,
    desk: Namespace,
    internet: Namespace,
}

impl Home {
    fn new() -> Home {
        let (router, desk, internet) = (Namespace::new(), Namespace::new(), Namespace::new());
        connect(&router, "wan0", "198.18.77.1/24", &internet, "198.18.77.2/24");
        connect(&router, "lan0", "192.168.77.1/24", &desk, "192.168.77.2/24");
        // The provider's router is somebody else than the stranger.
        internet.ip(&["-n", &internet.0, "address", "add", "198.18.77.254/24", "dev", "eth0"]);
        router.ip(&["-n", &router.0, "route", "add", "default", "via", "198.18.77.254"]);
        desk.ip(&["-n", &desk.0, "route", "add", "default", "via", "192.168.77.1"]);
        let mut lab = Lab::within(router, ROUTER_ON_THE_WAN);
        lab.hub_extra = "[tracker]\ninterval_seconds = 5".into();
        Home { lab, desk, internet }
    }

    /// A published file that the device serves, and its torrent without web seeds.
    fn publish(&self) -> (PathBuf, Infohash, PathBuf) {
        let source = self.lab.path("film.bin");
        random_file(&source, SIZE, 5);
        let infohash = self.lab.publish(&source).infohash;
        self.lab.wait_until_served(infohash);
        let torrent = self.lab.path("film.torrent");
        fs::write(&torrent, without_web_seeds(&self.lab.metainfo(infohash))).expect("writes");
        (source, infohash, torrent)
    }
}

/// A cable between two networks; its end in `far` is called eth0.
fn connect(near: &Namespace, name: &str, address: &str, far: &Namespace, far_address: &str) {
    let (n, f) = (near.0.as_str(), far.0.as_str());
    near.ip(&["link", "add", name, "netns", n, "type", "veth", "peer", "name", "eth0", "netns", f]);
    for (place, link, address) in [(n, name, address), (f, "eth0", far_address)] {
        near.ip(&["-n", place, "address", "add", address, "dev", link]);
        near.ip(&["-n", place, "link", "set", link, "up"]);
    }
}

#[test]
fn the_lan_takes_full_speed_beside_the_limit_and_earns_nothing() {
    const LIMIT: u64 = 1_000_000;
    let mut home = Home::new();
    home.lab.peer_address = Some(Ipv4Addr::UNSPECIFIED);
    home.lab.device_extra = format!("egress_bytes_per_second_max = {LIMIT}");
    home.lab.start_hub();
    home.lab.start_device();
    let (source, infohash, torrent) = home.publish();

    let started = Instant::now();
    let (outside, inside) = (home.lab.path("outside"), home.lab.path("inside"));
    let mut stranger = spawn(
        aria2c(home.internet.command("aria2c"), &outside).arg(&torrent),
        &home.lab.path("stranger.log"),
    );
    wait_for("the stranger to be served", || {
        home.lab.status().filter(|s| s.egress_bytes_per_second > LIMIT / 2)
    });
    let at_home = aria2c(home.desk.command("aria2c"), &inside).arg(&torrent).output();
    let at_home = at_home.expect("aria2c is installed (make setup)");
    assert!(at_home.status.success(), "{}", String::from_utf8_lossy(&at_home.stdout));
    assert_eq!(sha256(&inside.join("film.bin")), sha256(&source));
    assert!(
        stranger.0.try_wait().expect("our child").is_none(),
        "the LAN waited for the WAN, or the limit does not hold"
    );
    let status = wait_for("the stranger to finish", || stranger.0.try_wait().expect("our child"));
    assert!(status.success());
    assert!(started.elapsed().as_secs_f64() > SIZE as f64 / LIMIT as f64);
    assert_eq!(sha256(&outside.join("film.bin")), sha256(&source));

    home.lab.wait_until_booked(infohash, 2 * SIZE as u64);
    let books: Books = json(&home.lab.larder(&["books", "--json"]));
    let paid: u64 = books.lines.iter().map(|line| line.amount.0).sum();
    let earned = wait_for("the statement", || {
        let earnings = home.lab.status()?.earnings;
        (earnings.today_pending == Micros(0)).then_some(earnings)
    });
    assert_eq!((earned.today_bytes, earned.today_settled), (SIZE as u64, Micros(paid)));
    // Each line is rounded down, and an hour may have ended meanwhile.
    let full = rating::per_gb(SIZE as u64, PRICE).0;
    assert!((full - 1..=full).contains(&paid), "{paid} of {full}");
}

/// The device listens where the internet has no way to, as behind a NAT without a mapping.
fn unreachable() -> Home {
    let mut home = Home::new();
    home.lab.peer_address = Some(NAMESPACE_ADDRESS);
    home.lab.device_extra = "egress_bytes_per_second_max = 100_000_000".into();
    home.lab.start_hub();
    home.lab.start_device();
    home
}

#[test]
fn aria2c_that_cannot_reach_the_device_is_called_and_served() {
    let home = unreachable();
    let (source, infohash, torrent) = home.publish();
    let copy = home.lab.path("copy");
    let client = aria2c(home.internet.command("aria2c"), &copy).arg(&torrent).output();
    let client = client.expect("aria2c is installed (make setup)");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stdout));
    assert_eq!(sha256(&copy.join("film.bin")), sha256(&source));
    home.lab.wait_until_booked(infohash, SIZE as u64);
}

/// It gets the metadata by the same call: all it knows is the magnet link.
#[test]
fn transmission_that_cannot_reach_the_device_is_called_and_served() {
    let home = unreachable();
    let source = home.lab.path("film.bin");
    random_file(&source, SIZE, 6);
    let published = home.lab.publish(&source);
    home.lab.wait_until_served(published.infohash);
    let (copy, [port]) = (home.lab.path("copy"), free_ports());
    transmission_by(home.internet.command(TRANSMISSION), &copy, port, 1, &published.magnet);
    assert_eq!(sha256(&copy.join("film.bin")), sha256(&source));
    home.lab.wait_until_booked(published.infohash, SIZE as u64);
}
