//! A home and the world around it, as network namespaces: device, home router, provider, world. A test
//! runs parts of itself inside one of them by starting its own program again. Needs root.

use std::process::{Child, Command};

use crate::harness::{Running, wait_for};

/// Set for the part of a test that runs inside a namespace: what it is to do there.
const ROLE: &str = "LARDER_E2E_ROLE";

pub const DEVICE: &str = "192.168.77.2";
pub const PROVIDER: &str = "203.0.113.1";
pub const WORLD: &str = "198.51.100.2";
pub const PROVIDER_V6: &str = "2001:db8:1::1";
pub const WORLD_V6: &str = "2001:db8:2::2";

/// Addresses and links: (namespace, interface, IPv4, IPv6) on both ends.
const LINKS: [[(&str, &str, &str, &str); 2]; 3] = [
    [
        ("device", "eth0", "192.168.77.2/24", "fd00:77::2/64"),
        ("home", "lan0", "192.168.77.1/24", "fd00:77::1/64"),
    ],
    [
        ("home", "wan0", "203.0.113.2/24", "2001:db8:1::2/64"),
        ("provider", "down0", "203.0.113.1/24", "2001:db8:1::1/64"),
    ],
    [
        ("provider", "up0", "198.51.100.1/24", "2001:db8:2::1/64"),
        ("world", "eth0", "198.51.100.2/24", "2001:db8:2::2/64"),
    ],
];
const ROUTES: [(&str, &str, &str); 7] = [
    ("device", "default", "192.168.77.1"),
    ("device", "default", "fd00:77::1"),
    ("home", "default", "203.0.113.1"),
    ("home", "default", "2001:db8:1::1"),
    ("provider", "192.168.77.0/24", "203.0.113.2"),
    ("provider", "fd00:77::/64", "2001:db8:1::2"),
    ("world", "default", "198.51.100.1"),
];

pub struct World {
    prefix: String,
}

impl World {
    pub fn new() -> World {
        let world = World { prefix: format!("larder-{}", std::process::id()) };
        for name in ["device", "home", "provider", "world"] {
            ip(&["netns", "add", &world.namespace(name)]);
            ip(&["-n", &world.namespace(name), "link", "set", "lo", "up"]);
        }
        for [one, other] in LINKS {
            let (first, second) = (world.namespace(one.0), world.namespace(other.0));
            ip(&[
                "link", "add", one.1, "netns", &first, "type", "veth", "peer", "name", other.1,
                "netns", &second,
            ]);
            for (namespace, interface, v4, v6) in [one, other] {
                let namespace = world.namespace(namespace);
                ip(&["-n", &namespace, "address", "add", v4, "dev", interface]);
                ip(&["-n", &namespace, "address", "add", v6, "dev", interface, "nodad"]);
                ip(&["-n", &namespace, "link", "set", interface, "up"]);
            }
        }
        for (namespace, to, via) in ROUTES {
            ip(&["-n", &world.namespace(namespace), "route", "add", to, "via", via]);
        }
        ip(&["-n", &world.namespace("world"), "route", "add", "default", "via", "2001:db8:2::1"]);
        for router in ["home", "provider"] {
            world.sysctl(router, "net.ipv4.ip_forward=1");
            world.sysctl(router, "net.ipv6.conf.all.forwarding=1");
        }
        for name in ["device", "home", "provider", "world"] {
            world.wait_for_addresses(&world.namespace(name));
        }
        world
    }

    /// IPv6 neighbours are not heard before a new interface's own address is known to be free.
    fn wait_for_addresses(&self, namespace: &str) {
        wait_for("addresses", || {
            let output = Command::new("ip")
                .args(["-n", namespace, "-6", "address", "show", "tentative"])
                .output()
                .expect("iproute2 is installed");
            output.stdout.is_empty().then_some(())
        });
    }

    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn command(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(namespace), program]);
        command
    }

    pub fn sysctl(&self, namespace: &str, setting: &str) {
        let output = self.command(namespace, "sysctl").args(["-qw", setting]).output();
        assert!(output.expect("procps is installed").status.success(), "{setting}");
    }

    /// Nobody out there answers a ping any more.
    pub fn silence_pings(&self) {
        for namespace in ["provider", "world"] {
            self.sysctl(namespace, "net.ipv4.icmp_echo_ignore_all=1");
        }
    }

    /// The line to the provider, with a FIFO of 300 ms before it.
    pub fn limit_uplink(&self, megabits_per_second: u32) {
        let rate = format!("{megabits_per_second}mbit");
        let output = self
            .command("home", "tc")
            .args(["qdisc", "replace", "dev", "wan0", "root", "tbf", "rate", &rate])
            .args(["burst", "3k", "latency", "300ms"])
            .output()
            .expect("iproute2 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// This very test again, inside a namespace, in a role.
    pub fn again(&self, namespace: &str, test: &str, role: &str) -> Command {
        let program = std::env::current_exe().expect("has a path");
        let mut command = self.command(namespace, program.to_str().expect("UTF-8"));
        command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
        command
    }

    pub fn start(&self, namespace: &str, test: &str, role: &str) -> Running {
        Running(self.again(namespace, test, role).spawn().expect("runs"))
    }

    /// In the device's place; fails with what failed there.
    pub fn run_on_device(&self, test: &str) {
        let mut child: Child = self.again("device", test, "device").spawn().expect("runs");
        let status = child.wait().expect("our child");
        assert!(status.success(), "what ran inside has failed: see above");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in ["device", "home", "provider", "world"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(name)]).output();
        }
    }
}

/// What this run of the test is to do; `None` for the test itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?} (are you root?): {errors}");
}
