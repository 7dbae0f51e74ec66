//! The household's own peers: served beside the uplink's allowance, without slots and permits, but
//! never so much in one go that a block for the WAN would leave late.

use std::time::Duration;

use super::Loop;
use crate::{
    device::serve::connection::Turn,
    logic::{
        governor::{Allowance, Pacer, Turns},
        now::Monotonic,
        usage::PeerClass,
        wire::Close,
    },
};

/// Blocks in all before the WAN's turn comes again, in runs of 16 at most: half a MiB, about a
/// millisecond of a small router's time, and less than the pacer lets a block be late.
const CHUNKS_AT_ONCE: usize = 32;
/// Blocks of one peer before the next one's turn: as many as a run takes.
const CHUNKS_A_TURN: usize = 16;
/// So long after a block the next one is expected.
const BUSY: Duration = Duration::from_millis(50);

impl Loop {
    pub(super) fn allowance_of(&self, class: PeerClass) -> Allowance {
        match class {
            PeerClass::Wan => self.pacer.allowance(),
            PeerClass::Lan => self.lan_pacer.allowance(),
        }
    }

    pub(super) fn pacer_of(&mut self, class: PeerClass) -> &mut Pacer {
        match class {
            PeerClass::Wan => &mut self.pacer,
            PeerClass::Lan => &mut self.lan_pacer,
        }
    }

    pub(super) fn turns_of(&mut self, class: PeerClass) -> &mut Turns<u32> {
        match class {
            PeerClass::Wan => &mut self.turns,
            PeerClass::Lan => &mut self.lan_turns,
        }
    }

    /// Whoever takes it at the LAN's speed has room again long before a rest under the uplink's limit
    /// is over.
    pub(super) fn lan_is_busy(&self) -> bool {
        self.lan_sent_at.is_some_and(|at| self.now().saturating_since(at) < BUSY)
    }

    pub(super) fn lan_has_work(&self) -> bool {
        !self.lan_turns.is_empty() && !self.lan_pacer.allowance().is_paused()
    }

    /// A pause is the owner's word, and holds for everyone.
    pub(super) fn pause_lan(&mut self, paused: bool, now: Monotonic) {
        let allowance = if paused { Allowance::Paused } else { Allowance::Unlimited };
        self.lan_pacer.set_allowance(allowance, now);
        for index in 0..self.connections.len() as u32 {
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            if connection.class != PeerClass::Lan {
                continue;
            }
            let says_choke = paused && connection.session.is_unchoked();
            let next_in_stream = connection.session.is_between_messages();
            self.follow_lan_interest(index, now);
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            if says_choke
                && next_in_stream
                && let Err(why) = connection.send_last_choke(&self.shelf, &mut self.lan_pacer, now)
            {
                self.close(index, why, now);
                continue;
            }
            self.join_turns(index);
        }
    }

    /// Slots are the uplink's: at home whoever is interested may ask, except during a pause.
    pub(super) fn follow_lan_interest(&mut self, index: u32, now: Monotonic) {
        let paused = self.lan_pacer.allowance().is_paused();
        let Some(connection) = self.connection(index) else { return };
        if connection.session.is_interested() && !paused {
            connection.session.unchoke(now);
        } else {
            connection.session.choke();
        }
    }

    /// After the WAN has had its turns.
    pub(super) fn send_to_lan(&mut self, now: Monotonic) {
        let mut left = CHUNKS_AT_ONCE;
        while left > 0
            && self.lan_has_work()
            && let Some(index) = self.lan_turns.current()
        {
            match self.take_lan_turn(index, &mut left, now) {
                Ok(Turn::Sent { .. }) => self.lan_turns.pass(),
                Ok(Turn::Nothing | Turn::Blocked) => {
                    self.lan_turns.leave();
                    self.handle_left_turns(index);
                }
                Ok(Turn::Cold(piece)) => {
                    self.handle_cold(index, piece);
                    self.lan_turns.leave();
                    self.handle_left_turns(index);
                }
                Ok(Turn::Wait(_) | Turn::Paused) => return,
                Err(why) => {
                    self.handle_unreadable(index, why);
                    self.close(index, why, now);
                }
            }
        }
    }

    fn take_lan_turn(
        &mut self,
        index: u32,
        left: &mut usize,
        now: Monotonic,
    ) -> Result<Turn, Close> {
        let Some(connection) = self.connections.get_mut(index as usize).and_then(Option::as_mut)
        else {
            return Ok(Turn::Nothing);
        };
        let chunks_max = CHUNKS_A_TURN.min(*left);
        if self.lan_pacer.allowance() == Allowance::Unlimited {
            let (files, pacer, pipe) = (&mut self.files, &mut self.lan_pacer, &mut self.pipe);
            let run = connection.send_run(&self.shelf, files, pacer, pipe, chunks_max, now)?;
            if let Some((turn, chunks)) = run {
                *left = left.saturating_sub(chunks);
                if chunks > 0 {
                    self.lan_sent_at = Some(now);
                }
                return Ok(turn);
            }
        }
        let mut turn = Turn::Nothing;
        for _ in 0..chunks_max {
            let (files, pacer, scratch) = (&mut self.files, &mut self.lan_pacer, &mut self.scratch);
            turn = connection.send_chunk(&self.shelf, files, pacer, scratch, now)?;
            if !matches!(turn, Turn::Sent { .. }) {
                break;
            }
            *left -= 1;
            self.lan_sent_at = Some(now);
        }
        Ok(turn)
    }
}
