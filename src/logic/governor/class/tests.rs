use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> Prefix {
    let (address, bits) = text.split_once('/').expect("a prefix");
    Prefix { address: ip(address), bits: bits.parse().expect("bits") }
}

fn interface(index: u32, addresses: &[&str]) -> Interface {
    Interface {
        index,
        addresses: addresses.iter().map(|a| prefix(a)).collect(),
        has_default_route: false,
        is_virtual: false,
    }
}

fn uplink(index: u32, addresses: &[&str]) -> Interface {
    Interface { has_default_route: true, ..interface(index, addresses) }
}

fn virtual_one(index: u32, addresses: &[&str]) -> Interface {
    Interface { is_virtual: true, ..interface(index, addresses) }
}

fn loopback() -> Interface {
    virtual_one(1, &["127.0.0.1/8", "::1/128"])
}

fn is_lan(lan: &Lan, address: &str) -> bool {
    lan.class_of(SocketAddr::new(ip(address), 50_000)) == PeerClass::Lan
}

fn is_lan_on(lan: &Lan, address: &str, scope: u32) -> bool {
    let IpAddr::V6(v6) = ip(address) else { panic!("IPv6 only") };
    lan.class_of(std::net::SocketAddrV6::new(v6, 50_000, 0, scope).into()) == PeerClass::Lan
}

#[test]
fn a_routers_lan_is_what_has_no_default_route() {
    let lan = Lan::detect(
        &[
            loopback(),
            uplink(2, &["203.0.113.9/24", "2001:db8:ffff:1::2/64", "fe80::2/64"]),
            interface(3, &["192.168.1.1/24", "2001:db8:1:2::1/64", "fd00:1::1/64", "fe80::1/64"]),
        ],
        &[ip("203.0.113.1"), ip("fe80::ff")],
    );
    for at_home in ["192.168.1.7", "::ffff:192.168.1.7", "2001:db8:1:2::9", "fd00:1::7"] {
        assert!(is_lan(&lan, at_home), "{at_home}");
    }
    for elsewhere in [
        "192.168.2.7",
        "203.0.113.10",
        "2001:db8:ffff:1::9",
        "2001:db8:1:3::9",
        "10.0.0.1",
        "8.8.8.8",
    ] {
        assert!(!is_lan(&lan, elsewhere), "{elsewhere}");
    }
    assert!(is_lan_on(&lan, "fe80::7", 3));
    assert!(!is_lan_on(&lan, "fe80::7", 2), "the provider's side of the same range");
}

#[test]
fn private_addresses_beyond_a_routers_wan_are_not_its_lan() {
    // Double NAT, and a carrier's NAT (RFC 6598).
    for wan in ["192.168.0.17/24", "100.64.3.4/10", "10.9.8.7/16"] {
        let lan = Lan::detect(&[uplink(2, &[wan]), interface(3, &["192.168.1.1/24"])], &[]);
        assert!(is_lan(&lan, "192.168.1.50"));
        for stranger in ["192.168.0.50", "100.64.3.50", "100.64.3.4", "10.9.8.8"] {
            assert!(!is_lan(&lan, stranger), "{stranger} through {wan}");
        }
    }
    // A LAN so wide that the WAN's network lies within it.
    let lan = Lan::detect(&[uplink(2, &["10.0.5.2/24"]), interface(3, &["10.0.0.1/16"])], &[]);
    assert!(is_lan(&lan, "10.0.6.2") && !is_lan(&lan, "10.0.5.9"));
}

#[test]
fn a_box_behind_the_router_is_on_the_lan_with_its_one_interface() {
    let lan = Lan::detect(
        &[
            loopback(),
            uplink(2, &["192.168.1.50/24", "2001:db8:1:2::50/128", "fe80::50/64"]),
            uplink(4, &["192.168.1.51/24"]),
        ],
        &[ip("192.168.1.1")],
    );
    assert!(is_lan(&lan, "192.168.1.7") && is_lan(&lan, "2001:db8:1:2::7"));
    assert!(is_lan_on(&lan, "fe80::7", 2));
    assert!(!is_lan(&lan, "192.168.1.1"), "the router may hand on what comes from the internet");
    assert!(!is_lan(&lan, "192.168.1.50"), "so may a proxy on the device itself");
    assert!(!is_lan(&lan, "127.0.0.1") && !is_lan(&lan, "::1"));
}

#[test]
fn a_server_on_the_internet_has_no_lan() {
    let lan = Lan::detect(&[loopback(), uplink(2, &["203.0.113.9/24", "2001:db8::9/64"])], &[]);
    assert!(!is_lan(&lan, "203.0.113.10") && !is_lan(&lan, "2001:db8::10"));
    // Nor has one whose provider puts it into a private network of its own size.
    let lan = Lan::detect(&[uplink(2, &["10.1.2.3/8"])], &[]);
    assert!(!is_lan(&lan, "10.1.2.4"));
    // A network for benchmarks (RFC 2544) stands for the internet, with or without a route.
    let lan = Lan::detect(&[interface(2, &["198.18.0.1/24"])], &[]);
    assert!(!is_lan(&lan, "198.18.0.2"));
}

