//! The one place of the device with `unsafe`: what neither nix nor socket2 wraps of the kernel's calls
//! about TCP sockets and files, and a word to the allocator. Each does one call. Nothing else belongs here.
#![allow(unsafe_code)]

use std::{io, mem::size_of, os::fd::AsRawFd};

use nix::libc;

nix::ioctl_read_bad!(
    /// SIOCOUTQ of tcp(7), which Linux defines as TIOCOUTQ.
    siocoutq,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);

nix::ioctl_read_bad!(
    /// SIOCOUTQNSD of linux/sockios.h.
    siocoutqnsd,
    0x894B,
    nix::libc::c_int
);

/// Bytes of the stream that the kernel has not sent yet.
pub fn unsent_bytes(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: as in `unacknowledged_bytes`.
    unsafe { siocoutqnsd(socket.as_raw_fd(), &mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bytes of the stream that the kernel holds for the peer and the peer's kernel has not acknowledged.
/// Still answers after a reset: what was acknowledged before it stays acknowledged.
pub fn unacknowledged_bytes(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel writes one int
    // to the address given, which is that of a live, aligned c_int.
    unsafe { siocoutq(socket.as_raw_fd(), &mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// What a TCP socket has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of the stream, once each.
    pub stream_bytes: u64,
    /// What had to be sent again. Zero on a kernel from before 4.19, which does not tell.
    pub retransmitted_bytes: u64,
}

/// `struct tcp_info` of linux/tcp.h as far as we read it; the kernel fills what it knows of it.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpInfo {
    before_bytes_acked: [u64; 15],
    bytes_acked: u64,
    before_bytes_sent: [u64; 9],
    bytes_sent: u64,
    bytes_retrans: u64,
}

/// TCP_INFO of tcp(7).
pub fn sent(socket: &impl AsRawFd) -> io::Result<Sent> {
    let mut info = TcpInfo {
        before_bytes_acked: [0; 15],
        bytes_acked: 0,
        before_bytes_sent: [0; 9],
        bytes_sent: 0,
        bytes_retrans: 0,
    };
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed; the kernel writes at most
    // `length` bytes to a live, aligned struct of integers, for which any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    nix::errno::Errno::result(result)?;
    let knows_sent = length as usize >= size_of::<TcpInfo>();
    Ok(Sent {
        stream_bytes: if knows_sent {
            info.bytes_sent.saturating_sub(info.bytes_retrans)
        } else {
            info.bytes_acked
        },
        retransmitted_bytes: info.bytes_retrans,
    })
}

/// How many bytes per second the kernel lets the socket send (SO_MAX_PACING_RATE of socket(7)), evenly
/// and without a queueing discipline's help. `u32::MAX` is no bound.
pub fn set_max_pacing_rate(socket: &impl AsRawFd, bytes_per_second: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads one u32
    // from a live one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const bytes_per_second).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(())
}

/// Has everyone who opens the file for writing, or truncates it, wait until `give_up_lease`, for 45
/// seconds at most (F_SETLEASE of fcntl(2)); SIGIO tells of it. An error if somebody has it open for
/// writing, if it is another user's, or if the filesystem cannot.
pub fn take_read_lease(file: &impl AsRawFd) -> io::Result<()> {
    set_lease(file, libc::F_RDLCK)
}

pub fn give_up_lease(file: &impl AsRawFd) -> io::Result<()> {
    set_lease(file, libc::F_UNLCK)
}

/// Somebody waits for the end of the lease, or the kernel has ended it.
pub fn lease_is_wanted_back(file: &impl AsRawFd) -> bool {
    // SAFETY: the descriptor is open as long as `file` is borrowed; F_GETLEASE takes no argument.
    let held = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) };
    held != libc::F_RDLCK
}

fn set_lease(file: &impl AsRawFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed; F_SETLEASE takes an int.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

/// Whether the page cache has this byte of a file, so that reading it waits for no disk (RWF_NOWAIT of
/// preadv2(2)). Yes where the kernel or the filesystem cannot tell.
pub fn is_resident(file: &impl AsRawFd, offset: u64) -> bool {
    let mut byte = 0u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // The kernel takes the offset in two registers, of which 64-bit ones need only the first.
    let (low, high) = (offset as libc::c_long, (offset >> 32) as libc::c_long);
    // SAFETY: the descriptor is open as long as `file` is borrowed; the kernel reads one live iovec and
    // writes at most one byte, to a live one.
    let read = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            file.as_raw_fd(),
            &raw const part,
            1 as libc::c_long,
            low,
            high,
            libc::c_long::from(libc::RWF_NOWAIT),
        )
    };
    read >= 0 || nix::errno::Errno::last() != nix::errno::Errno::EAGAIN
}

/// This thread's reads and writes come after everybody else's (IOPRIO_CLASS_IDLE of ioprio_set(2)), as
/// far as the disk's scheduler goes by that.
pub fn yield_disk() -> io::Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    const THIS_THREAD: libc::c_long = 0;
    const CLASS_IDLE: libc::c_long = 3 << 13;
    // SAFETY: three integers; the kernel keeps nothing of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, CLASS_IDLE) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

/// What is freed of large buffers goes back to the system at once, as musl does by itself: glibc would
/// keep as much for the next time as was once in use, and fills, which are rare, use most.
pub fn give_large_buffers_back() {
    // Glibc's own, before it learns from what is freed.
    #[cfg(target_env = "gnu")]
    const LARGE_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: an integer, before there is a second thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        // If it fails, memory stays with us for longer.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
