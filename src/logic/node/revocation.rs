//! What the operator has taken off the list while nobody knows the time. Leases cannot be judged then,
//! but a verified list that does not name a content needs no clock to be understood.

use rand::Rng;

use super::{Node, Phase};
use crate::logic::{infohash::Infohash, now::WallTime};

impl<R: Rng> Node<R> {
    /// With a clock the plan sees to it.
    pub(super) fn leave_what_is_revoked(&mut self, wall: WallTime) {
        let Some(list) = self.list.as_ref().filter(|_| wall == WallTime::Unsynced) else { return };
        let held = self.contents.iter().filter(|(_, c)| c.stored && !c.pinned);
        let revoked: Vec<Infohash> = held
            .filter(|(i, c)| c.phase != Phase::Leaving && list.entry(**i).is_none())
            .map(|(infohash, _)| *infohash)
            .collect();
        for infohash in revoked {
            self.leave(infohash);
        }
    }
}
