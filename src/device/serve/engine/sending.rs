//! Turns at sending: under the pacer's permits, one connection after the other.

use super::Loop;
use crate::{
    device::serve::connection::{Connection, Turn},
    logic::{
        choke::Decision,
        governor::Allowance,
        now::Monotonic,
        wire::{Close, ContentKey},
    },
};

/// Blocks of one connection before the next one's turn, without a limit. Under one it is one.
const CHUNKS_A_TURN_UNLIMITED: usize = 16;
/// Turns before the sockets are read again.
const TURNS_AT_ONCE: usize = 64;

impl Loop {
    pub(super) fn carry_out_choking(&mut self, now: Monotonic) {
        let paused = self.pacer.allowance().is_paused();
        while let Some(decision) = self.choker.poll_decision() {
            let (Decision::Unchoke(index) | Decision::Choke(index)) = decision;
            let Some(connection) =
                self.connections.get_mut(index as usize).and_then(Option::as_mut)
            else {
                continue;
            };
            self.shares.handle_change();
            if let Decision::Unchoke(_) = decision {
                connection.session.unchoke(now);
            } else {
                let next_in_stream = connection.session.is_between_messages();
                connection.session.choke();
                if paused
                    && next_in_stream
                    && let Err(why) = connection.send_last_choke(&self.shelf, &mut self.pacer, now)
                {
                    self.close(index, why, now);
                    continue;
                }
            }
            self.join_turns(index);
        }
    }

    /// Turns go round until nobody can send, the allowance is used up, or it is time to read again.
    pub(super) fn send(&mut self, now: Monotonic) {
        self.send_at = None;
        for _ in 0..TURNS_AT_ONCE {
            let Some(index) = self.turns.current() else { return };
            match self.take_turn(index, now) {
                Ok(Turn::Sent { .. }) => self.turns.pass(),
                Ok(turn @ (Turn::Nothing | Turn::Blocked)) => {
                    if let Turn::Blocked = turn {
                        self.choker.handle_full(index, now);
                    }
                    self.turns.leave();
                    self.handle_left_turns(index);
                }
                Ok(Turn::Cold(piece)) => {
                    self.handle_cold(index, piece);
                    self.turns.leave();
                    self.handle_left_turns(index);
                }
                Ok(Turn::Wait(at)) => {
                    self.shares.handle_wait();
                    self.send_at = Some(at);
                    return;
                }
                Ok(Turn::Paused) => return,
                Err(why) => {
                    self.handle_unreadable(index, why);
                    self.close(index, why, now);
                }
            }
        }
        if self.pacer.allowance() != Allowance::Unlimited {
            self.send_at = Some(now);
        }
    }

    fn take_turn(&mut self, index: u32, now: Monotonic) -> Result<Turn, Close> {
        let Some(connection) = self.connections.get_mut(index as usize).and_then(Option::as_mut)
        else {
            return Ok(Turn::Nothing);
        };
        let mut chunks = 1;
        if self.pacer.allowance() == Allowance::Unlimited {
            let (files, pacer, pipe) = (&mut self.files, &mut self.pacer, &mut self.pipe);
            chunks = CHUNKS_A_TURN_UNLIMITED;
            let run = connection.send_run(&self.shelf, files, pacer, pipe, chunks, now)?;
            if let Some((turn, chunks)) = run {
                if chunks > 0 {
                    self.choker.handle_took(index, now);
                }
                self.chunks_sent += chunks;
                return Ok(turn);
            }
        }
        let mut turn = Turn::Nothing;
        for _ in 0..chunks {
            let (files, pacer, scratch) = (&mut self.files, &mut self.pacer, &mut self.scratch);
            turn = connection.send_chunk(&self.shelf, files, pacer, scratch, now)?;
            let Turn::Sent { block } = turn else { break };
            self.chunks_sent += 1;
            if block {
                self.choker.handle_took(index, now);
            }
        }
        Ok(turn)
    }

    /// It may have nothing because what it wants has to be checked first.
    pub(super) fn handle_left_turns(&mut self, index: u32) {
        if let Some(connection) = self.connection(index) {
            connection.in_turns = false;
        }
        self.ask_for_checks(index);
    }

    /// A connection with something to send and room for it stands in the ring.
    pub(super) fn join_turns(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(index as usize).and_then(Option::as_mut)
        else {
            return;
        };
        if !connection.in_turns && connection.writable && connection.session.has_output(&self.shelf)
        {
            connection.in_turns = true;
            let class = connection.class;
            self.turns_of(class).join(index);
        }
    }

    pub(super) fn join_turns_of(&mut self, key: ContentKey) {
        for index in self.connections_of(key) {
            self.join_turns(index);
        }
    }

    pub(super) fn connections_of(&self, key: ContentKey) -> Vec<u32> {
        let of_key = |c: &Option<Box<Connection>>| {
            c.as_ref().is_some_and(|c| c.session.content() == Some(key))
        };
        let all = self.connections.iter().enumerate();
        all.filter(|(_, c)| of_key(c)).map(|(i, _)| i as u32).collect()
    }
}
