//! How much work one peer may make, in points. Only what it sends counts, and blocks that it took
//! pay for it: a peer that downloads, however fast, never meets the limit.

use super::Message;
use crate::logic::{
    meter::{Meter, Rate},
    now::Monotonic,
};

/// 4,000 requests at once (four full queues), then 500 a second that no block pays for: cancels in an
/// endgame, requests again after a choke. A point is about 10 ns of a slow core.
const EFFORT: Rate = Rate { at_once: 4_000 * MESSAGE_POINTS, per_second: 500 * MESSAGE_POINTS };
/// A message that we have to act on. A full queue is searched for a request's twin.
const MESSAGE_POINTS: u32 = 64;
/// A request that is answered by a rejection takes from the allowance, too. A full queue of them may
/// come in the round trip after a choke; for ever, 166 a second are 3 kB/s.
const REFUSAL_POINTS: u32 = 2 * MESSAGE_POINTS;
/// A wake-up and a system call: single bytes in packets of their own are no way around the limit.
const READ_POINTS: u32 = 16;
/// Half a megabyte a second of whatever we pass over, such as news of pieces.
const BYTES_A_POINT: usize = 16;
/// Its request, and one more message.
const POINTS_BACK_A_BLOCK: u32 = 2 * MESSAGE_POINTS;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    meter: Meter,
}

impl Effort {
    /// False when the peer has gone too far.
    pub fn take_read(&mut self, bytes: usize, now: Monotonic) -> bool {
        let points = READ_POINTS.saturating_add((bytes / BYTES_A_POINT) as u32);
        self.meter.take(points, EFFORT, now)
    }

    pub fn take_message(&mut self, message: &Message<'_>, now: Monotonic) -> bool {
        // What is passed over has cost its bytes.
        let free = matches!(message, Message::KeepAlive | Message::Have(_) | Message::Other(_));
        free || self.meter.take(MESSAGE_POINTS, EFFORT, now)
    }

    /// On top of the message.
    pub fn take_refusal(&mut self, now: Monotonic) -> bool {
        self.meter.take(REFUSAL_POINTS, EFFORT, now)
    }

    pub fn handle_block_left(&mut self) {
        self.meter.give_back(POINTS_BACK_A_BLOCK, EFFORT);
    }
}
