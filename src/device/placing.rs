//! What the daemon brings to placement: the device's name in the list, the owner's budgets from the
//! configuration, and what the owner took off this device, which outlives a restart.

use std::collections::BTreeSet;

use super::{
    daemon::Daemon,
    store::{Store, StoreError},
};
use crate::{
    api::admin::RemovalRequest,
    config::device::DeviceConfig,
    logic::{
        infohash::Infohash,
        node::{Event, Placing, UNWANTED_MAX},
        now::Now,
        ranking::tag_of,
        usage::UsageLine,
    },
};

const UNWANTED: &str = "unwanted_contents";

/// As it was at the last start.
pub fn placing(config: &DeviceConfig, store: &Store, device: &str) -> Result<Placing, StoreError> {
    Ok(Placing {
        tag: Some(tag_of(device)),
        budgets: Some(config.cache.budgets()),
        unwanted: store.setting::<BTreeSet<Infohash>>(UNWANTED)?.unwrap_or_default(),
        ..Placing::default()
    })
}

impl Daemon {
    /// Or one sentence on why not. Written down before it is done, so that no restart undoes it.
    pub(super) fn removal(&self, request: RemovalRequest) -> Result<Event, String> {
        let RemovalRequest { infohash, removed } = request;
        let mut unwanted = self.node.unwanted().clone();
        match removed {
            true if unwanted.len() >= UNWANTED_MAX => {
                return Err(format!(
                    "{UNWANTED_MAX} contents are removed already; allow some of them again first"
                ));
            }
            true => unwanted.insert(infohash),
            false => unwanted.remove(&infohash),
        };
        let store = &self.context.store;
        store.set_setting(UNWANTED, &unwanted).map_err(|e| format!("cannot write it down: {e}"))?;
        Ok(Event::Removal { infohash, removed })
    }

    /// Before the next fill begins, the last one's bytes are on the books: budgets hold to the piece.
    pub(super) fn count_before(&mut self, event: &Event, now: Now) {
        if matches!(
            event,
            Event::FillCompleted(_) | Event::FillPaused(_) | Event::FillFailed { .. }
        ) {
            self.count(now);
        }
    }

    /// What peers here asked for has a say in what is held.
    pub(super) fn tell_what_was_served(&mut self, lines: &[UsageLine]) {
        let egress = lines.iter().map(|line| (line.infohash, line.usage.payload_bytes)).collect();
        self.node.handle_event(Event::Served(egress), self.clock.now());
    }
}
