//! How much may leave: the owner's allowance, and the pacer that turns it into permits for bytes.
//! Decides only; it never sees a socket or a block's content.

pub mod allowance;
mod class;
pub mod delay;
mod pacer;
mod turns;
mod wire_cost;

pub use class::{address_group, class_of};
pub use pacer::{MAX_GRANT_STREAM_BYTES, Pacer, Permit, SLACK};
pub use turns::Turns;
pub use wire_cost::WireCost;

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
    pub fn is_paused(self) -> bool {
        matches!(self, Allowance::Paused | Allowance::BytesPerSecond(0))
    }
}
