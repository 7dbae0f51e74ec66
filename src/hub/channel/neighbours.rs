//! Which addresses of a crowded neighbourhood are named to a client. PeerBanHelper's default rules take
//! more than two IPv4 addresses of one /24 in a torrent within a day, or five IPv6 addresses of a /56,
//! for one household that dials many times, and ban them; devices of one provider live that close.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const NAMED_IPV4_MAX: usize = 2;
const NAMED_IPV6_MAX: usize = 5;

/// Those of `addresses`, which come in order, that are kept from `asker`. Who asks again is kept from
/// the same ones, as long as they are all there; others see others.
pub fn hidden_from(asker: IpAddr, addresses: impl Iterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
    let mut hidden = BTreeSet::new();
    let mut crowd: Vec<IpAddr> = vec![];
    for address in addresses.filter(|address| is_public(*address)) {
        if crowd.last() == Some(&address) {
            continue;
        }
        if crowd.first().is_some_and(|first| neighbourhood(*first) != neighbourhood(address)) {
            hide(asker, &mut crowd, &mut hidden);
        }
        crowd.push(address);
    }
    hide(asker, &mut crowd, &mut hidden);
    hidden
}

/// All but the first few in the asker's own order.
fn hide(asker: IpAddr, crowd: &mut Vec<IpAddr>, hidden: &mut BTreeSet<IpAddr>) {
    let named = match crowd.first() {
        Some(IpAddr::V4(_)) => NAMED_IPV4_MAX,
        _ => NAMED_IPV6_MAX,
    };
    if crowd.len() > named {
        crowd.sort_by_key(|address| rank(asker, *address));
        hidden.extend(&crowd[named..]);
    }
    crowd.clear();
}

fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 72 << 72).into(),
    }
}

/// PeerBanHelper leaves private networks alone.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0b1100_0000 == 64;
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared)
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

/// An order of its own for each asker: FNV-1a over both addresses, and mixed once more, since its last
/// bytes move little.
fn rank(asker: IpAddr, address: IpAddr) -> u64 {
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let both = bytes(asker).into_iter().chain(bytes(address));
    let hash = both.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(third: u8, last: u8) -> IpAddr {
        IpAddr::from([198, 51, third, last])
    }

    fn v6(last: u16) -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, 0, last, 0, 0, 0, 1])
    }

    fn named(asker: IpAddr, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let hidden = hidden_from(asker, addresses.iter().copied());
        addresses.iter().copied().filter(|address| !hidden.contains(address)).collect()
    }

    #[test]
    fn names_few_of_a_crowd_and_all_of_the_rest() {
        let mut crowd: Vec<IpAddr> = (0..=255).map(|last| v4(100, last)).collect();
        crowd.extend([v4(101, 1), v4(101, 1), v4(101, 2), v4(102, 9)]);
        crowd.extend((0..=255).map(v6));
        let names = named(v4(7, 7), &crowd);
        let count = |of: IpAddr| {
            let mut near: Vec<_> =
                names.iter().filter(|n| neighbourhood(**n) == neighbourhood(of)).collect();
            near.dedup();
            near.len()
        };
        assert_eq!([count(v4(100, 0)), count(v4(101, 0)), count(v4(102, 0))], [2, 2, 1]);
        assert_eq!(count(v6(0)), 5);
    }

    #[test]
    fn names_the_same_to_whoever_asks_again_and_others_to_others() {
        let crowd: Vec<IpAddr> = (0..=255).map(|last| v4(100, last)).collect();
        assert_eq!(named(v4(1, 1), &crowd), named(v4(1, 1), &crowd));
        let askers = (0..=255).map(|last| v4(3, last));
        let mut seen: Vec<_> = askers.flat_map(|asker| named(asker, &crowd)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 200, "{} of 256 are named to somebody", seen.len());
    }

    #[test]
    fn leaves_private_networks_alone() {
        for network in [[10, 0, 0], [192, 168, 1], [100, 64, 3], [127, 0, 0]] {
            let [a, b, c] = network;
            let crowd: Vec<IpAddr> = (1..9).map(|last| IpAddr::from([a, b, c, last])).collect();
            assert_eq!(named(v4(1, 1), &crowd), crowd);
        }
    }
}
