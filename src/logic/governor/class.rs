//! Who is a peer, going by its address alone: which class of the books, and which household. It gets
//! the device's interfaces as plain values and never asks the system. In doubt a peer is on the WAN:
//! a LAN peer held to the limit loses speed, a WAN peer let past it takes the household's uplink.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use crate::logic::usage::PeerClass;

/// A shorter prefix than these is no household's, and a slip in it would lift the limit for half of
/// the internet.
const BITS_MIN_V4: u8 = 8;
const BITS_MIN_V6: u8 = 32;
/// Detected only from this on: what has a wider private subnet is a provider's network, not a home's.
const DETECTED_BITS_MIN_V4: u8 = 16;
/// What one LAN has of IPv6 (RFC 4291), whatever length an address was given with.
const LAN_BITS_V6: u8 = 64;

/// An address and how many of its first bits are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    pub bits: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPrefix {
    #[error("{0:?} is not a network such as \"192.168.1.0/24\" or \"fd00:1:2:3::/64\"")]
    Form(String),
    #[error(
        "{0} is wider than any LAN: an IPv4 network has at least /{BITS_MIN_V4}, one of IPv6 /{BITS_MIN_V6}"
    )]
    TooWide(Prefix),
}

/// One of the device's network interfaces that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The system's number for it, which link-local addresses carry as their scope.
    pub index: u32,
    /// Our own addresses on it.
    pub addresses: Vec<Prefix>,
    /// A default route goes out here.
    pub has_default_route: bool,
    /// Loopback, a tunnel, a bridge for containers: whoever comes through it may be anywhere.
    pub is_virtual: bool,
}

/// What is known of the household's own network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lan {
    inside: Vec<Prefix>,
    /// Parts of `inside` that are not the household's all the same.
    outside: Vec<Prefix>,
    /// Interfaces whose link-local peers are the household's.
    links: Vec<u32>,
}

impl Lan {
    /// The owner's word: these networks and nothing else.
    pub fn configured(prefixes: &[Prefix]) -> Lan {
        Lan { inside: prefixes.to_vec(), ..Lan::default() }
    }

    /// On a router the LAN is what has private addresses and no default route. A device with nothing
    /// of the kind, such as a box behind the router, is on the LAN with the interface that has the
    /// default route, if its address is private.
    ///
    /// `gateways` are never on the LAN: routers and proxies may hand on under their own address what
    /// comes from the internet. Nor is the device itself, for the same reason.
    pub fn detect(interfaces: &[Interface], gateways: &[IpAddr]) -> Lan {
        let homes = || {
            let real = interfaces.iter().filter(|i| !i.is_virtual);
            real.filter(|i| i.addresses.iter().any(|a| a.is_private()))
        };
        let is_router = homes().any(|i| !i.has_default_route);
        let is_lan = |i: &&Interface| i.has_default_route != is_router;
        let prefixes = |i: &Interface| i.addresses.clone();
        let single = |address: IpAddr| Prefix { address, bits: full_bits(address) };
        let uplinks = interfaces.iter().filter(|i| is_router && i.has_default_route);
        let own = interfaces.iter().flat_map(prefixes).map(|own| single(own.address));
        let uplinks = uplinks.flat_map(prefixes).filter(|p| !p.is_link_local_v6());
        Lan {
            inside: homes()
                .filter(is_lan)
                .flat_map(prefixes)
                .filter_map(Prefix::of_household)
                .collect(),
            outside: gateways.iter().copied().map(single).chain(own).chain(uplinks).collect(),
            links: homes().filter(is_lan).map(|i| i.index).collect(),
        }
    }

    /// At home, or the device itself, or a gateway of it.
    pub fn is_ours(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_named = |p: &Prefix| p.bits == full_bits(ip) && p.contains(ip);
        self.class_of(address) == PeerClass::Lan || self.outside.iter().any(is_named)
    }

    /// The class of a peer's bytes in the ledger.
    pub fn class_of(&self, peer: SocketAddr) -> PeerClass {
        let ip = peer.ip().to_canonical();
        let within = |prefixes: &[Prefix]| prefixes.iter().any(|p| p.contains(ip));
        let linked = match peer {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                self.links.contains(&v6.scope_id())
            }
            _ => false,
        };
        if (linked || within(&self.inside)) && !within(&self.outside) {
            PeerClass::Lan
        } else {
            PeerClass::Wan
        }
    }
}

/// Whether some household may have this address on its LAN; of all others the class is plain.
pub fn may_be_at_home(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback(),
    }
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

impl Prefix {
    pub fn contains(self, ip: IpAddr) -> bool {
        fn same(a: u128, b: u128, total: u32, bits: u8) -> bool {
            (a ^ b).checked_shr(total.saturating_sub(bits.into())).unwrap_or(0) == 0
        }
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same(a.to_bits().into(), b.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, self.bits),
            _ => false,
        }
    }

    /// The household's part of the network that one of our own addresses on its LAN tells of. Public
    /// IPv4 networks are nobody's LAN unless the owner says so.
    fn of_household(self) -> Option<Prefix> {
        match self.address {
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => {
                (self.bits >= DETECTED_BITS_MIN_V4).then_some(self)
            }
            IpAddr::V4(_) => None,
            // Link-local addresses go by their interface.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
            IpAddr::V6(_) => Some(Prefix { bits: LAN_BITS_V6, ..self }),
        }
    }

    /// RFC 1918 or ULA (RFC 4193): what a home's router hands out, and no router's WAN is alone with.
    fn is_private(self) -> bool {
        match self.address {
            IpAddr::V4(v4) => v4.is_private(),
            IpAddr::V6(v6) => v6.is_unique_local(),
        }
    }

    fn is_link_local_v6(self) -> bool {
        matches!(self.address, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

fn full_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS as u8,
        IpAddr::V6(_) => Ipv6Addr::BITS as u8,
    }
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Prefix, NotAPrefix> {
        let form = || NotAPrefix::Form(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits: u8 = bits.parse().map_err(|_| form())?;
        if bits > full_bits(address) {
            return Err(form());
        }
        let prefix = Prefix { address, bits };
        let bits_min = if address.is_ipv4() { BITS_MIN_V4 } else { BITS_MIN_V6 };
        if bits < bits_min { Err(NotAPrefix::TooWide(prefix)) } else { Ok(prefix) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Display for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut networks = self.inside.iter();
        let Some(first) = networks.next() else { return f.write_str("none") };
        write!(f, "{first}")?;
        networks.try_for_each(|network| write!(f, ", {network}"))
    }
}

#[cfg(test)]
mod tests;
