//! The pure decision cores. Nothing in here reads a clock, draws a random number, opens a file or a
//! socket, or iterates in hash order: time and randomness are arguments, so a year of a household
//! can be played in seconds and every run can be repeated.

pub mod admission;
pub mod backoff;
pub mod bencoding;
pub mod bitfield;
pub mod choke;
pub mod earnings;
pub mod fault;
pub mod fill;
pub mod governor;
pub mod hotlist;
pub mod infohash;
pub mod ledger;
pub mod login_guard;
pub mod metainfo;
pub mod meter;
pub mod node;
pub mod now;
pub mod outreach;
pub mod placement;
pub mod ranking;
pub mod rating;
pub mod reach;
pub mod routes;
pub mod timekeeper;
pub mod units;
pub mod usage;
pub mod wire;
