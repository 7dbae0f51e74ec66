//! What the keeper has found, as the daemon takes it: counted for the owner, and told to the node, which
//! has it filled again. Part of the event loop: nothing here waits.

use super::{daemon::Daemon, message::Found};
use crate::logic::{infohash::Infohash, node::Event};

impl Daemon {
    pub(super) fn handle_found(&mut self, found: Found) {
        match found {
            Found::Damaged { infohash, bytes } => {
                self.storage.pieces_damaged_total += 1;
                if let Some(holding) = self.holdings.get_mut(&infohash) {
                    holding.held_bytes = holding.held_bytes.saturating_sub(bytes);
                }
            }
            Found::ToMend(infohash) => {
                self.node.handle_event(Event::Damaged(infohash), self.clock.now());
            }
            Found::Lost(infohash) => self.handle_lost(infohash),
            Found::Unreadable(trouble) => self.handle_reading(trouble),
        }
    }

    /// Nothing of it is left; if it is still wanted, it is filled anew.
    fn handle_lost(&mut self, infohash: Infohash) {
        self.storage.contents_lost_total += 1;
        self.evict(infohash);
    }
}
