//! The device's network interfaces, as the system has them at the moment: addresses, default routes,
//! and which of them are not wires of this house. Decides nothing about peers, and watches nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::{InterfaceFlags, if_nametoindex},
    sys::socket::SockaddrStorage,
};

use crate::logic::{
    governor::{Interface, Prefix},
    routes::{DefaultRoute, default_routes_v4, default_routes_v6},
};

/// A router has a dozen; a machine full of containers has hundreds, of which these are enough.
const ADDRESSES_MAX: usize = 512;
/// Default routes come first in the system's tables, which may be long on a router.
const ROUTES_BYTES_MAX: u64 = 64 * 1024;

/// The interfaces that are up, and the gateways of the default routes.
pub fn read() -> io::Result<(Vec<Interface>, Vec<IpAddr>)> {
    let routes = [
        default_routes_v4(&text("/proc/net/route")),
        default_routes_v6(&text("/proc/net/ipv6_route")),
    ];
    let routes: Vec<DefaultRoute> = routes.into_iter().flatten().collect();
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs()?.take(ADDRESSES_MAX) {
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let bits = entry.netmask.as_ref().and_then(ip).map_or(0, ones);
        let name = entry.interface_name;
        let interface = found.entry(name).or_insert_with_key(|name| Interface {
            index: if_nametoindex(name.as_str()).unwrap_or_default(),
            addresses: vec![],
            has_default_route: routes.iter().any(|route| route.interface == *name),
            is_virtual: entry.flags.intersects(NOT_A_WIRE) || is_virtual(name),
        });
        interface.addresses.push(Prefix { address, bits });
    }
    let gateways = routes.into_iter().filter_map(|route| route.gateway).collect();
    Ok((found.into_values().collect(), gateways))
}

/// Loopback, and the tunnels that say so of themselves.
const NOT_A_WIRE: InterfaceFlags =
    InterfaceFlags::IFF_LOOPBACK.union(InterfaceFlags::IFF_POINTOPOINT);

/// Tunnels that look like Ethernet (tap), and bridges that join nothing but containers.
fn is_virtual(name: &str) -> bool {
    let path = Path::new("/sys/class/net").join(name);
    if path.join("tun_flags").exists() {
        return true;
    }
    let Ok(ports) = fs::read_dir(path.join("brif")) else { return false };
    // A port of a house has a device under it, or is a VLAN of one that has.
    let is_wire = |port: fs::DirEntry| {
        let port = Path::new("/sys/class/net").join(port.file_name());
        let is_lower = |e: fs::DirEntry| e.file_name().to_string_lossy().starts_with("lower_");
        port.join("device").exists()
            || fs::read_dir(port).is_ok_and(|all| all.flatten().any(is_lower))
    };
    !ports.flatten().any(is_wire)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The length of a netmask.
fn ones(mask: IpAddr) -> u8 {
    let bits = match mask {
        IpAddr::V4(v4) => v4.to_bits().leading_ones(),
        IpAddr::V6(v6) => v6.to_bits().leading_ones(),
    };
    bits as u8
}

/// What there is of a file; a kernel without IPv6 has no table for it.
fn text(path: &str) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(ROUTES_BYTES_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::debug!(path, %error, "the routes cannot be read");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn sees_loopback_and_takes_it_for_no_wire() {
        let (interfaces, _) = read().unwrap();
        let localhost = Prefix { address: Ipv4Addr::LOCALHOST.into(), bits: 8 };
        let loopback = interfaces.iter().find(|i| i.addresses.contains(&localhost));
        assert!(loopback.is_some_and(|i| i.is_virtual), "{interfaces:?}");
    }
}
