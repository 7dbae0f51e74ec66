//! Keeps what is known of the household's network fresh, without ever waking for it: the interfaces
//! are read again when a peer comes that could be at home, and not more often than once a minute.

use std::{net::SocketAddr, time::Duration};

use super::interfaces;
use crate::logic::{
    governor::{Lan, Prefix, may_be_at_home},
    now::Monotonic,
    usage::PeerClass,
};

/// How long a changed network may go unnoticed; reading takes a fraction of a millisecond.
const FRESH: Duration = Duration::from_secs(60);

pub(super) struct LanWatch {
    lan: Lan,
    /// The owner said what it is.
    is_configured: bool,
    read_at: Option<Monotonic>,
}

impl LanWatch {
    /// Detects the LAN unless it is told.
    pub fn new(prefixes: Option<Vec<Prefix>>) -> LanWatch {
        let is_configured = prefixes.is_some();
        let lan = Lan::configured(&prefixes.unwrap_or_default());
        LanWatch { lan, is_configured, read_at: None }
    }

    pub fn class_of(&mut self, peer: SocketAddr, now: Monotonic) -> PeerClass {
        if may_be_at_home(peer.ip()) {
            self.refresh(now);
        }
        self.lan.class_of(peer)
    }

    pub fn refresh(&mut self, now: Monotonic) {
        let is_fresh = self.read_at.is_some_and(|at| now.saturating_since(at) < FRESH);
        if !self.is_configured && !is_fresh {
            self.read_at = Some(now);
            self.read();
        }
    }

    /// As far as known: an address of the household, or of the device.
    pub fn is_ours(&self, address: SocketAddr) -> bool {
        self.lan.is_ours(address)
    }

    fn read(&mut self) {
        match interfaces::read() {
            Ok((interfaces, gateways)) => {
                let lan = Lan::detect(&interfaces, &gateways);
                if lan != self.lan {
                    tracing::info!("the household's network: {lan}");
                    self.lan = lan;
                }
            }
            Err(error) => tracing::warn!(%error, "the network interfaces cannot be read"),
        }
    }
}
