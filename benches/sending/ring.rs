//! Ways through io_uring: one system call for all peers that have room.

use std::{io, os::fd::AsRawFd};

use crate::{
    Way,
    peer::{BLOCK_BYTES, BLOCKS_A_TURN, Content, HEADER, Peer},
    sys::{Job, Ring},
};

/// Peers in one submission. With reads, each has a turn's worth of buffer.
const PEERS_AT_ONCE: usize = 32;
/// Jobs of a zero-copy send stay until the kernel lets go of the pages.
const PEERS_MAX: usize = 256;

struct Mapped {
    ring: Ring,
    zero_copy: bool,
}

pub fn mapped() -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Mapped { ring: Ring::new(PEERS_MAX)?, zero_copy: false }))
}

pub fn zero_copy() -> io::Result<Box<dyn Way>> {
    let ring = Ring::new(PEERS_MAX)?;
    if !ring.sends_zero_copy()? {
        return Err(io::Error::other("this kernel has no sendmsg_zc"));
    }
    Ok(Box::new(Mapped { ring, zero_copy: true }))
}

impl Way for Mapped {
    fn descriptor(&self) -> Option<i32> {
        Some(self.ring.as_raw_fd())
    }

    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64> {
        let mut calls = 0;
        for some in ready.chunks(PEERS_AT_ONCE) {
            for &i in some {
                let peer = &mut peers[i];
                let mut job = Job::new(&peer.socket);
                for (header, block) in peer.parts() {
                    job.add(&HEADER[header]);
                    job.add(&content.mapping[block]);
                }
                peer.busy = true;
                self.ring.push_send(i, job, self.zero_copy)?;
            }
            self.ring.submit()?;
            calls += 1;
            self.reap(peers)?;
        }
        self.reap(peers)?;
        Ok(calls)
    }
}

impl Mapped {
    fn reap(&mut self, peers: &mut [Peer]) -> io::Result<()> {
        self.ring.reap(|i, sent, wanted, released| {
            let peer = &mut peers[i];
            if let Some(sent) = sent {
                peer.advance(sent);
                peer.writable = sent == wanted;
            }
            peer.busy = !released;
        })
    }
}

/// A read into a buffer, and the send of it right behind.
struct Reading {
    ring: Ring,
    buffer: Vec<u8>,
}

pub fn reading() -> io::Result<Box<dyn Way>> {
    let buffer = vec![0; PEERS_AT_ONCE * BLOCKS_A_TURN * BLOCK_BYTES];
    Ok(Box::new(Reading { ring: Ring::new(PEERS_MAX)?, buffer }))
}

impl Way for Reading {
    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64> {
        let mut calls = 0;
        for some in ready.chunks(PEERS_AT_ONCE) {
            let rooms = self.buffer.chunks_mut(BLOCKS_A_TURN * BLOCK_BYTES);
            for (&i, mut room) in some.iter().zip(rooms) {
                let peer = &mut peers[i];
                let mut job = Job::new(&peer.socket);
                let parts: Vec<_> = peer.parts().collect();
                for adjacent in parts.chunk_by(|a, b| a.1.end == b.1.start) {
                    let start = adjacent[0].1.start;
                    let bytes: usize = adjacent.iter().map(|part| part.1.len()).sum();
                    let (mut run, rest) = room.split_at_mut(bytes);
                    room = rest;
                    self.ring.push_read(&content.file, start as u64, run)?;
                    for (header, block) in adjacent {
                        let (bytes, after) = run.split_at_mut(block.len());
                        job.add(&HEADER[header.clone()]);
                        job.add(bytes);
                        run = after;
                    }
                }
                peer.busy = true;
                self.ring.push_send(i, job, false)?;
            }
            // The buffers are everyone's: nobody may still use them when the next peers come.
            while some.iter().any(|&i| peers[i].busy) {
                self.ring.submit_and_wait()?;
                calls += 1;
                self.ring.reap(|i, sent, wanted, _| {
                    let peer = &mut peers[i];
                    let sent = sent.unwrap_or(0);
                    peer.advance(sent);
                    peer.writable = sent == wanted;
                    peer.busy = false;
                })?;
            }
        }
        Ok(calls)
    }
}
