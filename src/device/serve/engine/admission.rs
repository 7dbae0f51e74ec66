//! Who gets in, and how everyone leaves: accepts under the limits, and closes with the books settled.

use std::{io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use mio::{Interest, Token, net::TcpStream};

use super::{FIRST_CONNECTION, Loop, books::book};
use crate::{
    device::serve::connection::Connection,
    logic::{now::Monotonic, wire::Close},
};

/// New connections before those that exist get their turn again.
const ACCEPTS_AT_ONCE: usize = 64;
/// When the system has no descriptors left, asking again at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

impl Loop {
    pub(super) fn accept(&mut self, listener: usize, now: Monotonic) {
        for _ in 0..ACCEPTS_AT_ONCE {
            match self.listeners[listener].accept() {
                Ok((stream, peer)) => self.admit(stream, peer, now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The peer went away while it waited in the backlog, or a signal came.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.accept_retry_at = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
        self.to_accept.push(listener);
    }

    /// Takes a connection in if the limits allow; otherwise it is closed at once.
    pub(super) fn admit(&mut self, stream: TcpStream, peer: SocketAddr, now: Monotonic) {
        self.generation = self.generation.wrapping_add(1);
        let class = self.lan.class_of(peer, now);
        let connection = Box::new(Connection::new(stream, peer, class, self.generation, now));
        let in_group = self.groups.get(&connection.group).copied().unwrap_or(0);
        let allowance = self.allowance_of(class);
        if allowance.is_paused()
            || self.connected as usize >= self.connections_max
            || in_group >= self.connections_per_group_max
            || connection.asks_for_tiny_segments()
        {
            self.stats.connections_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.take_in(connection);
    }

    /// Gives a connection its place. It is dropped if the system cannot watch it.
    pub(super) fn take_in(&mut self, mut connection: Box<Connection>) -> bool {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            (self.connections.len() - 1) as u32
        });
        let token = Token(FIRST_CONNECTION + index as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(connection.source(), token, interest) {
            tracing::warn!(%error, "a connection could not be watched");
            self.free.push(index);
            return false;
        }
        let deadline = connection.session.poll_timeout(&self.us.timeouts);
        self.deadlines.push(deadline, (index, connection.generation));
        *self.groups.entry(connection.group).or_default() += 1;
        self.connected += 1;
        self.connections[index as usize] = Some(connection);
        true
    }

    pub(super) fn close(&mut self, index: u32, why: Close, now: Monotonic) {
        let Some(mut connection) = self.connections.get_mut(index as usize).and_then(Option::take)
        else {
            return;
        };
        tracing::debug!(group = %connection.group, abuse = why.is_abuse(), "connection closed: {why}");
        connection.settle();
        self.measure_last(&mut connection);
        connection.settle_retransmissions(self.pacer_of(connection.class));
        book(&mut connection, &self.shelf, &mut self.usage, &self.stats);
        // Closing the descriptor would do, but mio wants to know.
        let _ = self.poll.registry().deregister(connection.source());
        if connection.in_turns {
            self.turns_of(connection.class).remove(index);
        }
        self.choker.handle_closed(index, now);
        self.note_end_of_call(&connection, why, now);
        if let Some(count) = self.groups.get_mut(&connection.group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&connection.group);
            }
        }
        self.connected -= 1;
        self.free.push(index);
    }
}
