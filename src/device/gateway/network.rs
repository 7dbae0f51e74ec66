//! What the system says of the home's network: the default route, whether this machine is the home's
//! router, and what its WAN interface has carried. Reads /proc and /sys, changes nothing.

use std::{fs::File, io, net::IpAddr, os::unix::fs::FileExt, path::PathBuf};

use crate::logic::routes::{DefaultRoute, default_routes_v4, default_routes_v6};

/// Of this thread's network, which in a namespace is not always the process's.
const PROC_NET: &str = "/proc/thread-self/net";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const INTERFACES: &str = "/sys/class/net";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    pub v4: Option<DefaultRoute>,
    pub v6: Option<DefaultRoute>,
}

impl Routes {
    pub fn read() -> Routes {
        let text = |name: &str| std::fs::read_to_string(format!("{PROC_NET}/{name}"));
        Routes {
            v4: text("route").ok().and_then(|text| best(default_routes_v4(&text))),
            v6: text("ipv6_route").ok().and_then(|text| best(default_routes_v6(&text))),
        }
    }

    pub fn towards(&self, address: IpAddr) -> Option<&DefaultRoute> {
        match address.to_canonical() {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

/// Which interface is the home's way out, when this machine is the home's router: it forwards, and has
/// another interface beside that of the default route.
pub fn own_wan_interface(routes: &Routes) -> Option<String> {
    let forwards = std::fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1");
    let wan = &routes.v4.as_ref().or(routes.v6.as_ref())?.interface;
    let others = std::fs::read_dir(INTERFACES).ok()?.flatten().filter(|entry| {
        let name = entry.file_name();
        name != "lo" && *name != **wan && is_up(&name.to_string_lossy())
    });
    (forwards && others.count() > 0).then(|| wan.clone())
}

fn is_up(interface: &str) -> bool {
    let path = format!("{INTERFACES}/{interface}/operstate");
    std::fs::read_to_string(path).is_ok_and(|state| state.trim() == "up")
}

/// The counters of one interface; reading them costs two system calls.
pub struct InterfaceCounters {
    sent: File,
    received: File,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceBytes {
    pub sent: u64,
    pub received: u64,
}

impl InterfaceCounters {
    pub fn open(interface: &str) -> io::Result<InterfaceCounters> {
        let file = |name: &str| {
            let path: PathBuf = [INTERFACES, interface, "statistics", name].iter().collect();
            File::open(path)
        };
        Ok(InterfaceCounters { sent: file("tx_bytes")?, received: file("rx_bytes")? })
    }

    pub fn read(&self) -> io::Result<InterfaceBytes> {
        Ok(InterfaceBytes { sent: number(&self.sent)?, received: number(&self.received)? })
    }
}

fn number(file: &File) -> io::Result<u64> {
    let mut text = [0; 24];
    let length = file.read_at(&mut text, 0)?;
    let text = std::str::from_utf8(&text[..length]).map_err(io::Error::other)?;
    text.trim().parse().map_err(io::Error::other)
}

/// Of several default routes, the one with the least metric.
fn best(routes: Vec<DefaultRoute>) -> Option<DefaultRoute> {
    routes.into_iter().min_by_key(|route| route.metric)
}
