//! How blocks follow each other under a limit: one connection at a time, or many at once. Knows rates
//! and times; who sends is the engine's affair.
//!
//! Connections that the kernel paces each by itself know nothing of each other: their packets, two at a
//! time, meet by chance and queue. At 90 % of 20 Mbit/s that is 3–9 ms of the household's ping. Where
//! one connection sends at a time, its block spread over just the time that it takes, nothing meets;
//! but somebody has to wake up for each block. So slow lines take turns. On fast ones a packet is over
//! so soon that meetings do not matter, and wake-ups would.

use std::time::Duration;

/// 32 Mbit/s: 240 blocks, so as many wake-ups, a second. Ten packets that meet delay others by less
/// than 4 ms from here on.
const TURNS_BYTES_PER_SECOND_MAX: u64 = 4_000_000;

/// Of any tempo's.
pub const SLACK_MAX: Duration = Duration::from_millis(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tempo {
    /// A block of one connection after another's, each at the whole rate.
    Turns,
    /// Many at once, each at its share.
    Shares,
}

impl Tempo {
    pub fn at(bytes_per_second: u64) -> Tempo {
        if bytes_per_second <= TURNS_BYTES_PER_SECOND_MAX { Tempo::Turns } else { Tempo::Shares }
    }

    /// How much may gather, in time, above one block: for as long the sender may sleep. With turns it
    /// is as little as timers allow, because what has gathered leaves beside the block that is due.
    pub fn slack(self) -> Duration {
        match self {
            Tempo::Turns => Duration::from_millis(3),
            Tempo::Shares => SLACK_MAX,
        }
    }

    /// How late a wake-up may be without loss of rate.
    pub fn lateness(self) -> Duration {
        match self {
            Tempo::Turns => Duration::from_millis(1),
            Tempo::Shares => Duration::from_millis(10),
        }
    }
}
