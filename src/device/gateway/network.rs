//! What the system says of the home's network: the default route, whether this machine is the home's
//! router, and what its WAN interface has carried. Reads /proc and /sys, changes nothing.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::FileExt,
    path::PathBuf,
};

/// Of this thread's network, which in a namespace is not always the process's.
const PROC_NET: &str = "/proc/thread-self/net";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const INTERFACES: &str = "/sys/class/net";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub interface: String,
    /// None on a point-to-point line such as PPPoE.
    pub gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    pub v4: Option<DefaultRoute>,
    pub v6: Option<DefaultRoute>,
}

impl Routes {
    pub fn read() -> Routes {
        let text = |name: &str| std::fs::read_to_string(format!("{PROC_NET}/{name}"));
        Routes {
            v4: text("route").ok().and_then(|text| parse_v4(&text)),
            v6: text("ipv6_route").ok().and_then(|text| parse_v6(&text)),
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
fn parse_v4(text: &str) -> Option<DefaultRoute> {
    const UP: u32 = 1;
    const REJECT: u32 = 0x200;
    let routes = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else {
            return None;
        };
        let hex = |field| u32::from_str_radix(field, 16).ok();
        let flags = hex(flags)?;
        let is_default = hex(destination)? == 0 && hex(mask)? == 0;
        let works = flags & UP != 0 && flags & REJECT == 0;
        // As the machine keeps it in memory: the address's bytes are in network order.
        let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway));
        let route = DefaultRoute { interface: interface.to_owned(), gateway };
        (is_default && works).then_some((metric.parse::<u32>().ok()?, route))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, route)| route)
}

fn parse_v6(text: &str) -> Option<DefaultRoute> {
    const UP: u32 = 1;
    const REJECT: u32 = 0x200;
    let routes = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, length, _, _, gateway, metric, _, _, flags, interface] = fields[..]
        else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = length == "00" && u128::from_str_radix(destination, 16).ok()? == 0;
        let works = flags & UP != 0 && flags & REJECT == 0;
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway));
        let route = DefaultRoute { interface: interface.to_owned(), gateway };
        (is_default && works).then_some((u32::from_str_radix(metric, 16).ok()?, route))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_default_route_with_the_least_metric() {
        let gateway = u32::from_ne_bytes([192, 168, 77, 1]);
        let text = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth0\t004DA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        );
        let route = parse_v4(&text).expect("a route");
        assert_eq!(route.interface, "eth0");
        assert_eq!(route.gateway, Some("192.168.77.1".parse().expect("an address")));
        assert_eq!(parse_v4("Iface\n"), None);
    }

    #[test]
    fn a_line_without_a_gateway_is_a_route_and_a_reject_is_none() {
        let text = "Iface\nppp0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n";
        let route = parse_v4(text).expect("a route");
        assert_eq!((route.interface.as_str(), route.gateway), ("ppp0", None));
        let zeros = "0".repeat(32);
        let reject = format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 0 00200200 lo\n");
        assert_eq!(parse_v6(&reject), None);
        let via = "fe800000000000000000000000000001";
        let route = format!("{reject}{zeros} 00 {zeros} 00 {via} 00000400 1 0 00450003 eth0\n");
        let route = parse_v6(&route).expect("a route");
        assert_eq!(route.gateway, Some("fe80::1".parse().expect("an address")));
    }
}
