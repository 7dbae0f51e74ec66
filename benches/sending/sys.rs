//! The one place of this bench with `unsafe`: a file in memory, and io_uring, whose pushes are promises
//! about memory that the compiler cannot check.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    num::NonZeroUsize,
    ops::Deref,
    os::fd::{AsRawFd, RawFd},
    ptr::NonNull,
};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types::Fd};
use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};
use socket2::Socket;

/// A file in memory, read only.
pub struct Mapping {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    pub fn of(file: &File, length: usize) -> io::Result<Mapping> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at no address in particular, touches no memory that Rust knows of.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Mapping { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped readable for this length until drop; the file is ours alone, unnamed, and
        // neither written nor truncated after it is mapped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping and its length, once; slices of it cannot outlive `self`.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// What goes to one socket in one go. It holds addresses: the memory must stay until it is done.
pub struct Job {
    socket: RawFd,
    parts: Vec<libc::iovec>,
    wanted: usize,
    message: Option<Box<libc::msghdr>>,
}

impl Job {
    pub fn new(socket: &Socket) -> Job {
        Job { socket: socket.as_raw_fd(), parts: vec![], wanted: 0, message: None }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.wanted += bytes.len();
        let iov_base = bytes.as_ptr().cast_mut().cast();
        self.parts.push(libc::iovec { iov_base, iov_len: bytes.len() });
    }

    /// The address of what the kernel reads; good as long as the job is.
    fn message(&mut self) -> *const libc::msghdr {
        // SAFETY: all zeros is a message without anything.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        message.msg_iov = self.parts.as_mut_ptr();
        message.msg_iovlen = self.parts.len() as _;
        &raw const **self.message.insert(message)
    }
}

/// Reads have no owner who waits for them: the send behind them tells.
const READ: u64 = u64::MAX;

pub struct Ring {
    ring: IoUring,
    /// What the kernel still uses.
    jobs: BTreeMap<usize, Job>,
}

impl Ring {
    pub fn new(jobs_max: usize) -> io::Result<Ring> {
        // A turn's blocks may all be apart: so many reads in front of each send.
        let entries = (jobs_max * 8) as u32;
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries)?;
        Ok(Ring { ring, jobs: BTreeMap::new() })
    }

    pub fn sends_zero_copy(&self) -> io::Result<bool> {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe)?;
        Ok(probe.is_supported(opcode::SendMsgZc::CODE))
    }

    /// Sends without waiting for room. `who` has one job at a time.
    pub fn push_send(&mut self, who: usize, job: Job, zero_copy: bool) -> io::Result<()> {
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
        self.jobs.insert(who, job);
        let job = self.jobs.get_mut(&who).ok_or(io::ErrorKind::NotFound)?;
        let (fd, message) = (Fd(job.socket), job.message());
        let entry = if zero_copy {
            opcode::SendMsgZc::new(fd, message).flags(flags).build()
        } else {
            opcode::SendMsg::new(fd, message).flags(flags).build()
        };
        self.push(entry.user_data(who as u64))
    }

    /// A read that the next entry waits for.
    pub fn push_read(&mut self, file: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let read = opcode::Read::new(Fd(file.as_raw_fd()), into.as_mut_ptr(), into.len() as u32);
        self.push(read.offset(offset).build().flags(squeue::Flags::IO_LINK).user_data(READ))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: the message lives in `jobs` until the kernel lets go of it (`reap`); mapping and
        // read buffers outlive the ring's use of them, since whoever pushes reaps before dropping.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }

    pub fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    pub fn submit_and_wait(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(1).map(drop)
    }

    /// For each end of a job: whose, how much the socket took (`None`: told before), of how much, and
    /// whether the kernel has let go of the memory.
    pub fn reap(
        &mut self,
        mut tell: impl FnMut(usize, Option<usize>, usize, bool),
    ) -> io::Result<()> {
        for entry in self.ring.completion() {
            if entry.user_data() == READ {
                continue;
            }
            let who = entry.user_data() as usize;
            let Some(job) = self.jobs.get(&who) else { continue };
            let is_release = cqueue::notif(entry.flags());
            let released = is_release || !cqueue::more(entry.flags());
            let sent = match entry.result() {
                _ if is_release => None,
                error if error == -libc::EAGAIN => Some(0),
                error @ ..0 => return Err(io::Error::from_raw_os_error(-error)),
                sent => Some(sent as usize),
            };
            tell(who, sent, job.wanted, released);
            if released {
                self.jobs.remove(&who);
            }
        }
        Ok(())
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
