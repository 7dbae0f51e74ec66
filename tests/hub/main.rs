//! The hub and its command line as black boxes: the real binaries, over real sockets on loopback.

mod commands;
mod content;
mod devices;
mod harness;
mod metadata;
mod reports;
mod simulate;
mod tracker;
mod waiting;
