//! What a tracker answers to an announce: it may be anybody.

use larder::logic::outreach::{Announced, NAMED_MAX, compact_v4, compact_v6, may_call};

use super::Verdict;

pub fn check(data: &[u8]) -> Verdict {
    peers_are_read_from_the_front(data);
    let Ok(announced) = Announced::parse(data) else { return Verdict::Refused };
    assert!(announced.peers.len() <= 2 * NAMED_MAX);
    for peer in &announced.peers {
        // What is called has a port, and is not at home.
        assert!(!may_call(*peer) || (peer.port() >= 1024 && !peer.ip().is_loopback()));
    }
    Verdict::Accepted
}

/// Takes the same bytes for the peers alone.
fn peers_are_read_from_the_front(data: &[u8]) {
    let (v4, v6) = (compact_v4(data, NAMED_MAX), compact_v6(data, NAMED_MAX));
    let (v4, v6): (Vec<_>, Vec<_>) = (v4.collect(), v6.collect());
    assert_eq!(v4.len(), NAMED_MAX.min(data.len() / 6));
    assert_eq!(v6.len(), NAMED_MAX.min(data.len() / 18));
    assert!(v4.iter().all(|peer| peer.is_ipv4()) && v6.iter().all(|peer| peer.is_ipv6()));
    for (peer, bytes) in v4.iter().zip(data.chunks(6)) {
        assert_eq!(peer.port().to_be_bytes(), bytes[4..]);
    }
}
