//! Where a URL out of the operator's documents may lead: to the public internet, to networks that the
//! signed policy names, and to the server that the owner named as the hub. Everything else, such as
//! the household's printer or the router's own page, is out of reach of whoever writes a list. Decides
//! about addresses and hops; names are resolved, and the answer is enforced, in `device/outbound.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::governor::Prefix;

/// More is a loop, or somebody's idea of one.
pub const REDIRECTS_MAX: usize = 5;

/// See the module's first lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    hub: Option<Url>,
    private: Vec<Prefix>,
}

/// How a URL that may be followed is to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Only to addresses that [`Reach::permits`].
    Guarded,
    /// The hub that the owner has named: wherever its name leads.
    Hub,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "{host} leads to {address}, which is not on the public internet: if it is meant, the \
         operator's policy must name its network in private_web_seeds"
    )]
    Private { host: String, address: IpAddr },
    #[error("a web seed must be http or https, and this is {0}")]
    Scheme(String),
    #[error("it redirects from https to http")]
    Downgrade,
    #[error("it redirects more than {REDIRECTS_MAX} times")]
    TooManyRedirects,
}

impl Reach {
    /// `hub` is what the owner has configured.
    pub fn new(hub: Option<Url>) -> Reach {
        Reach { hub, private: Vec::new() }
    }

    /// What the policy in force allows beyond the public internet.
    pub fn set_private(&mut self, networks: Vec<Prefix>) {
        self.private = networks;
    }

    pub fn way(&self, url: &Url) -> Result<Way, Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme(url.scheme().to_owned()));
        }
        if self.is_hub(url) {
            return Ok(Way::Hub);
        }
        let address = match url.host() {
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            _ => return Ok(Way::Guarded),
        };
        match self.permits(address) {
            true => Ok(Way::Guarded),
            false => Err(Refused::Private { host: address.to_string(), address }),
        }
    }

    /// `hops` counts the redirects so far, this one included.
    pub fn redirect(&self, from: &Url, to: &Url, hops: usize) -> Result<Way, Refused> {
        if hops > REDIRECTS_MAX {
            return Err(Refused::TooManyRedirects);
        }
        if from.scheme() == "https" && to.scheme() == "http" {
            return Err(Refused::Downgrade);
        }
        self.way(to)
    }

    /// Whether a connection may go there.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.private.iter().any(|network| network.contains(address))
    }

    /// The very server that the owner has named, port included: another port of its address may be
    /// the router's page. A name that the public DNS answers for could be pointed at the household by
    /// whoever runs the zone, unless a certificate proves who is there.
    fn is_hub(&self, url: &Url) -> bool {
        let Some(hub) = &self.hub else { return false };
        let is_it = hub.scheme() == url.scheme()
            && hub.host() == url.host()
            && hub.port_or_known_default() == url.port_or_known_default();
        is_it && (url.scheme() == "https" || url.host().is_some_and(is_fixed))
    }
}

