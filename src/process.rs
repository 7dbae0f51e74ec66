//! What a program does about the process that started it.

use std::io;

use nix::{
    sys::{
        prctl,
        signal::{Signal, raise},
    },
    unistd::{Pid, getppid},
};

/// Asks the kernel for a SIGTERM when the parent dies, so that nothing that `larder demo` started
/// outlives it, however it ended.
pub fn stop_with_parent() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // It may have died before we asked.
    if getppid() == Pid::from_raw(1) {
        raise(Signal::SIGTERM)?;
    }
    Ok(())
}