#[test]
fn what_comes_through_a_tunnel_is_not_at_home() {
    let tunnel = virtual_one(5, &["10.8.0.1/24", "fd00:8::1/64"]);
    let lan = Lan::detect(&[tunnel, uplink(2, &["192.168.1.50/24"])], &[]);
    assert!(is_lan(&lan, "192.168.1.7"), "and the tunnel does not make the box a router");
    assert!(!is_lan(&lan, "10.8.0.2") && !is_lan(&lan, "fd00:8::2"));
}

#[test]
fn the_owners_word_comes_before_any_detection() {
    let lan = Lan::configured(&[prefix("127.0.0.2/32"), prefix("203.0.113.0/28")]);
    assert!(is_lan(&lan, "127.0.0.2") && is_lan(&lan, "203.0.113.15"));
    assert!(!is_lan(&lan, "127.0.0.1") && !is_lan(&lan, "203.0.113.16"));
    assert!(!is_lan(&Lan::configured(&[]), "192.168.1.7"));
}

#[test]
fn reads_networks_and_says_what_is_wrong_with_others() {
    assert_eq!("192.168.1.0/24".parse(), Ok(prefix("192.168.1.0/24")));
    assert_eq!("fd00::/48".parse(), Ok(prefix("fd00::/48")));
    for bad in ["192.168.1.0", "192.168.1.0/33", "home/24", "10.0.0.0/", "10.0.0.0/-1", ""] {
        assert_eq!(bad.parse::<Prefix>(), Err(NotAPrefix::Form(bad.into())));
    }
    for wide in ["0.0.0.0/0", "::/0", "10.0.0.0/7", "2000::/3"] {
        assert_eq!(wide.parse::<Prefix>(), Err(NotAPrefix::TooWide(prefix(wide))));
    }
}

#[test]
fn only_public_ipv4_and_the_device_itself_are_never_at_home() {
    for possible in ["10.1.2.3", "192.168.1.2", "169.254.1.1", "2001:db8::1", "fe80::1"] {
        assert!(may_be_at_home(ip(possible)), "{possible}");
    }
    for plain in ["8.8.8.8", "127.0.0.1", "::1", "100.64.0.1", "198.18.0.1"] {
        assert!(!may_be_at_home(ip(plain)), "{plain}");
    }
}

#[test]
fn groups_ipv6_by_64_and_sees_through_mapped_ipv4() {
    let group = |s: &str| address_group(ip(s));
    assert_eq!(group("2001:db8:1:2:aaaa::1"), group("2001:db8:1:2::9"));
    assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
    assert_eq!(group("::ffff:192.0.2.7"), group("192.0.2.7"));
    assert_ne!(group("192.0.2.7"), group("192.0.2.8"));
}

fn address() -> impl Strategy<Value = IpAddr> {
    let near = (any::<u8>(), any::<u8>()).prop_map(|(a, b)| IpAddr::from([192, 168, a % 4, b]));
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    prop_oneof![3 => near, 1 => v4, 1 => v6]
}

fn any_interface() -> impl Strategy<Value = Interface> {
    let own = (address(), 0u8..=128)
        .prop_map(|(address, bits)| Prefix { address, bits: bits.min(full_bits(address)) });
    (prop::collection::vec(own, 0..4), any::<bool>(), any::<bool>(), 0u32..9).prop_map(
        |(addresses, has_default_route, is_virtual, index)| Interface {
            index,
            addresses,
            has_default_route,
            is_virtual,
        },
    )
}

proptest! {
    /// Whatever the interfaces: no public IPv4 address, gateway, own address or tunnel's peer is at
    /// home, and a private one only if one of our interfaces has its network.
    #[test]
    fn detection_never_takes_the_internet_for_the_lan(
        interfaces in prop::collection::vec(any_interface(), 0..5),
        gateways in prop::collection::vec(address(), 0..3),
        peer in address(),
    ) {
        let lan = Lan::detect(&interfaces, &gateways);
        if lan.class_of(SocketAddr::new(peer, 1)) == PeerClass::Lan {
            prop_assert!(may_be_at_home(peer));
            prop_assert!(!gateways.iter().any(|g| g.to_canonical() == peer.to_canonical()));
            let real = || interfaces.iter().filter(|i| !i.is_virtual);
            prop_assert!(interfaces.iter().flat_map(|i| &i.addresses).all(|a| a.address != peer));
            let has_its_network = real().flat_map(|i| &i.addresses).any(|own| {
                let bits = if own.address.is_ipv6() { LAN_BITS_V6 } else { own.bits };
                Prefix { bits, ..*own }.contains(peer)
            });
            prop_assert!(has_its_network);
        }
    }

    #[test]
    fn a_prefix_contains_what_agrees_in_its_first_bits(a: u32, b: u32, bits in 0u8..=32) {
        let prefix = Prefix { address: Ipv4Addr::from_bits(a).into(), bits };
        let expected = (0..u32::from(bits)).all(|n| (a ^ b) >> (31 - n) & 1 == 0);
        prop_assert_eq!(prefix.contains(Ipv4Addr::from_bits(b).into()), expected);
    }
}
