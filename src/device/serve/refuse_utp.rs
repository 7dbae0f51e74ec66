//! UDP beside each TCP port, only to say no to µTP at once (see `logic::wire::utp_refusal`). Serving
//! works without it: a port that is taken is left alone.

use std::{io, net::SocketAddr};

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::logic::{
    governor::{Pacer, Permit},
    now::Monotonic,
    wire::{UTP_HEADER_BYTES, utp_refusal},
};

/// Datagrams looked at in one round; a flood beyond it is dropped by the kernel.
const DATAGRAMS_AT_ONCE: usize = 32;
/// IPv6 and UDP headers.
const HEADER_BYTES: u64 = 40 + 8;

/// A socket on the same address as the listener, for the same IP versions.
pub(super) fn bind_beside(listener: &std::net::TcpListener) -> io::Result<UdpSocket> {
    let address = listener.local_addr()?;
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(SockRef::from(listener).only_v6()?)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// Returns whether more may be waiting.
pub(super) fn refuse(socket: &UdpSocket, pacer: &mut Pacer, now: Monotonic) -> bool {
    let mut buffer = [0; UTP_HEADER_BYTES + 1];
    for _ in 0..DATAGRAMS_AT_ONCE {
        match socket.recv_from(&mut buffer) {
            Ok((n, from)) => answer(socket, &buffer[..n], from, pacer, now),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
            // Someone whom we refused is gone already: ICMP tells so on the next call.
            Err(_) => {}
        }
    }
    true
}

fn answer(
    socket: &UdpSocket,
    datagram: &[u8],
    from: SocketAddr,
    pacer: &mut Pacer,
    now: Monotonic,
) {
    let Some(reset) = utp_refusal(datagram) else { return };
    let wire_bytes = UTP_HEADER_BYTES as u64 + HEADER_BYTES;
    if pacer.take(wire_bytes, now) == Permit::Granted && socket.send_to(&reset, from).is_err() {
        pacer.give_back(wire_bytes);
    }
}
