//! What peers have received, gathered by content and class until the daemon asks.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::Loop;
use crate::{
    device::serve::{SharedStats, connection::Connection},
    logic::{
        infohash::Infohash,
        usage::{PeerClass, Usage, UsageDelta},
        wire::Shelf,
    },
};

impl Loop {
    pub(super) fn take_usage(&mut self) -> Vec<UsageDelta> {
        let mut waiting = 0;
        for connection in self.connections.iter_mut().flatten() {
            connection.settle();
            let pacer = match connection.class {
                PeerClass::Wan => &mut self.pacer,
                PeerClass::Lan => &mut self.lan_pacer,
            };
            connection.settle_retransmissions(pacer);
            book(connection, &self.shelf, &mut self.usage, &self.stats);
            // The line is judged by what it carries to the internet.
            let counts = connection.class == PeerClass::Wan;
            waiting += u32::from(counts && connection.session.has_output(&self.shelf));
        }
        self.stats.peers_waiting.store(waiting, Ordering::Relaxed);
        let taken = std::mem::take(&mut self.usage);
        let deltas = taken.into_iter();
        deltas.map(|((infohash, class), usage)| UsageDelta { infohash, class, usage }).collect()
    }
}

/// Carries a connection's usage over to the books of its content.
pub(super) fn book(
    connection: &mut Connection,
    shelf: &Shelf,
    usage: &mut BTreeMap<(Infohash, PeerClass), Usage>,
    stats: &SharedStats,
) {
    // Before a content is named, only our side of an encrypted handshake is written, and waits here
    // for a name. If none comes, it counts in the total and under no content.
    let Some(content) = connection.session.content().and_then(|key| shelf.get(key)) else { return };
    let metadata = connection.session.take_metadata_requests();
    stats.metadata_requests.fetch_add(u64::from(metadata), Ordering::Relaxed);
    let taken = connection.take_usage();
    if !taken.is_zero() {
        usage.entry((content.infohash(), connection.class)).or_default().add(taken);
    }
}
