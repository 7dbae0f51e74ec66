//! What every request must pass before anything looks at it: where it comes from, which name it
//! asked for, and that no other site sent it. Knows nothing about logins.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::refusal::Refusal;

/// Everything comes from the device itself; nothing may frame the page, and nothing turns text into
/// script. Style attributes from markup are off too: uPlot and Preact set styles through the DOM.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(header::HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The names under which the page answers. A site that points its own name at a LAN address (DNS
/// rebinding) asks for a name that is not among them.
#[derive(Clone, Debug)]
pub struct Hosts {
    names: Vec<String>,
    own: IpAddr,
}

impl Hosts {
    pub fn new(names: &[String], local_addr: SocketAddr) -> Hosts {
        let names = names.iter().map(|name| plain_name(name)).collect();
        Hosts { names, own: local_addr.ip().to_canonical() }
    }

    /// `host` as in the `Host` header, with or without a port.
    fn allow(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = plain_name(authority.host());
        let literal = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(&name);
        match literal.parse::<IpAddr>() {
            // Nobody can rebind an address; the check keeps the page off a public one.
            Ok(ip) => is_lan(ip) || ip.to_canonical() == self.own,
            Err(_) => name == "localhost" || self.names.contains(&name),
        }
    }
}

/// The outermost layer: source address, `Host`, and the security headers on every answer.
pub async fn from_the_lan(
    State(hosts): State<Hosts>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = match check_lan(&hosts, source.ip(), &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) if is_api => refusal.into_response(),
        Err(refusal) => refusal.into_text(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Around the API: no other site's page may call it, and writes are JSON, which no form can send.
pub async fn from_our_own_page(request: Request, next: Next) -> Result<Response, Refusal> {
    check_same_origin(request.headers())?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        check_json(request.headers())?;
    }
    Ok(next.run(request).await)
}

fn check_lan(hosts: &Hosts, source: IpAddr, request: &Request) -> Result<(), Refusal> {
    if !is_lan(source) {
        return Err(Refusal::NotFromHere);
    }
    let mut in_header = request.headers().get_all(header::HOST).iter();
    let host = in_header.next().and_then(|h| h.to_str().ok()).unwrap_or_default();
    // `GET http://name/` carries a second name, which counts as much as the first.
    let in_uri = request.uri().authority().map(Authority::as_str);
    if in_header.next().is_some() || !hosts.allow(host) || in_uri.is_some_and(|h| !hosts.allow(h)) {
        return Err(Refusal::WrongHost(host.chars().take(80).collect()));
    }
    Ok(())
}

/// Browsers send `Origin` with every write and every cross-origin read; programs send neither header,
/// and nobody can make a program do the owner's bidding unasked.
fn check_same_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.as_bytes();
        let named = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        if !named.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
            return Err(Refusal::CrossOrigin);
        }
    }
    for site in headers.get_all("sec-fetch-site") {
        // `none`: typed into the address bar. `same-site` would be another port of this device.
        if site != "same-origin" && site != "none" {
            return Err(Refusal::CrossOrigin);
        }
    }
    Ok(())
}

fn check_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Refusal::NotJson) }
}

/// Private, loopback or link-local (RFC 1918, RFC 3927, RFC 4193, RFC 4291). Carrier-grade NAT's
/// 100.64.0.0/10 is not: the neighbours are in it.
fn is_lan(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_lan_addresses_and_configured_names_only() {
        let hosts = Hosts::new(&["larder.local".into()], "203.0.113.7:80".parse().expect("addr"));
        for good in [
            "192.168.1.1",
            "192.168.1.1:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "[fe80::1]",
            "[fd00::5]:80",
            "[::ffff:10.0.0.1]",
            "169.254.3.4",
            "localhost:8080",
            "larder.local",
            "LARDER.local.:8080",
            "203.0.113.7",
        ] {
            assert!(hosts.allow(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "larder.local.evil.example",
            "evil.example@192.168.1.1",
            "192.168.1.1.evil.example",
            "0xc0.0xa8.1.1",
            "0177.0.0.1",
            "2130706433",
            "8.8.8.8",
            "100.64.0.1",
            "0.0.0.0",
            "[::]",
            "[2001:db8::1]",
            "192.168.1.1/",
            "192.168.1.1, evil.example",
        ] {
            assert!(!hosts.allow(bad), "{bad}");
        }
    }

    #[test]
    fn takes_neighbours_behind_the_carrier_for_strangers() {
        for lan in ["192.168.0.9", "10.1.2.3", "172.31.0.1", "::1", "fe80::1", "::ffff:127.0.0.1"] {
            assert!(is_lan(lan.parse().expect("ip")), "{lan}");
        }
        for stranger in ["100.64.1.1", "172.32.0.1", "1.1.1.1", "2001:db8::1", "::ffff:1.1.1.1"] {
            assert!(!is_lan(stranger.parse().expect("ip")), "{stranger}");
        }
    }
}
