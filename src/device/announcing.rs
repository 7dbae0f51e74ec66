//! What the daemon tells trackers of what it holds, and to which servers it may go at all. When is
//! the node's decision.

use std::collections::BTreeMap;

use super::{
    daemon::Daemon,
    status::Holding,
    tasks::{self, Announcement, Context},
};
use crate::logic::{
    hotlist::{Entry, Policy},
    infohash::Infohash,
    node::AnnounceEvent,
};

impl Daemon {
    /// What the policy in force says of networks that are not public.
    pub(super) fn follow_policy(&self) {
        let networks = self.node.policy().map(Policy::private_web_seed_networks);
        self.context.outbound.set_private(networks.unwrap_or_default());
    }

    pub(super) fn announce(&self, entry: Entry, event: AnnounceEvent) {
        let port = self.peer_port;
        tokio::spawn(announcement(&self.context, &self.holdings, port, entry, event));
    }
}

pub(super) fn announcement(
    context: &Context,
    holdings: &BTreeMap<Infohash, Holding>,
    port: u16,
    entry: Entry,
    event: AnnounceEvent,
) -> impl Future<Output = ()> + use<> {
    let held = holdings.get(&entry.infohash);
    let announcement = Announcement {
        event,
        port,
        uploaded: context.store.egress(entry.infohash).payload_bytes,
        held_bytes: held.map_or(entry.size_bytes, |held| held.held_bytes),
        entry,
    };
    tasks::announce(context.clone(), announcement)
}
