//! The system's routing tables, as Linux prints them: which interfaces lead to the internet, and
//! through whom. Reads text; opens no file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// linux/route.h: the route is usable; it refuses what would take it.
const UP: u32 = 0x1;
const REJECTS: u32 = 0x200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub interface: String,
    /// None on a point-to-point line such as PPPoE.
    pub gateway: Option<IpAddr>,
    /// Of several, the system takes the one with the least.
    pub metric: u32,
}

/// Of /proc/net/route: columns interface, destination, gateway, flags, two counts, metric, mask.
/// Addresses are hexadecimal, in the byte order of the machine.
pub fn default_routes_v4(table: &str) -> Vec<DefaultRoute> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, destination, gateway, flags, _, _, metric, mask, ..] = columns[..] else {
            return None;
        };
        if hex(destination)? != 0 || hex(mask)? != 0 || !is_usable(hex(flags)?) {
            return None;
        }
        let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
        Some(DefaultRoute {
            interface: interface.to_owned(),
            gateway: (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway)),
            metric: metric.parse().ok()?,
        })
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// Of /proc/net/ipv6_route: columns destination, its bits, source, its bits, gateway, metric, two
/// counts, flags, interface; all numbers are hexadecimal.
pub fn default_routes_v6(table: &str) -> Vec<DefaultRoute> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, bits, _, _, gateway, metric, _, _, flags, interface] = columns[..] else {
            return None;
        };
        let address = |field| u128::from_str_radix(field, 16).ok();
        if address(destination)? != 0 || hex(bits)? != 0 || !is_usable(hex(flags)?) {
            return None;
        }
        let gateway = Ipv6Addr::from(address(gateway)?);
        Some(DefaultRoute {
            interface: interface.to_owned(),
            gateway: (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway)),
            metric: hex(metric)?,
        })
    };
    table.lines().filter_map(route).collect()
}

fn hex(field: &str) -> Option<u32> {
    u32::from_str_radix(field, 16).ok()
}

fn is_usable(flags: u32) -> bool {
    flags & UP != 0 && flags & REJECTS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(interface: &str, gateway: Option<&str>, metric: u32) -> DefaultRoute {
        let gateway = gateway.map(|g| g.parse().expect("an address"));
        DefaultRoute { interface: interface.into(), gateway, metric }
    }

    #[test]
    fn finds_the_default_routes_and_no_others() {
        // 0100A8C0 on a machine with the least significant byte first.
        let gateway = u32::from_ne_bytes([192, 168, 0, 1]);
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
             *\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\nrubbish\n"
        );
        let found = default_routes_v4(&table);
        assert_eq!(found, [route("eth0", Some("192.168.0.1"), 100), route("ppp0", None, 0)]);
        assert!(default_routes_v4("").is_empty() && default_routes_v4("Iface\n").is_empty());
    }

    #[test]
    fn finds_the_default_routes_of_ipv6() {
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
             fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_routes_v6(&table), [route("eth0", Some("fe80::1"), 1024)]);
        assert!(default_routes_v6("").is_empty());
    }
}
