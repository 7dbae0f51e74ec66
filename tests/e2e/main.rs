//! Whole programs with real clients: the binaries as an operator and an owner would run them,
//! aria2c and Transmission as the peers. Everything on loopback, in folders of its own.

mod auto;
mod bad_input;
mod caps;
mod clients;
mod clocks;
mod demo;
mod disk;
mod forgotten;
mod gateway;
#[allow(dead_code, reason = "other suites need more of it")]
mod harness;
mod home;
mod intact;
mod kill;
mod leecher;
mod preload;
mod removal;
mod revocation;
mod windows;
mod world;
