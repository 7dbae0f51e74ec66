//! What a tracker's answer says about peers, and which of their addresses may be called at all. A
//! tracker is not trusted: it must not make a home knock at its own devices, nor at ports where
//! something else than a peer listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Services live below; clients choose ports above, as RFC 6335 wants it.
const PORT_MIN: u16 = 1024;

/// Reads BEP 23's `peers` (4 bytes of address, 2 of port), what is broken at the end left out.
pub fn compact_v4(bytes: &[u8], max: usize) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks().0.iter().take(max).map(|&[a, b, c, d, high, low]| {
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into()
    })
}

/// Reads BEP 7's `peers6` (16 bytes of address, 2 of port) likewise.
pub fn compact_v6(bytes: &[u8], max: usize) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks::<18>().0.iter().take(max).filter_map(|peer| {
        let (ip, port) = (peer.first_chunk::<16>()?, peer.last_chunk::<2>()?);
        let (ip, port) = (Ipv6Addr::from(*ip), u16::from_be_bytes(*port));
        Some(SocketAddrV6::new(ip, port, 0, 0).into())
    })
}

/// Whether a call may go there: an address of the internet, at a port where clients listen. The
/// household's own public addresses need the caller's own look.
pub fn may_call(address: SocketAddr) -> bool {
    address.port() >= PORT_MIN
        && match address.ip().to_canonical() {
            IpAddr::V4(v4) => is_of_the_internet_v4(v4),
            IpAddr::V6(v6) => is_of_the_internet_v6(v6),
        }
}

/// By IANA's registry of special-purpose addresses. 198.18.0.0/15 passes: no provider routes it, and
/// labs need addresses that stand for the internet (RFC 2544).
fn is_of_the_internet_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_of_protocols = (a, b, c) == (192, 0, 0);
    let is_reserved = a == 0 || a >= 240;
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || is_shared
        || is_of_protocols
        || is_reserved)
}

/// Global unicast (RFC 4291) without documentation (RFC 3849) and what wraps an IPv4 address that
/// nobody has looked at: Teredo (RFC 4380) and 6to4 (RFC 3056).
fn is_of_the_internet_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    s[0] & 0xe000 == 0x2000 && s[0] != 0x2002 && !(s[0] == 0x2001 && matches!(s[1], 0 | 0x0db8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn reads_compact_peers_and_leaves_out_a_broken_end() {
        let v4 = b"\x01\x02\x03\x04\x01\x02\x05\x06\x07\x08\x00\x00\x09\x09";
        let read: Vec<_> = compact_v4(v4, 50).collect();
        assert_eq!(read, [at("1.2.3.4:258"), at("5.6.7.8:0")]);
        assert_eq!(compact_v4(v4, 1).count(), 1);
        let v6 = b"\x20\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02rest";
        assert_eq!(compact_v6(v6, 50).collect::<Vec<_>>(), [at("[2001::1]:258")]);
    }

    #[test]
    fn calls_nobody_at_home_and_no_service() {
        for fine in ["8.8.8.8:6881", "198.18.0.2:1024", "[2a00:1450::1]:51413", "223.1.2.3:65535"] {
            assert!(may_call(at(fine)), "{fine}");
        }
        for bad in [
            "8.8.8.8:0",
            "8.8.8.8:80",
            "8.8.8.8:1023",
            "0.0.0.0:6881",
            "0.1.2.3:6881",
            "10.0.0.1:6881",
            "100.64.0.1:6881",
            "100.127.255.255:6881",
            "127.0.0.1:6881",
            "169.254.169.254:6881",
            "172.16.0.1:6881",
            "192.0.0.1:6881",
            "192.0.2.1:6881",
            "192.168.1.1:6881",
            "198.51.100.1:6881",
            "203.0.113.1:6881",
            "224.0.0.1:6881",
            "240.0.0.1:6881",
            "255.255.255.255:6881",
            "[::]:6881",
            "[::1]:6881",
            "[::ffff:192.168.1.1]:6881",
            "[64:ff9b::c0a8:101]:6881",
            "[fe80::1]:6881",
            "[fd00::1]:6881",
            "[ff02::1]:6881",
            "[2001:db8::1]:6881",
            "[2001:0:1:2::1]:6881",
            "[2002:c0a8:101::1]:6881",
        ] {
            assert!(!may_call(at(bad)), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn survives_any_answer(bytes: Vec<u8>, max in 0usize..60) {
            prop_assert!(compact_v4(&bytes, max).count() <= max.min(bytes.len() / 6));
            prop_assert!(compact_v6(&bytes, max).count() <= max.min(bytes.len() / 18));
        }
    }
}
