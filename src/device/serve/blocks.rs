//! How the bytes of a block get from where they are into a socket. Decides nothing, and remembers
//! nothing. What cannot be read is the keeper's to find out about, so the log hears of it there.

use std::{fs::File, io, os::unix::fs::FileExt};

use mio::net::TcpStream;
use nix::{errno::Errno, libc, sys::sendfile::sendfile64};
use socket2::SockRef;

use super::files::OpenFiles;
use crate::logic::{
    now::Monotonic,
    wire::{Chunk, Close, ContentKey, Shelf},
};

/// Of a block that has not begun to leave.
const HEADER_BYTES: usize = 13;

pub(super) fn content_file<'a>(
    files: &'a mut OpenFiles,
    shelf: &Shelf,
    content: ContentKey,
) -> Result<&'a File, Close> {
    let infohash = shelf.get(content).ok_or(Close::ContentRemoved)?.infohash();
    files.get(content, infohash).map_err(|error| {
        tracing::debug!(%infohash, %error, "the content's file cannot be opened");
        Close::Unreadable
    })
}

/// The block's piece, if the disk would have to be asked for it. A block that has begun goes on.
pub(super) fn cold_piece(
    chunk: Chunk<'_>,
    shelf: &Shelf,
    files: &mut OpenFiles,
    now: Monotonic,
) -> Result<Option<u32>, Close> {
    let Chunk::Block { header, content, offset, length } = chunk else { return Ok(None) };
    if header.len() < HEADER_BYTES {
        return Ok(None);
    }
    files.cold_piece(shelf, content, offset..offset + u64::from(length), now)
}

pub(super) fn is_in_memory(chunk: Chunk<'_>, shelf: &Shelf, files: &mut OpenFiles) -> bool {
    match chunk {
        Chunk::Block { content, offset, .. } => files.memory.find(shelf, content, offset).is_some(),
        Chunk::Opening(_) | Chunk::Control(_) => false,
    }
}

/// The chunk's bytes, block included, into a buffer of just its size.
pub(super) fn copy_chunk(
    chunk: Chunk<'_>,
    shelf: &Shelf,
    files: &mut OpenFiles,
    out: &mut [u8],
) -> Result<(), Close> {
    match chunk {
        Chunk::Opening(bytes) | Chunk::Control(bytes) => out.copy_from_slice(bytes),
        Chunk::Block { header, content, offset, length: _ } => {
            let (start, block) = out.split_at_mut(header.len());
            start.copy_from_slice(header);
            if let Some(piece) = files.memory.find(shelf, content, offset) {
                let content = shelf.get(content).ok_or(Close::ContentRemoved)?;
                let at = (offset - content.piece_offset(content.piece_at(offset))) as usize;
                let bytes = piece.get(at..at + block.len()).ok_or(Close::Unreadable)?;
                block.copy_from_slice(bytes);
                return Ok(());
            }
            let file = content_file(files, shelf, content)?;
            file.read_exact_at(block, offset).map_err(|error| {
                tracing::debug!(offset, %error, "the content's file cannot be read");
                Close::Unreadable
            })?;
        }
    }
    Ok(())
}

/// Bytes that the socket took; fewer than offered means that it is full.
pub(super) fn send(stream: &TcpStream, bytes: &[u8], flags: i32) -> Result<u64, Close> {
    loop {
        match SockRef::from(stream).send_with_flags(bytes, flags | libc::MSG_NOSIGNAL) {
            Ok(n) => return Ok(n as u64),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Close::Broken),
        }
    }
}

/// The header waits in the kernel (MSG_MORE) for the block, which goes from the page cache to the
/// socket without passing through this process.
pub(super) fn send_block(
    stream: &TcpStream,
    header: &[u8],
    file: &File,
    offset: u64,
    length: u32,
) -> Result<u64, Close> {
    let mut sent = 0;
    if !header.is_empty() {
        sent = send(stream, header, libc::MSG_MORE)?;
        if sent < header.len() as u64 {
            return Ok(sent);
        }
    }
    let mut at = i64::try_from(offset).map_err(|_| Close::Unreadable)?;
    let mut left = length as usize;
    while left > 0 {
        match sendfile64(stream, file, Some(&mut at), left) {
            Ok(0) => {
                tracing::debug!(offset = at, "the content's file ends before its content does");
                return Err(Close::Unreadable);
            }
            Ok(n) => {
                left -= n;
                sent += n as u64;
            }
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EIO) => return Err(Close::Unreadable),
            Err(_) => return Err(Close::Broken),
        }
    }
    Ok(sent)
}
