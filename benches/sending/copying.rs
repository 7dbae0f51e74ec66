//! Ways in which the kernel copies blocks out of this process's memory: many in one call.

use std::{io, io::IoSlice, os::unix::fs::FileExt};

use nix::libc;

use crate::{
    Way,
    peer::{BLOCK_BYTES, BLOCKS_A_TURN, Content, HEADER, Peer},
};

struct Mapped;

pub fn mapped() -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Mapped))
}

impl Way for Mapped {
    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64> {
        for &i in ready {
            let peer = &mut peers[i];
            let parts = peer.parts().flat_map(|(header, block)| {
                [IoSlice::new(&HEADER[header]), IoSlice::new(&content.mapping[block])]
            });
            let parts: Vec<_> = parts.collect();
            send_parts(peer, &parts)?;
        }
        Ok(ready.len() as u64)
    }
}

/// The buffer is everyone's: what does not fit into the socket is read again.
struct Pread {
    buffer: Vec<u8>,
}

pub fn pread() -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Pread { buffer: vec![0; BLOCKS_A_TURN * BLOCK_BYTES] }))
}

impl Way for Pread {
    fn send(&mut self, content: &Content, peers: &mut [Peer], ready: &[usize]) -> io::Result<u64> {
        let mut calls = 0;
        for &i in ready {
            let peer = &mut peers[i];
            let parts: Vec<_> = peer.parts().collect();
            let (mut at, mut taken) = (0, 0);
            while at < parts.len() {
                // Adjacent blocks in one read.
                let mut end = at + 1;
                while end < parts.len() && parts[end].1.start == parts[end - 1].1.end {
                    end += 1;
                }
                let bytes = parts[end - 1].1.end - parts[at].1.start;
                let room = &mut self.buffer[taken..taken + bytes];
                content.file.read_exact_at(room, parts[at].1.start as u64)?;
                calls += 1;
                taken += bytes;
                at = end;
            }
            let mut rest = self.buffer.as_slice();
            let mut slices = vec![];
            for (header, block) in parts {
                let (bytes, after) = rest.split_at(block.len());
                slices.extend([IoSlice::new(&HEADER[header]), IoSlice::new(bytes)]);
                rest = after;
            }
            send_parts(peer, &slices)?;
            calls += 1;
        }
        Ok(calls)
    }
}

fn send_parts(peer: &mut Peer, parts: &[IoSlice<'_>]) -> io::Result<()> {
    let wanted: usize = parts.iter().map(|part| part.len()).sum();
    let sent = match peer.socket.send_vectored_with_flags(parts, libc::MSG_NOSIGNAL) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
        sent => sent?,
    };
    peer.advance(sent);
    peer.writable = sent == wanted;
    Ok(())
}
