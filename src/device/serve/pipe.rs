//! Where several blocks gather before they leave together: references to pages of the page cache, with
//! the headers in between. Content is not copied, and nothing stays in it from one use to the next.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::{pipe2, write},
};

use crate::logic::wire::{Close, OutgoingBlock};

/// A page takes a slot however little of it is used: 16 blocks of 16 KiB off the page's start, and their
/// headers, take 96 of 128. Slots are 40 bytes each, and what is in them belongs to the page cache.
const PIPE_BYTES: i32 = 512 * 1024;

pub(super) struct BlockPipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Takes what the socket had no room for.
    nowhere: File,
    bytes: u64,
}

impl BlockPipe {
    pub fn new() -> io::Result<BlockPipe> {
        let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // A refinement: with the usual 64 KiB fewer blocks go at a time.
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let nowhere = File::options().write(true).open("/dev/null")?;
        Ok(BlockPipe { out, into, nowhere, bytes: 0 })
    }

    /// Takes as many blocks as fit; the last may be cut. Answers with the bytes in the pipe.
    pub fn fill(
        &mut self,
        file: &File,
        blocks: impl Iterator<Item = OutgoingBlock>,
    ) -> Result<u64, Close> {
        // Empty, but for a kernel that could not throw away: then the pipe stays out of use.
        if self.bytes > 0 {
            return Ok(0);
        }
        for block in blocks {
            match self.put(file, &block) {
                Ok(()) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(error) => {
                    tracing::debug!(offset = block.offset(), %error, "the content's file cannot be read");
                    self.empty();
                    return Err(Close::Unreadable);
                }
            }
        }
        Ok(self.bytes)
    }

    /// Bytes that the socket took; fewer than were offered means that it is full. The pipe is empty
    /// again.
    pub fn send(&mut self, socket: &impl AsFd) -> Result<u64, Close> {
        let offered = self.bytes;
        let end = splice_all(&self.out, socket, &mut self.bytes);
        let sent = offered - self.bytes;
        self.empty();
        match end {
            Ok(()) | Err(Errno::EAGAIN) => Ok(sent),
            Err(_) => Err(Close::Broken),
        }
    }

    fn put(&mut self, file: &File, block: &OutgoingBlock) -> Result<(), Errno> {
        if !block.header().is_empty() {
            // All or nothing: it is shorter than what a pipe writes in one go (PIPE_BUF).
            self.bytes += write(&self.into, block.header())? as u64;
        }
        let mut at = i64::try_from(block.offset()).map_err(|_| Errno::EOVERFLOW)?;
        let mut left = block.length() as usize;
        while left > 0 {
            let flags = SpliceFFlags::empty();
            match splice(file, Some(&mut at), &self.into, None, left, flags) {
                // The file ends before its content does.
                Ok(0) => return Err(Errno::ENODATA),
                Ok(n) => {
                    left -= n;
                    self.bytes += n as u64;
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn empty(&mut self) {
        let _ = splice_all(&self.out, &self.nowhere, &mut self.bytes);
    }
}

/// Counts `bytes` down as they leave.
fn splice_all(from: &OwnedFd, to: &impl AsFd, bytes: &mut u64) -> Result<(), Errno> {
    while *bytes > 0 {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        match splice(from, None, to, None, *bytes as usize, flags) {
            Ok(0) => return Err(Errno::EPIPE),
            Ok(n) => *bytes -= n as u64,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
