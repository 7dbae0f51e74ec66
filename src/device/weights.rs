//! Tells the engine what share of its slots each content gets when they are short: by the hot list's
//! scores, and for what only the owner wants, by a fixed one.

use super::{daemon::Daemon, serve::ServeCommand};
use crate::logic::{
    choke::{PIN_WEIGHT, weight_of},
    hotlist::HotList,
    infohash::Infohash,
    node::Phase,
};

impl Daemon {
    /// A content has been put up.
    pub(super) fn weigh(&self, infohash: Infohash) {
        let weight = weight(infohash, self.node.list(), best_score(self.node.list()));
        self.engine.send(ServeCommand::SetWeight { infohash, weight });
    }

    /// The list has changed.
    pub(super) fn weigh_all(&self) {
        let best = best_score(self.node.list());
        for content in self.node.snapshot().contents {
            if matches!(content.phase, Phase::Serving | Phase::Filling) {
                let weight = weight(content.infohash, self.node.list(), best);
                let infohash = content.infohash;
                self.engine.send(ServeCommand::SetWeight { infohash, weight });
            }
        }
    }
}

fn best_score(list: Option<&HotList>) -> f64 {
    let entries = list.into_iter().flat_map(|list| &list.entries);
    entries.map(|entry| entry.score).fold(0.0, f64::max)
}

fn weight(infohash: Infohash, list: Option<&HotList>, best: f64) -> u32 {
    let entry = list.and_then(|list| list.entry(infohash));
    entry.map_or(PIN_WEIGHT, |entry| weight_of(entry.score, best))
}
