//! Ways in which blocks go from the page cache to the socket without passing through this process.

use std::{fs::File, io, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice as splice_pages},
    libc,
    sys::sendfile::sendfile64,
    unistd::{pipe2, write},
};

use crate::{
    Way,
    peer::{BLOCK_BYTES, BLOCKS_A_TURN, Content, HEADER, HEADER_BYTES, Peer},
};

/// Room for a turn's headers and blocks, each page in a slot of its own.
const PIPE_BYTES: i32 = 1 << 20;

struct Sendfile {
    cork: bool,
}

pub fn sendfile() -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Sendfile { cork: false }))
}

pub fn corked() -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Sendfile { cork: true }))
}

impl Way for Sendfile {
    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64> {
        let mut calls = 0;
        for &i in ready {
            let peer = &mut peers[i];
            // A single block has nothing to share a packet with.
            let cork = self.cork && peer.due.len() > 1;
            if cork {
                peer.socket.set_tcp_cork(true)?;
            }
            calls += 2 * u64::from(cork) + send_blocks(content, peer)?;
            if cork {
                peer.socket.set_tcp_cork(false)?;
            }
        }
        Ok(calls)
    }
}

fn send_blocks(content: &Content, peer: &mut Peer) -> io::Result<u64> {
    let mut calls = 0;
    for _ in 0..BLOCKS_A_TURN {
        let Some(&offset) = peer.due.front() else { break };
        if peer.sent < HEADER_BYTES {
            let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
            calls += 1;
            match peer.socket.send_with_flags(&HEADER[peer.sent..], flags) {
                Ok(n) => peer.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if peer.sent < HEADER_BYTES {
                peer.writable = false;
                break;
            }
        }
        let done = peer.sent - HEADER_BYTES;
        let mut at = offset as i64 + done as i64;
        calls += 1;
        let sent = match sendfile64(&peer.socket, &content.file, Some(&mut at), BLOCK_BYTES - done)
        {
            Err(Errno::EAGAIN) => 0,
            sent => sent?,
        };
        peer.advance(sent);
        if done + sent < BLOCK_BYTES {
            peer.writable = false;
            break;
        }
    }
    Ok(calls)
}

/// Several blocks go through a pipe and leave together.
struct Splice {
    /// One for all connections: what does not fit into the socket is thrown away and comes again.
    /// Otherwise each connection has its own, in which it stays.
    shared: Option<Pipe>,
    nowhere: File,
    single_by_sendfile: bool,
}

pub fn splice() -> io::Result<Box<dyn Way>> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    Ok(Box::new(Splice { shared: None, nowhere, single_by_sendfile: false }))
}

pub fn mixed() -> io::Result<Box<dyn Way>> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    Ok(Box::new(Splice { shared: Some(Pipe::new()?), nowhere, single_by_sendfile: true }))
}

impl Way for Splice {
    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64> {
        let mut calls = 0;
        for &i in ready {
            let peer = &mut peers[i];
            if self.single_by_sendfile && peer.due.len() == 1 {
                calls += send_blocks(content, peer)?;
                continue;
            }
            let own = peer.pipe.take();
            let Some(mut pipe) = self.shared.take().or(own) else {
                peer.pipe = Some(Pipe::new()?);
                continue;
            };
            calls += pipe.send(content, peer)?;
            if self.single_by_sendfile {
                calls += u64::from(pipe.bytes > 0);
                pipe.empty_into(&self.nowhere)?;
                self.shared = Some(pipe);
            } else {
                peer.in_pipe = pipe.bytes;
                peer.pipe = Some(pipe);
            }
        }
        Ok(calls)
    }
}

pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    bytes: usize,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))?;
        Ok(Pipe { out, into, bytes: 0 })
    }

    fn send(&mut self, content: &Content, peer: &mut Peer) -> io::Result<u64> {
        let mut calls = 1;
        if self.bytes == 0 {
            for (header, block) in peer.parts() {
                calls += u64::from(!header.is_empty()) + 1;
                if !header.is_empty() {
                    write(&self.into, &HEADER[header.clone()])?;
                }
                let mut at = block.start as i64;
                let flags = SpliceFFlags::empty();
                let n = splice_pages(
                    &content.file,
                    Some(&mut at),
                    &self.into,
                    None,
                    block.len(),
                    flags,
                )?;
                if n < block.len() {
                    return Err(io::Error::other("the pipe is too small for a turn"));
                }
                self.bytes += header.len() + n;
            }
        }
        match splice_pages(
            &self.out,
            None,
            &peer.socket,
            None,
            self.bytes,
            SpliceFFlags::SPLICE_F_NONBLOCK,
        ) {
            Ok(n) => {
                self.bytes -= n;
                peer.writable = self.bytes == 0;
                peer.advance(n);
            }
            Err(Errno::EAGAIN) => peer.writable = false,
            Err(e) => return Err(e.into()),
        }
        Ok(calls)
    }

    fn empty_into(&mut self, nowhere: &File) -> io::Result<()> {
        while self.bytes > 0 {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
            self.bytes -= splice_pages(&self.out, None, nowhere, None, self.bytes, flags)?;
        }
        Ok(())
    }
}
