//! Whom to probe: which answers of a search are beyond the home's router, and which of the candidates
//! tells delay best. Pure: sees addresses and round trips, never a socket.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Hops that are looked at: home router, a second one in front of it, and the provider's first few.
pub const HOPS_MAX: u8 = 5;
/// Tried at the same time, best guess first, beside the hub.
const ROUTERS_MAX: usize = 3;
/// Of the probes of a trial, in percent: who drops more limits what it answers.
const ANSWERED_MIN_PERCENT: usize = 75;
/// A candidate may vary by this much more than the steadiest and still be preferred for its place.
const UNSTEADY: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A router that answers ICMP echo.
    Hop(IpAddr),
    /// The hub's, by UDP.
    Reflector(SocketAddr),
    /// The round trip of a SYN.
    Tcp(SocketAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Hop(address) => write!(f, "router {address} (ICMP)"),
            Target::Reflector(address) => write!(f, "the hub's reflector {address} (UDP)"),
            Target::Tcp(address) => write!(f, "the hub at {address} (TCP)"),
        }
    }
}

/// Who answered a probe that was allowed so many hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub address: IpAddr,
    /// It is whom the probe was addressed to, not a router on the way.
    pub is_destination: bool,
}

/// What to try, in the order of preference. `is_router`: this machine is the home's router, so its
/// first hop is the provider's; else a private first hop is the home's router, and who answers on our
/// side of the line shows no queue in it.
pub fn candidates(
    hops: &BTreeMap<u8, Hop>,
    is_router: bool,
    reflector: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
) -> Vec<Target> {
    let in_home = |n: u8, address| n == 1 && !is_router && is_private(address);
    let beyond = hops.iter().map(|(n, hop)| (*n, hop.address));
    let beyond: Vec<IpAddr> =
        beyond.filter(|(n, address)| !in_home(*n, *address)).map(|(_, address)| address).collect();
    let public = beyond.iter().filter(|address| !is_private(**address));
    // A private address after the first hop is a second router in the home, or the provider's: the
    // farther, the less likely in the home.
    let private = beyond.iter().rev().filter(|address| is_private(**address));
    let routers = public.chain(private).map(|address| Target::Hop(*address)).take(ROUTERS_MAX);
    let hub = [reflector.map(Target::Reflector), tcp.map(Target::Tcp)].into_iter().flatten();
    let mut targets: Vec<Target> = vec![];
    for target in routers.chain(hub) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

/// The round trips of a candidate's trial, and how many it was asked for.
#[derive(Clone, Debug)]
pub struct Trial {
    pub target: Target,
    pub asked: usize,
    pub round_trips: Vec<Duration>,
}

impl Trial {
    fn has_passed(&self) -> bool {
        self.asked > 0 && self.round_trips.len() * 100 >= self.asked * ANSWERED_MIN_PERCENT
    }

    /// How far the usual round trip is from the shortest.
    fn unsteadiness(&self) -> Duration {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        median.saturating_sub(sorted.first().copied().unwrap_or_default())
    }
}

/// The first that answers reliably, unless another is far steadier.
pub fn choose(trials: &[Trial]) -> Option<Target> {
    let passed = || trials.iter().filter(|trial| trial.has_passed());
    let steadiest = passed().map(Trial::unsteadiness).min()?;
    passed().find(|trial| trial.unsteadiness() <= steadiest + UNSTEADY).map(|trial| trial.target)
}

/// Addresses that may be inside a home. Carrier-grade NAT (100.64.0.0/10) is the provider's.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn hops(addresses: &[&str]) -> BTreeMap<u8, Hop> {
        let hop = |text: &&str| Hop { address: ip(text), is_destination: false };
        (1..).zip(addresses.iter().map(hop)).collect()
    }

    fn first(addresses: &[&str], is_router: bool) -> Option<Target> {
        candidates(&hops(addresses), is_router, None, None).first().copied()
    }

    #[test]
    fn takes_the_first_hop_that_is_surely_beyond_the_homes_router() {
        let hop = |text| Some(Target::Hop(ip(text)));
        assert_eq!(first(&["192.168.1.1", "8.1.1.1", "8.2.2.2"], false), hop("8.1.1.1"));
        assert_eq!(first(&["192.168.1.1", "100.64.3.1", "8.2.2.2"], false), hop("100.64.3.1"));
        assert_eq!(
            first(&["192.168.1.1", "192.168.0.1", "8.1.1.1"], false),
            hop("8.1.1.1"),
            "a second router of the home's shows no queue in the line"
        );
        assert_eq!(first(&["192.168.1.1", "10.0.0.1"], false), hop("10.0.0.1"));
        assert_eq!(first(&["192.168.1.1"], false), None);
        assert_eq!(first(&["203.0.113.1"], false), hop("203.0.113.1"), "the router is a bridge");
    }

    #[test]
    fn on_a_router_the_first_hop_is_the_providers() {
        assert_eq!(first(&["10.1.1.1"], true), Some(Target::Hop(ip("10.1.1.1"))));
    }

    #[test]
    fn the_hub_comes_after_the_hops() {
        let [udp, tcp] = ["198.51.100.7:7071", "198.51.100.7:443"].map(|a| a.parse().expect("one"));
        let found = candidates(&hops(&["192.168.1.1", "8.1.1.1"]), false, Some(udp), Some(tcp));
        let hop = Target::Hop(ip("8.1.1.1"));
        assert_eq!(found, [hop, Target::Reflector(udp), Target::Tcp(tcp)]);
    }

    #[test]
    fn chooses_who_answers_and_varies_little() {
        let trial = |n: u8, millis: &[u64]| Trial {
            target: Target::Hop(IpAddr::from([203, 0, 113, n])),
            asked: 8,
            round_trips: millis.iter().copied().map(Duration::from_millis).collect(),
        };
        let limits = trial(1, &[5, 5, 5]);
        let busy = trial(2, &[5, 9, 12, 14, 9, 20, 11, 9]);
        let good = trial(3, &[8, 8, 9, 8, 8, 8, 8, 8]);
        let far = trial(4, &[30, 30, 30, 30, 30, 30, 30, 30]);
        let all = [limits.clone(), busy.clone(), good.clone(), far];
        assert_eq!(choose(&all), Some(good.target));
        assert_eq!(choose(&[limits.clone(), busy.clone()]), Some(busy.target));
        assert_eq!(choose(&[limits]), None);
        assert_eq!(choose(&[]), None);
    }
}
