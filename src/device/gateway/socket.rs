//! The sockets of probes: opens the best that the system permits, and reads datagrams with the kernel's
//! own time of arrival, so that a busy machine does not look like a queue. Understands no message.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use super::icmp::Family;

/// The clock may be set while a datagram waits; a machine that is so late has other worries.
const LATENESS_MAX: Duration = Duration::from_millis(100);

/// One datagram.
#[derive(Debug)]
pub struct Received {
    pub bytes: usize,
    pub from: Option<IpAddr>,
    pub at: Instant,
    /// Which router says that it dropped a datagram of ours, with the ICMP type of its message; the
    /// bytes are then what it quotes.
    pub dropped_by: Option<(u8, IpAddr)>,
}

pub struct IcmpSocket {
    pub socket: Socket,
    pub family: Family,
    /// Needs CAP_NET_RAW, and sees the ICMP of the whole machine.
    pub is_raw: bool,
}

impl IcmpSocket {
    /// Unprivileged where the system permits it (`net.ipv4.ping_group_range`), else raw.
    pub fn open(family: Family) -> io::Result<IcmpSocket> {
        let unprivileged = open_icmp(family, Type::DGRAM).map(|socket| (socket, false));
        let (socket, is_raw) =
            unprivileged.or_else(|_| open_icmp(family, Type::RAW).map(|socket| (socket, true)))?;
        Ok(IcmpSocket { socket, family, is_raw })
    }

    pub fn set_hops_max(&self, hops: u32) -> io::Result<()> {
        match self.family {
            Family::V4 => self.socket.set_ttl_v4(hops),
            Family::V6 => self.socket.set_unicast_hops_v6(hops),
        }
    }
}

fn open_icmp(family: Family, kind: Type) -> io::Result<Socket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = prepare(Socket::new(domain, kind, Some(protocol))?)?;
    // Who dropped a datagram of ours; raw sockets are told by ICMP itself.
    if kind == Type::DGRAM {
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
    }
    Ok(socket)
}

/// Connected, so that the kernel drops what others send.
pub fn open_udp(to: SocketAddr) -> io::Result<Socket> {
    let socket = prepare(Socket::new(Domain::for_address(to), Type::DGRAM, None)?)?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Begins to connect; the socket becomes writable with the answer, whichever it is.
pub fn open_tcp(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Closing resets: nothing is left of a probe on either side.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn prepare(socket: Socket) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    Ok(socket)
}

/// The next datagram, or `None` when there is none. With `errors`, the next complaint of a router.
pub fn receive(socket: &Socket, errors: bool, buffer: &mut [u8]) -> Option<Received> {
    let flags = match errors {
        true => MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE,
        false => MsgFlags::MSG_DONTWAIT,
    };
    // An earlier probe's error is told once, in place of a datagram.
    const ERRORS_IN_A_ROW: usize = 4;
    for _ in 0..ERRORS_IN_A_ROW {
        match receive_one(socket, flags, buffer) {
            Ok(received) => return Some(received),
            Err(Errno::EAGAIN) => return None,
            Err(_) => {}
        }
    }
    None
}

fn receive_one(socket: &Socket, flags: MsgFlags, buffer: &mut [u8]) -> nix::Result<Received> {
    let mut control = cmsg_space!(TimeSpec, libc::sock_extended_err, libc::sockaddr_in6);
    let mut slices = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut at = Instant::now();
    let mut dropped_by = None;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmTimestampns(stamp) => at -= lateness(stamp),
            ControlMessageOwned::Ipv4RecvErr(error, Some(router)) => {
                let address = Ipv4Addr::from(u32::from_be(router.sin_addr.s_addr));
                dropped_by = Some((error.ee_type, address.into()));
            }
            ControlMessageOwned::Ipv6RecvErr(error, Some(router)) => {
                let address = Ipv6Addr::from(router.sin6_addr.s6_addr);
                dropped_by = Some((error.ee_type, address.into()));
            }
            _ => {}
        }
    }
    let from = message.address.as_ref().and_then(address_of);
    Ok(Received { bytes: message.bytes, from, at, dropped_by })
}

/// How long the datagram has waited for us.
fn lateness(stamp: TimeSpec) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from(stamp)).min(LATENESS_MAX)
}

fn address_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}
