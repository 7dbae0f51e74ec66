//! Sets what each connection may send of the allowance, so that the kernel lets it leave evenly.

use std::time::Duration;

use super::Loop;
use crate::logic::{
    governor::{
        Allowance, Tempo,
        shares::{self, Progress},
    },
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
                    // Also settles what had to be sent again.
                    let progress = self.take_progress();
                    self.allot(rate, elapsed, &progress);
                } else if changed {
                    self.rescale(rate);
                }
            }
        }
    }

    fn take_progress(&mut self) -> Vec<Progress> {
        let (shelf, pacer) = (&self.shelf, &mut self.pacer);
        self.connections
            .iter_mut()
            .flatten()
            .filter(|connection| connection.takes_share())
            .map(|connection| connection.take_progress(shelf, pacer))
            .collect()
    }

    fn allot(&mut self, rate: u64, elapsed: Duration, progress: &[Progress]) {
        match Tempo::at(rate) {
            Tempo::Turns => self.set_turns(rate),
            Tempo::Shares => {
                self.set_shares(&shares::allot(self.shares.part.of(rate), elapsed, progress));
            }
        }
    }

    fn rescale(&mut self, rate: u64) {
        if Tempo::at(rate) == Tempo::Turns {
            return self.set_turns(rate);
        }
        let held: Vec<_> = self
            .connections
            .iter()
            .flatten()
            .filter(|connection| connection.takes_share())
            .map(|connection| connection.share())
            .collect();
        self.set_shares(&shares::rescale(self.shares.part.of(rate), &held));
    }

    fn set_turns(&mut self, rate: u64) {
        for connection in self.connections.iter_mut().flatten() {
            if connection.takes_share() && differs(connection.share(), rate) {
                connection.set_turn(rate);
            }
        }
    }

    fn set_shares(&mut self, shares: &[u64]) {
        let unchoked = self.connections.iter_mut().flatten().filter(|c| c.takes_share());
        for (connection, share) in unchoked.zip(shares) {
            if differs(connection.share(), *share) {
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

fn differs(held: Option<u64>, share: u64) -> bool {
    held.is_none_or(|held| held.abs_diff(share) > held / IMPERCEPTIBLE)
}
