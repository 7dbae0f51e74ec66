//! One run of one way under one load: makes the connections, throws away on another thread what
//! arrives, and measures what sending took. Judges nothing.

use std::{
    fmt, fs, io,
    net::Ipv4Addr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use nix::{libc, unistd::gettid};
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::AsRawFd;

use crate::{
    Way,
    peer::{Content, Peer, WHOLE_BYTES},
};

/// As in the serving engine without a limit.
const NOT_SENT_BYTES: u32 = 256 * 1024;
/// What each peer waits for at full speed.
const DEPTH: usize = 32;
/// How long the serving engine lets events gather.
const TICK: Duration = Duration::from_millis(4);
const RING: Token = Token(usize::MAX);

pub struct Load {
    pub name: &'static str,
    pub peers: usize,
    /// Each; 0 is as fast as they come.
    pub blocks_per_second: u32,
}

#[derive(Clone, Copy)]
pub struct Outcome {
    pub cpu_seconds_per_gib: f64,
    pub calls_per_block: f64,
    pub bytes_per_second: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { cpu_seconds_per_gib: cpu, calls_per_block: calls, bytes_per_second } = self;
        let mib = bytes_per_second / f64::from(1 << 20);
        write!(f, "{cpu:.3} CPU s/GiB, {calls:.2} calls a block, {mib:.0} MiB/s")
    }
}

pub fn run(
    load: &Load,
    way: &mut dyn Way,
    content: &Content,
    (mut peers, receivers): (Vec<Peer>, Vec<Socket>),
    length: Duration,
) -> io::Result<Outcome> {
    let (tell, told) = mpsc::channel();
    let receiver = thread::spawn(move || {
        let _ = tell.send(gettid().as_raw());
        discard(receivers)
    });
    let receiver_id = told.recv().map_err(io::Error::other)?;
    let began = Instant::now();
    let before = cpu_seconds(receiver_id)?;
    let calls = send(load, way, content, &mut peers, began + length)?;
    let cpu = cpu_seconds(receiver_id)? - before;
    let seconds = began.elapsed().as_secs_f64();
    let bytes: u64 = peers.iter().map(|peer| peer.bytes_sent).sum();
    let blocks = bytes as f64 / WHOLE_BYTES as f64;
    while peers.iter().any(|peer| peer.busy) {
        way.send(content, &mut peers, &[])?;
    }
    drop(peers);
    receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
    Ok(Outcome {
        cpu_seconds_per_gib: cpu / (bytes as f64 / f64::from(1 << 30)),
        calls_per_block: calls as f64 / blocks,
        bytes_per_second: bytes as f64 / seconds,
    })
}

/// Those who send, and where it arrives. Congestion control is the same everywhere: BBR, where it is
/// the system's default, paces by timers that cost more than a block.
pub fn connect(
    peers: usize,
    segment_bytes: u32,
    congestion: &str,
) -> io::Result<(Vec<Peer>, Vec<Socket>)> {
    let socket = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_tcp_congestion(congestion.as_bytes())?;
        if segment_bytes > 0 {
            socket.set_tcp_mss(segment_bytes)?;
        }
        Ok(socket)
    };
    let listener = socket()?;
    listener.bind(&SockAddr::from(std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    listener.listen(1024)?;
    let address = listener.local_addr()?;
    let (mut senders, mut receivers) = (vec![], vec![]);
    for n in 0..peers {
        let receiver = socket()?;
        receiver.connect(&address)?;
        receiver.set_nonblocking(true)?;
        let (sender, _) = listener.accept()?;
        sender.set_nonblocking(true)?;
        sender.set_tcp_nodelay(true)?;
        sender.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
        senders.push(Peer::new(sender, n));
        receivers.push(receiver);
    }
    Ok((senders, receivers))
}

/// System calls.
fn send(
    load: &Load,
    way: &mut dyn Way,
    content: &Content,
    peers: &mut [Peer],
    until: Instant,
) -> io::Result<u64> {
    let mut poll = Poll::new()?;
    for (n, peer) in peers.iter().enumerate() {
        let mut source = SourceFd(&peer.socket.as_raw_fd());
        poll.registry().register(&mut source, Token(n), Interest::WRITABLE)?;
    }
    if let Some(descriptor) = way.descriptor() {
        poll.registry().register(&mut SourceFd(&descriptor), RING, Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(256);
    let (mut calls, mut ready) = (0, vec![]);
    let mut now = Instant::now();
    while now < until {
        let paced = load.blocks_per_second > 0;
        let wait = if paced || !ready.is_empty() { Duration::ZERO } else { TICK };
        match poll.poll(&mut events, Some(wait)) {
            // What io_uring has to say also interrupts.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        for event in events.iter().filter(|event| event.token() != RING) {
            peers[event.token().0].writable = true;
        }
        let income = now.elapsed().as_secs_f64() * f64::from(load.blocks_per_second);
        now = Instant::now();
        ready.clear();
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.credit += income;
            while if paced { peer.credit >= 1.0 } else { peer.due.len() < DEPTH } {
                peer.credit -= 1.0;
                peer.ask();
            }
            if peer.is_ready() {
                ready.push(n);
            }
        }
        calls += 1 + way.send(content, peers, &ready)?;
        if paced {
            thread::sleep(TICK);
            calls += 1;
        } else {
            ready.retain(|&n| peers[n].is_ready());
        }
    }
    Ok(calls)
}

/// Of everything in this process that is not the receiver: io_uring may work on threads of its own.
fn cpu_seconds(receiver: i32) -> io::Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if task.file_name().to_string_lossy() != receiver.to_string() {
            let text = fs::read_to_string(task.path().join("schedstat"))?;
            let ran = text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
            nanoseconds += ran.ok_or_else(|| io::Error::other("schedstat without a figure"))?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Until all senders are gone. MSG_TRUNC: the bytes are not even copied, since on a router nobody
/// would read them.
fn discard(sockets: Vec<Socket>) -> io::Result<()> {
    let mut poll = Poll::new()?;
    for (n, socket) in sockets.iter().enumerate() {
        let mut source = SourceFd(&socket.as_raw_fd());
        poll.registry().register(&mut source, Token(n), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(256);
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut left = sockets.len();
    while left > 0 {
        poll.poll(&mut events, None)?;
        for event in &events {
            let socket = &sockets[event.token().0];
            loop {
                match socket.recv_with_flags(buffer.spare_capacity_mut(), libc::MSG_TRUNC) {
                    Ok(0) => {
                        left -= 1;
                        let source = socket.as_raw_fd();
                        poll.registry().deregister(&mut SourceFd(&source))?;
                        break;
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // The sender left with something unread.
                    Err(_) => {
                        left -= 1;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}
