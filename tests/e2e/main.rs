//! Whole programs with real clients: the binaries as an operator and an owner would run them,
//! aria2c and Transmission as the peers. Everything on loopback, in folders of its own.

mod bad_input;
mod caps;
mod clients;
mod demo;
mod harness;
mod home;
mod kill;
mod preload;