/// An address, or a name that no public DNS server answers for.
fn is_fixed(host: Host<&str>) -> bool {
    const LOCAL: [&str; 5] = ["localhost", "local", "lan", "internal", "home.arpa"];
    match host {
        Host::Ipv4(_) | Host::Ipv6(_) => true,
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let is_below = |zone: &&str| {
                name.strip_suffix(*zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            !name.contains('.') || LOCAL.iter().any(is_below)
        }
    }
}

/// Globally reachable unicast, by IANA's registries of special-purpose addresses (RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let within = |a, b, c, bits: u32| {
        (v4.to_bits() ^ Ipv4Addr::new(a, b, c, 0).to_bits()) >> (32 - bits) == 0
    };
    let special = within(0, 0, 0, 8)
        || v4.is_private()
        || within(100, 64, 0, 10) // carriers' NAT (RFC 6598)
        || v4.is_loopback()
        || v4.is_link_local()
        || within(192, 0, 0, 24) // protocol assignments (RFC 6890)
        || within(192, 88, 99, 24) // 6to4 relays (RFC 7526)
        || within(198, 18, 0, 15) // benchmarks (RFC 2544)
        || v4.is_documentation()
        || within(224, 0, 0, 3); // multicast, reserved, broadcast
    !special
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let s = v6.segments();
    // NAT64 (RFC 6052): it is the IPv4 address inside that is reached.
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = v6.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    let global_unicast = s[0] & 0xe000 == 0x2000;
    // Teredo, ORCHID, benchmarks (RFC 2928); documentation.
    let special = (s[0] == 0x2001 && (s[1] < 0x200 || s[1] == 0xdb8))
        || s[0] == 0x2002 // 6to4: any IPv4 address may be inside
        || (s[0] == 0x3fff && s[1] < 0x1000); // documentation (RFC 9637)
    global_unicast && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn tells_the_internet_from_everything_else() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2400:3200::1",
            "2001:4860::8888",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(ip(public)), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:192.168.1.1",
            "64:ff9b::192.168.1.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:c0a8:0101::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(special)), "{special}");
        }
    }

    #[test]
    fn sees_through_every_spelling_of_an_address() {
        let reach = Reach::default();
        for spelling in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://192.168.1.1:8080/cgi-bin/reboot",
            "http://[fe80::1]/",
            "http://0/",
        ] {
            assert!(
                matches!(reach.way(&url(spelling)), Err(Refused::Private { .. })),
                "{spelling}"
            );
        }
        assert_eq!(reach.way(&url("http://8.8.8.8/x")), Ok(Way::Guarded));
        assert_eq!(reach.way(&url("https://cdn.example/x")), Ok(Way::Guarded));
        assert_eq!(reach.way(&url("ftp://cdn.example/x")), Err(Refused::Scheme("ftp".into())));
        assert_eq!(reach.way(&url("file:///etc/passwd")), Err(Refused::Scheme("file".into())));
    }

    #[test]
    fn the_owners_hub_is_fine_on_its_own_port_alone() {
        let reach = Reach::new(Some(url("http://127.0.0.1:7070/")));
        assert_eq!(reach.way(&url("http://127.0.0.1:7070/origin/x")), Ok(Way::Hub));
        for other in ["http://127.0.0.1:8080/", "https://127.0.0.1:7070/", "http://127.0.0.2:7070/"]
        {
            assert!(matches!(reach.way(&url(other)), Err(Refused::Private { .. })), "{other}");
        }
    }

    #[test]
    fn a_hub_by_name_is_trusted_where_nobody_else_answers_for_the_name() {
        for (hub, way) in [
            ("https://hub.example/", Way::Hub),
            ("http://hub.example/", Way::Guarded),
            ("http://hub.lan:7070/", Way::Hub),
            ("http://localhost:7070/", Way::Hub),
            ("http://box.home.arpa/", Way::Hub),
            ("http://plan/", Way::Hub),
            ("http://a.plan/", Way::Guarded),
        ] {
            assert_eq!(Reach::new(Some(url(hub))).way(&url(hub)), Ok(way), "{hub}");
        }
    }

    #[test]
    fn the_policy_opens_networks_by_name() {
        let mut reach = Reach::default();
        assert!(!reach.permits(ip("10.1.2.3")));
        reach.set_private(vec!["10.0.0.0/8".parse().expect("a network")]);
        assert!(reach.permits(ip("10.1.2.3")) && reach.permits(ip("::ffff:10.1.2.3")));
        assert!(!reach.permits(ip("192.168.1.1")));
        reach.set_private(vec![]);
        assert!(!reach.permits(ip("10.1.2.3")));
    }

    #[test]
    fn redirects_are_few_and_never_from_https_to_http() {
        let reach = Reach::default();
        let (https, http) = (url("https://a.example/"), url("http://b.example/"));
        assert_eq!(reach.redirect(&http, &https, 5), Ok(Way::Guarded));
        assert_eq!(reach.redirect(&http, &https, 6), Err(Refused::TooManyRedirects));
        assert_eq!(reach.redirect(&https, &http, 1), Err(Refused::Downgrade));
        let inside = url("http://192.168.1.1/");
        assert!(matches!(reach.redirect(&http, &inside, 1), Err(Refused::Private { .. })));
    }
}
