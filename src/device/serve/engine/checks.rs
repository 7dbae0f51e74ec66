//! Nothing leaves before it was checked: asks for checks, takes their results, and lets go of a file
//! that somebody wants to write to. Reads no content itself.

use std::{sync::Arc, time::Duration};

use super::Loop;
use crate::logic::{
    infohash::Infohash,
    now::Monotonic,
    wire::{Close, ContentKey},
};

/// What is on its way to peers refers to the file's pages until their kernels have it. Whoever wants to
/// write waits for that; peers that are not through by then are cut.
const WITHHOLD_MAX: Duration = Duration::from_secs(2);
/// Over loopback the peer's own kernel refers to our pages, too, until its program has read them.
const WITHHOLD_GRACE: Duration = Duration::from_millis(200);
/// How often to look.
const WITHHOLD_LOOK: Duration = Duration::from_millis(10);

/// A content of which nothing more leaves from its file.
pub(super) struct Withholding {
    infohash: Infohash,
    until: Monotonic,
    /// Since when nothing is on its way.
    quiet_since: Option<Monotonic>,
    look_at: Monotonic,
}

impl Loop {
    /// What this connection's next blocks wait for.
    pub(super) fn ask_for_checks(&mut self, index: u32) {
        let Some(checker) = &self.checker else { return };
        let Some(Some(connection)) = self.connections.get(index as usize) else { return };
        let Some(key) = connection.session.content() else { return };
        let Some(content) = self.shelf.get(key).filter(|c| !c.all_may_leave()) else { return };
        for piece in connection.session.awaited(content) {
            if !self.asked.contains(&(key, piece)) {
                self.asked.push((key, piece));
                checker.check(content.infohash(), piece);
            }
        }
    }

    pub(super) fn take_proof(
        &mut self,
        infohash: Infohash,
        piece: u32,
        bytes: Option<Arc<[u8]>>,
        now: Monotonic,
    ) {
        let Some(key) = self.shelf.find(infohash) else { return };
        self.asked.retain(|asked| *asked != (key, piece));
        if !self.shelf.get_mut(key).is_some_and(|content| content.prove(piece)) {
            return;
        }
        match bytes {
            Some(bytes) => {
                self.files.memory.insert(key, piece, bytes);
                self.make_room_in_memory();
            }
            None => {
                self.files.memory.forget_piece(key, piece);
                self.files.handle_read(key, infohash, piece, now);
            }
        }
        self.join_turns_of(key);
    }

    pub(super) fn withdraw(&mut self, infohash: Infohash, pieces: &[u32], now: Monotonic) {
        let Some(key) = self.shelf.find(infohash) else { return };
        for &piece in pieces {
            self.asked.retain(|asked| *asked != (key, piece));
            self.files.memory.forget_piece(key, piece);
            if !self.shelf.get_mut(key).is_some_and(|content| content.withdraw(piece)) {
                continue;
            }
            for index in self.connections_of(key) {
                self.tell_withdrawn(index, key, piece, now);
            }
        }
    }

    pub(super) fn distrust(&mut self, infohash: Infohash) {
        let Some(key) = self.shelf.find(infohash) else { return };
        let in_memory = self.files.memory.pieces_of(key);
        if let Some(content) = self.shelf.get_mut(key) {
            content.doubt_all(&in_memory);
        }
        self.asked.retain(|(asked_of, _)| *asked_of != key);
        for index in self.connections_of(key) {
            self.ask_for_checks(index);
        }
    }

    pub(super) fn withhold(&mut self, infohash: Infohash, now: Monotonic) {
        self.distrust(infohash);
        let until = now + WITHHOLD_MAX;
        self.withholding.push(Withholding { infohash, until, quiet_since: None, look_at: now });
        self.look_at_withheld(now);
    }

    pub(super) fn withholding_at(&self) -> Option<Monotonic> {
        self.withholding.iter().map(|w| w.look_at).min()
    }

    /// Each round; answers for the contents that nothing refers to any more.
    pub(super) fn look_at_withheld(&mut self, now: Monotonic) {
        for mut withheld in std::mem::take(&mut self.withholding) {
            if withheld.look_at > now || !self.is_let_go(&mut withheld, now) {
                withheld.look_at = withheld.look_at.max(now + WITHHOLD_LOOK);
                self.withholding.push(withheld);
                continue;
            }
            if let Some(key) = self.shelf.find(withheld.infohash) {
                self.files.forget(key);
            }
            if let Some(checker) = &self.checker {
                checker.withheld(withheld.infohash);
            }
        }
    }

    fn is_let_go(&mut self, withheld: &mut Withholding, now: Monotonic) -> bool {
        let Some(key) = self.shelf.find(withheld.infohash) else { return true };
        let all = self.connections_of(key);
        if all.is_empty() {
            return true;
        }
        let busy: Vec<u32> = all.into_iter().filter(|i| self.refers_to_file(*i)).collect();
        if busy.is_empty() {
            let since = *withheld.quiet_since.get_or_insert(now);
            return now.saturating_since(since) >= WITHHOLD_GRACE;
        }
        withheld.quiet_since = None;
        if now < withheld.until {
            return false;
        }
        for index in busy {
            if let Some(connection) = self.connection(index) {
                connection.drop_unsent();
            }
            self.close(index, Close::Unsafe, now);
        }
        true
    }

    /// The file could not be read when a block was to leave: what was known of its piece is void.
    pub(super) fn handle_unreadable(&mut self, index: u32, why: Close) {
        if why != Close::Unreadable || self.checker.is_none() {
            return;
        }
        let Some(Some(connection)) = self.connections.get(index as usize) else { return };
        let Some(key) = connection.session.content() else { return };
        let Some(content) = self.shelf.get_mut(key) else { return };
        match connection.session.piece_in_hand(content) {
            Some(piece) => content.doubt(piece),
            None => content.doubt_all(&[]),
        }
        self.files.forget(key);
        for index in self.connections_of(key) {
            self.ask_for_checks(index);
        }
    }

    /// The page cache has lost what was checked: it is read, and checked, before it leaves.
    pub(super) fn handle_cold(&mut self, index: u32, piece: u32) {
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else { return };
        let Some(key) = connection.session.content() else { return };
        if let Some(content) = self.shelf.get_mut(key) {
            content.doubt(piece);
        }
        // Its block goes back into the queue.
        connection.session.poll_chunk(&self.shelf);
    }

    fn refers_to_file(&mut self, index: u32) -> bool {
        let Some(Some(connection)) = self.connections.get(index as usize) else { return false };
        let session = &connection.session;
        let content = session.content().and_then(|key| self.shelf.get(key));
        content.is_some_and(|c| session.piece_under_way(c).is_some())
            || connection.is_unacknowledged()
    }

    fn tell_withdrawn(&mut self, index: u32, key: ContentKey, piece: u32, now: Monotonic) {
        let Some(content) = self.shelf.get(key) else { return };
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else { return };
        match connection.session.handle_withdrawn(piece, content) {
            Ok(()) => self.join_turns(index),
            Err(why) => self.close(index, why, now),
        }
    }

    fn make_room_in_memory(&mut self) {
        let (shelf, connections) = (&self.shelf, &self.connections);
        let gone = self.files.memory.take_excess(|key, piece| {
            let Some(content) = shelf.get(key) else { return false };
            connections.iter().flatten().any(|c| {
                c.session.content() == Some(key)
                    && c.session.piece_under_way(content) == Some(piece)
            })
        });
        for (key, piece) in gone {
            if let Some(content) = self.shelf.get_mut(key) {
                content.doubt(piece);
            }
        }
    }
}
