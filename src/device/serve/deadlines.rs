//! When which connection has to be looked at again. One entry a connection; activity does not touch
//! it, so a busy connection costs nothing here: whoever is called too early comes back later.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::logic::now::Monotonic;

/// Deadlines are moved up to whole seconds, so that many idle connections share a wake-up.
const GRAIN: Duration = Duration::from_secs(1);

/// A connection's place and the number that tells it from earlier ones in the same place.
pub(super) type Who = (u32, u32);

#[derive(Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(Monotonic, Who)>>,
}

impl Deadlines {
    pub fn push(&mut self, at: Monotonic, who: Who) {
        let grains = at.0.as_nanos().div_ceil(GRAIN.as_nanos());
        let at = Monotonic(GRAIN.saturating_mul(u32::try_from(grains).unwrap_or(u32::MAX)));
        self.heap.push(Reverse((at, who)));
    }

    pub fn pop_due(&mut self, now: Monotonic) -> Option<Who> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, who))| who)
    }

    pub fn next(&self) -> Option<Monotonic> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_deadlines_of_one_second_and_is_never_early() {
        let at = |ms| Monotonic(Duration::from_millis(ms));
        let mut deadlines = Deadlines::default();
        deadlines.push(at(1_700), (2, 0));
        deadlines.push(at(1_100), (1, 0));
        deadlines.push(at(2_001), (3, 0));
        assert_eq!(deadlines.next(), Some(at(2_000)));
        assert_eq!(deadlines.pop_due(at(1_999)), None);
        assert_eq!(deadlines.pop_due(at(2_000)), Some((1, 0)));
        assert_eq!(deadlines.pop_due(at(2_000)), Some((2, 0)));
        assert_eq!(deadlines.pop_due(at(2_000)), None);
        assert_eq!(deadlines.next(), Some(at(3_000)));
    }
}
