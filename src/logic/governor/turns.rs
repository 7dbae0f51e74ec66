//! Whose turn it is to send: a ring of those that have something to send and room to put it.
//! Must not grow beyond the number of its members; nobody stands in it twice.

use std::collections::VecDeque;

/// A fair ring. `T` is small: an index of a connection.
#[derive(Debug)]
pub struct Turns<T> {
    ring: VecDeque<T>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Turns { ring: VecDeque::new() }
    }
}

impl<T: Copy + PartialEq> Turns<T> {
    /// Queues at the end. The caller keeps a flag with the member, so that joining costs no search;
    /// joining twice is a fault of the caller.
    pub fn join(&mut self, member: T) {
        debug_assert!(!self.ring.contains(&member), "a member joins once");
        self.ring.push_back(member);
    }

    /// Who is next, if anyone. It keeps the turn until `pass` or `leave`.
    pub fn current(&self) -> Option<T> {
        self.ring.front().copied()
    }

    /// The current one has had its block: to the end of the ring.
    pub fn pass(&mut self) {
        if !self.ring.is_empty() {
            self.ring.rotate_left(1);
        }
    }

    /// The current one has nothing more to send, or no room.
    pub fn leave(&mut self) {
        self.ring.pop_front();
    }

    /// Takes out anyone, wherever it stands: a connection was closed.
    pub fn remove(&mut self, member: T) {
        self.ring.retain(|m| *m != member);
    }

    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ring.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gives_everyone_a_turn_before_anyone_has_two() {
        let mut turns = Turns::default();
        (0..5).for_each(|m| turns.join(m));
        let mut seen = vec![];
        for _ in 0..10 {
            seen.extend(turns.current());
            turns.pass();
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    }

    proptest! {
        /// However the others come and go, whoever stays is served within as many turns as there
        /// are members ahead of it: latecomers queue behind.
        #[test]
        fn starves_nobody(ops in prop::collection::vec(0u8..4, 1..200)) {
            let mut turns = Turns::default();
            let mut next = 1u32;
            turns.join(0);
            let mut waited = 0;
            let mut ahead = 0;
            for op in ops {
                match op {
                    0 if turns.len() < 50 => { turns.join(next); next += 1; }
                    1 if next > 1 => turns.remove(next - 1),
                    _ if turns.current() == Some(0) => {
                        waited = 0;
                        turns.pass();
                        ahead = turns.len() - 1;
                    }
                    2 => { waited += 1; turns.pass(); }
                    _ => { waited += 1; turns.leave(); }
                }
                prop_assert!(waited <= ahead);
            }
        }
    }
}
