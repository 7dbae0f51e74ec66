//! Larder: a BitTorrent-compatible edge cache for home routers and set-top boxes.
//!
//! The map, from the inside out (ARCHITECTURE.md draws it):
//!
//! - [`logic`] decides. It is pure: no sockets, files, clock or randomness of its own.
//! - [`api`] is what the programs say to each other; `config`, `telemetry` and `process` are shared.
//! - `device`, `hub`, `client` and `cli` are shells. They do IO and never import each other.

pub mod api;
pub mod logic;

#[cfg(any(feature = "device", feature = "hub", feature = "cli"))]
pub mod config;
#[cfg(any(feature = "device", feature = "hub", feature = "cli"))]
pub mod telemetry;

#[cfg(any(feature = "device", feature = "hub"))]
mod process;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod client;
#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "hub")]
pub mod hub;
