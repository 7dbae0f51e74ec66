//! Sets what each connection may send of the allowance, so that the kernel lets it leave evenly.

use std::time::Duration;

use super::Loop;
use crate::logic::{
    governor::{Allowance, shares},
    now::Monotonic,
    usage::PeerClass,
};

/// A share that changed by less than this part of it is left as it is: setting it is a system call.
const IMPERCEPTIBLE: u64 = 64;

/// When the shares were last looked at.
#[derive(Debug, Default)]
pub(super) struct Shares {
    looked_at: Monotonic,
    /// The allowance, or who is unchoked, has changed since they were set.
    changed: bool,
    part: shares::Part,
    pacer_held_back: bool,
}

impl Shares {
    pub fn handle_change(&mut self) {
        self.changed = true;
    }

    /// The pacer made somebody wait.
    pub fn handle_wait(&mut self) {
        self.pacer_held_back = true;
    }
}

impl Loop {
    /// Once an interval by what each took, and after a change at once by proportion.
    pub(super) fn share_out(&mut self, now: Monotonic) {
        let changed = std::mem::take(&mut self.shares.changed);
        match self.pacer.allowance() {
            Allowance::Unlimited if changed => self.set_all_shares(None),
            // What the sockets still hold leaves slowly.
            Allowance::Paused if changed => self.set_all_shares(Some(0)),
            Allowance::Unlimited | Allowance::Paused => {}
            Allowance::BytesPerSecond(rate) => {
                let senders = self.choker.unchoked() as usize;
                let elapsed = now.saturating_since(self.shares.looked_at);
                if senders > 0 && elapsed >= shares::interval(rate, senders) {
                    self.shares.looked_at = now;
                    self.shares.part.handle_look(std::mem::take(&mut self.shares.pacer_held_back));
                    self.allot(self.shares.part.of(rate), elapsed);
                } else if changed {
                    self.rescale(self.shares.part.of(rate));
                }
            }
        }
    }

    fn allot(&mut self, whole: u64, elapsed: Duration) {
        let (shelf, pacer) = (&self.shelf, &mut self.pacer);
        let progress: Vec<_> = self
            .connections
            .iter_mut()
            .flatten()
            .filter(|connection| connection.takes_share())
            .map(|connection| connection.take_progress(shelf, pacer))
            .collect();
        self.set_shares(&shares::allot(whole, elapsed, &progress));
    }

    fn rescale(&mut self, whole: u64) {
        let held: Vec<_> = self
            .connections
            .iter()
            .flatten()
            .filter(|connection| connection.takes_share())
            .map(|connection| connection.share())
            .collect();
        self.set_shares(&shares::rescale(whole, &held));
    }

    fn set_shares(&mut self, shares: &[u64]) {
        let unchoked = self.connections.iter_mut().flatten().filter(|c| c.takes_share());
        for (connection, share) in unchoked.zip(shares) {
            if connection.share().is_none_or(|held| held.abs_diff(*share) > held / IMPERCEPTIBLE) {
                connection.set_share(Some(*share));
            }
        }
    }

    fn set_all_shares(&mut self, share: Option<u64>) {
        for connection in self.connections.iter_mut().flatten() {
            if connection.class == PeerClass::Wan && connection.share() != share {
                connection.set_share(share);
            }
        }
    }
}
