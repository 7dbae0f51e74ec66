//! The one place of the serving engine with `unsafe`: a question to the kernel that neither nix nor
//! socket2 wraps. Nothing else belongs here.
#![allow(unsafe_code)]

use std::{io, os::fd::AsRawFd};

nix::ioctl_read_bad!(
    /// SIOCOUTQ of tcp(7), which Linux defines as TIOCOUTQ.
    siocoutq,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);

/// Bytes of the stream that the kernel holds for the peer and the peer's kernel has not acknowledged.
/// Still answers after a reset: what was acknowledged before it stays acknowledged.
pub fn unacknowledged_bytes(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel writes one int
    // to the address given, which is that of a live, aligned c_int.
    unsafe { siocoutq(socket.as_raw_fd(), &mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
