//! Which peers of a swarm are our own devices. A peer id is public, so it counts only from the
//! address that the device's last signed request came from.

use std::{collections::HashMap, net::IpAddr};

use crate::hub::channel::PeerId;

/// As large as the number of devices that signed something since the hub started.
#[derive(Default)]
pub struct Presence {
    seen: HashMap<PeerId, Seen>,
}

/// One address of each family: a device may announce over one and talk to the hub over the other.
#[derive(Clone, Copy, Default)]
struct Seen {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Presence {
    /// Call with every signed request.
    pub fn saw(&mut self, peer_id: PeerId, address: IpAddr) {
        let seen = self.seen.entry(peer_id).or_default();
        match address {
            IpAddr::V4(_) => seen.v4 = Some(address),
            IpAddr::V6(_) => seen.v6 = Some(address),
        }
    }

    pub fn is_device(&self, peer_id: &PeerId, address: IpAddr) -> bool {
        self.seen.get(peer_id).is_some_and(|seen| [seen.v4, seen.v6].contains(&Some(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_peer_id_is_not_a_device() {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let mut presence = Presence::default();
        presence.saw([1; 20], ip("192.0.2.1"));
        presence.saw([1; 20], ip("2001:db8::1"));
        assert!(presence.is_device(&[1; 20], ip("192.0.2.1")));
        assert!(presence.is_device(&[1; 20], ip("2001:db8::1")));
        assert!(!presence.is_device(&[1; 20], ip("192.0.2.2")));
        assert!(!presence.is_device(&[2; 20], ip("192.0.2.1")));
        presence.saw([1; 20], ip("192.0.2.9"));
        assert!(!presence.is_device(&[1; 20], ip("192.0.2.1")), "it has moved");
    }
}
