//! The two documents that an operator signs for its fleet, the hot list and the policy: shapes,
//! limits, and the checks between an old and a new one. Signatures are TUF's business, not ours.

mod list;
mod nesting;
mod policy;

pub use list::{Entry, HotList, ListError, MAX_ENTRIES, MAX_LIST_BYTES};
pub use nesting::{NESTING_MAX, nests_too_deep};
pub use policy::{MAX_POLICY_BYTES, Policy, PolicyError, is_host_and_port};

/// Names of the two targets in the TUF repository.
pub const LIST_TARGET: &str = "hotlist.json";
pub const POLICY_TARGET: &str = "policy.json";
