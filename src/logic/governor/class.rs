//! Who is a peer, going by its address alone: which class of the books, and which household.

use std::net::{IpAddr, Ipv6Addr};

use crate::logic::usage::PeerClass;

/// The class of a peer's bytes in the ledger. Every address counts as WAN for now, loopback
/// included: telling the LAN apart needs the device's own interfaces, which come as an argument
/// here once the gateway watches them.
pub fn class_of(_ip: IpAddr) -> PeerClass {
    PeerClass::Wan
}

/// What a limit "per IP" is counted by: an IPv4 address, or an IPv6 /64, since a single household
/// owns at least a whole /64 and could otherwise take every place.
pub fn address_group(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_ipv6_by_64_and_sees_through_mapped_ipv4() {
        let group = |s: &str| address_group(s.parse().expect("an address"));
        assert_eq!(group("2001:db8:1:2:aaaa::1"), group("2001:db8:1:2::9"));
        assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
        assert_eq!(group("::ffff:192.0.2.7"), group("192.0.2.7"));
        assert_ne!(group("192.0.2.7"), group("192.0.2.8"));
    }
}
