//! How much may leave: the owner's allowance, and the pacer that turns it into permits for bytes.
//! Decides only; it never sees a socket or a block's content.

pub mod allowance;
mod class;
pub mod delay;
mod household;
mod pacer;
pub mod shares;
mod tempo;
mod turns;
mod wire_cost;

pub use class::{Interface, Lan, NotAPrefix, Prefix, address_group, may_be_at_home};
pub use household::{Household, LineCounts};
pub use pacer::{MAX_GRANT_STREAM_BYTES, Pacer, Permit};
pub use tempo::{SLACK_MAX, Tempo};
pub use turns::Turns;
pub use wire_cost::{MIN_SEGMENT_PAYLOAD_BYTES, WireCost};

/// 10 Gbit/s: a limit that no home line reaches is none, and need not cost a permit a block.
const UNLIMITED_BYTES_PER_SECOND: u64 = 1_250_000_000;

/// What the device may put onto the uplink, all protocols' headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Nothing leaves.
    Paused,
    /// Zero means the same as `Paused`.
    BytesPerSecond(u64),
    Unlimited,
}

impl Allowance {
    /// The same, as the serving engine keeps it.
    pub fn settled(self) -> Allowance {
        match self {
            Allowance::BytesPerSecond(limit) if limit >= UNLIMITED_BYTES_PER_SECOND => {
                Allowance::Unlimited
            }
            kept => kept,
        }
    }

    pub fn is_paused(self) -> bool {
        matches!(self, Allowance::Paused | Allowance::BytesPerSecond(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_limit_that_no_line_reaches_for_none() {
        let settled = |limit| Allowance::BytesPerSecond(limit).settled();
        assert_eq!(settled(1_250_000_000), Allowance::Unlimited);
        assert_eq!(settled(125_000_000), Allowance::BytesPerSecond(125_000_000));
        assert_eq!(settled(0), Allowance::BytesPerSecond(0));
    }
}
