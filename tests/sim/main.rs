//! The pure cores in virtual time: whole swarms of simulated peers against the sessions, the choker and
//! the governor, composed as the serving engine composes them. Reads no clock and opens no socket; a
//! run is the same every time.

mod ban_helper;
mod clock;
mod device;
mod fleet;
mod net;
#[path = "../../fuzz/src/observer.rs"]
mod observer;
mod operator;
mod peer;
mod serving;
mod week;
mod window;
mod world;
mod year;
