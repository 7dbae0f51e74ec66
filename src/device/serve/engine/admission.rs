//! Who gets in, and how everyone leaves: does what `logic::admission` says, and closes with the books
//! settled.

use std::{io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use mio::{Interest, Token, net::TcpStream};
use nix::errno::Errno;

use super::{FIRST_CONNECTION, Loop, books::book};
use crate::{
    device::serve::connection::{Connection, asks_for_tiny_segments},
    logic::{
        admission::{self, Crowd, Guest, Name, Room, Welcome},
        governor::address_group,
        now::Monotonic,
        wire::{Close, ContentKey, IDLE_AFTER},
    },
};

/// New connections before those that exist get their turn again. Fewer than may shake hands at once
/// with the default limits: a newcomer's first bytes are read before a flood can displace it.
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
                    let out_of_files = [Errno::EMFILE, Errno::ENFILE].map(|e| e as i32);
                    if error.raw_os_error().is_some_and(|e| out_of_files.contains(&e)) {
                        self.displace_someone(now);
                    }
                    self.accept_retry_at = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
        self.to_accept.push(listener);
    }

    /// Takes a connection in if the limits allow; otherwise it is closed at once.
    pub(super) fn admit(&mut self, stream: TcpStream, peer: SocketAddr, now: Monotonic) {
        if let Err(why) = self.find_place(&stream, peer, now) {
            tracing::debug!(%peer, "connection refused: {why}");
            self.stats.connections_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        let class = self.lan.class_of(peer, now);
        self.take_in(Box::new(Connection::new(stream, peer, class, self.generation, now)), now);
    }

    /// Gives a connection its place. It is dropped if the system cannot watch it.
    pub(super) fn take_in(&mut self, mut connection: Box<Connection>, now: Monotonic) -> bool {
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
        self.admission.handle_opened(guest(index, &connection), now);
        self.connections[index as usize] = Some(connection);
        true
    }

    /// Or says why there is none. May displace somebody else.
    fn find_place(
        &mut self,
        stream: &TcpStream,
        peer: SocketAddr,
        now: Monotonic,
    ) -> Result<(), Refusal> {
        let class = self.lan.class_of(peer, now);
        if self.allowance_of(class).is_paused() {
            return Err(Refusal::Paused);
        }
        if asks_for_tiny_segments(stream) {
            return Err(Refusal::TinySegments);
        }
        self.admission.handle_arrival(address_group(peer.ip()), now)?;
        let has_room = self.admission.room() == Room::Enough || self.displace_someone(now);
        if has_room { Ok(()) } else { Err(admission::Refusal::Full.into()) }
    }

    /// Closes whoever makes least of its place; false if everyone uses theirs.
    fn displace_someone(&mut self, now: Monotonic) -> bool {
        let who = match self.admission.room() {
            Room::Displace(oldest) => Some(oldest),
            Room::Enough | Room::Full => self.least_useful(None, now),
        };
        let Some(who) = who else { return false };
        self.close(who, Close::Displaced, now);
        true
    }

    fn least_useful(&mut self, of: Option<ContentKey>, now: Monotonic) -> Option<u32> {
        let crowd = if of.is_some() { Crowd::Content } else { Crowd::House };
        let all = self.connections.iter().enumerate();
        let named = all.filter_map(|(index, c)| {
            let session = &c.as_ref()?.session;
            let counts = session.content().is_some() && (of.is_none() || of == session.content());
            counts.then(|| (index as u32, session.standing(now)))
        });
        self.admission.least_useful(crowd, named, now)
    }

    /// After every read: somebody may have said who it is, or asked for metadata.
    pub(super) fn handle_heard(&mut self, index: u32, now: Monotonic) {
        let Some(connection) = self.connection(index) else { return };
        let asked = connection.session.metadata_asked();
        let group = connection.group;
        if asked > 0 {
            let granted = self.admission.take_metadata(group, asked, now);
            let Some(connection) = self.connection(index) else { return };
            connection.session.limit_metadata(granted);
        }
        self.welcome(index, now);
    }

    /// Once for each connection, when its handshake has come.
    fn welcome(&mut self, index: u32, now: Monotonic) {
        let Some(connection) = self.connection(index) else { return };
        let Some(name) = name(connection).filter(|_| !connection.named) else { return };
        connection.named = true;
        let guest = guest(index, connection);
        let all = self.connections.iter().enumerate();
        let others = all.filter_map(|(index, c)| named(index as u32, c.as_deref()?));
        match self.admission.handle_named(guest, name, others) {
            Welcome::Stay => {}
            Welcome::SameAs(first) => {
                let heard_at = self.connection(first).map(|c| c.session.heard_at());
                if heard_at.is_some_and(|at| now.saturating_since(at) < IDLE_AFTER) {
                    self.close(index, Close::Duplicate, now);
                } else {
                    self.close(first, Close::Duplicate, now);
                }
            }
            Welcome::ContentFull => {
                let leaves = self.least_useful(Some(name.content), now).unwrap_or(index);
                let why = if leaves == index { Close::ContentFull } else { Close::Displaced };
                self.close(leaves, why, now);
            }
        }
    }

    pub(super) fn close(&mut self, index: u32, why: Close, now: Monotonic) {
        let Some(mut connection) = self.connections.get_mut(index as usize).and_then(Option::take)
        else {
            return;
        };
        tracing::debug!(group = %connection.group, abuse = why.is_abuse(), "connection closed: {why}");
        connection.settle();
        if why == Close::ContentRemoved {
            connection.drop_unsent();
        }
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
        let said = name(&connection).filter(|_| connection.named);
        self.admission.handle_closed(guest(index, &connection), said, why.is_abuse(), now);
        self.free.push(index);
    }
}

/// Why a connection is closed before anything is read from it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("serving is paused")]
    Paused,
    #[error("it asks for more headers than content")]
    TinySegments,
    #[error(transparent)]
    Limit(#[from] admission::Refusal),
}

fn guest(index: u32, connection: &Connection) -> Guest {
    Guest { key: index, arrival: connection.generation, group: connection.group }
}

fn named(index: u32, connection: &Connection) -> Option<(Guest, Name)> {
    Some((guest(index, connection), name(connection).filter(|_| connection.named)?))
}

fn name(connection: &Connection) -> Option<Name> {
    let session = &connection.session;
    Some(Name { content: session.content()?, peer_id: session.peer_id() })
}
