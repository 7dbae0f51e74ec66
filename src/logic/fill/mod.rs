//! How fast a fill may go: what the owner's rate and hours say, and what the household leaves of the
//! line. Which contents are filled is `placement`'s business; bytes are moved in `device/swarm`.

mod tokens;
mod window;
mod yielding;

pub use self::{
    tokens::Tokens,
    window::{Hours, Verdict},
    yielding::{RATE_MIN_BYTES_PER_SECOND, Received, Yielding},
};
