//! Sends probes and matches what comes back: each carries a nonce, and counts only if it returns from
//! whom it was sent to, once. Decides neither whom to probe nor what a round trip means.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use nix::libc;
use rand::Rng;
use socket2::Socket;

use super::{
    choice::{Hop, Target},
    icmp::{self, Family, Message, NONCE_BYTES},
    socket::{self, IcmpSocket, Received},
};
use crate::api::reflector;

/// A probe that has not returned by then never will, as far as we are concerned.
pub const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// At most so many are on their way: a second's worth to several targets.
const OUTSTANDING_MAX: usize = 256;
/// Datagrams read before others get their turn: more is a flood.
const READS_AT_ONCE: usize = 64;
/// Beyond the probes' own interval there is no use for more of them.
const TCP_AT_ONCE: usize = 16;
const HOPS_ENOUGH: u32 = 64;
const BUFFER_BYTES: usize = 512;

/// All its sockets are one to the poll: whatever happens, each is looked at.
pub const SOCKETS: Token = Token(1);

/// What a probe found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Returned {
        target: Target,
        rtt: Duration,
        sent: Instant,
    },
    /// A probe for so many hops was answered by this one.
    Hop {
        hops: u8,
        hop: Hop,
    },
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Target(Target),
    Hops { hops: u8, towards: IpAddr },
}

#[derive(Debug)]
struct Outstanding {
    asked: Asked,
    sequence: u16,
    nonce: [u8; NONCE_BYTES],
    sent: Instant,
    /// Of a TCP probe.
    socket: Option<Socket>,
}

pub struct Prober {
    registry: Registry,
    rng: Box<dyn Rng + Send>,
    /// Names our requests among others'. On an unprivileged socket the kernel puts in its own.
    ident: u16,
    sequence: u16,
    icmp: Vec<IcmpSocket>,
    udp: Option<(SocketAddr, Socket)>,
    outstanding: VecDeque<Outstanding>,
}

impl Prober {
    pub fn new(registry: Registry, mut rng: Box<dyn Rng + Send>) -> Prober {
        let mut random = [0; 4];
        rng.fill_bytes(&mut random);
        let [a, b, c, d] = random;
        Prober {
            registry,
            rng,
            ident: u16::from_be_bytes([a, b]),
            sequence: u16::from_be_bytes([c, d]),
            icmp: vec![],
            udp: None,
            outstanding: VecDeque::new(),
        }
    }

    /// One probe to a target.
    pub fn probe(&mut self, target: Target) -> io::Result<()> {
        let (sequence, nonce) = self.number();
        let sent = Instant::now();
        let socket = match target {
            Target::Hop(address) => {
                self.send_echo(address, HOPS_ENOUGH, sequence, &nonce)?;
                None
            }
            Target::Reflector(address) => {
                self.udp(address)?.send(&reflector::question(&nonce))?;
                None
            }
            Target::Tcp(address) => Some(self.connect(address)?),
        };
        self.remember(Outstanding { asked: Asked::Target(target), sequence, nonce, sent, socket });
        Ok(())
    }

    /// Asks whoever is so many hops away on the way to an address.
    pub fn probe_hop(&mut self, towards: IpAddr, hops: u8) -> io::Result<()> {
        let (sequence, nonce) = self.number();
        let asked = Asked::Hops { hops, towards };
        let sent = Instant::now();
        self.send_echo(towards, hops.into(), sequence, &nonce)?;
        self.remember(Outstanding { asked, sequence, nonce, sent, socket: None });
        Ok(())
    }

    /// Everything that has come since.
    pub fn receive(&mut self) -> Vec<Finding> {
        let mut findings = vec![];
        self.outstanding.retain(|probe| probe.sent.elapsed() <= ANSWER_WAIT);
        for at in 0..self.icmp.len() {
            for errors in [false, true] {
                findings.extend(self.receive_icmp(at, errors));
            }
        }
        findings.extend(self.receive_udp());
        findings.extend(self.receive_tcp());
        findings
    }

    fn receive_icmp(&mut self, at: usize, errors: bool) -> Vec<Finding> {
        let mut findings = vec![];
        let mut buffer = [0; BUFFER_BYTES];
        for _ in 0..READS_AT_ONCE {
            let icmp = &self.icmp[at];
            let Some(received) = socket::receive(&icmp.socket, errors, &mut buffer) else { break };
            let bytes = &buffer[..received.bytes.min(BUFFER_BYTES)];
            let has_ip_header = icmp.is_raw && icmp.family == Family::V4;
            let (family, is_raw) = (icmp.family, icmp.is_raw);
            let finding = match received.dropped_by {
                Some((kind, router)) if kind == family.time_exceeded() => {
                    // The kernel has checked that it quotes a request of this socket.
                    icmp::quoted_request(family, bytes)
                        .and_then(|(_, sequence)| self.expired(sequence, router))
                }
                Some(_) => None,
                None => {
                    let bytes =
                        if has_ip_header { icmp::skip_ipv4_header(bytes) } else { Some(bytes) };
                    let message = bytes.and_then(|bytes| icmp::parse(family, bytes));
                    message.and_then(|message| self.answered(message, is_raw, &received))
                }
            };
            findings.extend(finding);
        }
        findings
    }

    fn answered(&mut self, message: Message, is_raw: bool, received: &Received) -> Option<Finding> {
        let from = received.from?;
        match message {
            Message::Reply { ident, sequence, nonce } => {
                // The kernel names the requests of an unprivileged socket, and sorts the replies.
                if is_raw && ident != self.ident {
                    return None;
                }
                let from_target = |asked: &Asked| match asked {
                    Asked::Target(Target::Hop(address)) => *address == from,
                    Asked::Hops { towards, .. } => *towards == from,
                    Asked::Target(_) => false,
                };
                let probe = self.take(|p| {
                    p.sequence == sequence && p.nonce == nonce && from_target(&p.asked)
                })?;
                Some(match probe.asked {
                    Asked::Target(target) => returned(target, probe.sent, received.at),
                    Asked::Hops { hops, towards } => {
                        Finding::Hop { hops, hop: Hop { address: towards, is_destination: true } }
                    }
                })
            }
            Message::TimeExceeded { ident, sequence } => {
                (!is_raw || ident == self.ident).then(|| self.expired(sequence, from))?
            }
        }
    }

    fn expired(&mut self, sequence: u16, router: IpAddr) -> Option<Finding> {
        let probe =
            self.take(|p| p.sequence == sequence && matches!(p.asked, Asked::Hops { .. }))?;
        let Asked::Hops { hops, .. } = probe.asked else { return None };
        Some(Finding::Hop { hops, hop: Hop { address: router, is_destination: false } })
    }

    fn receive_udp(&mut self) -> Vec<Finding> {
        let mut findings = vec![];
        let mut buffer = [0; BUFFER_BYTES];
        for _ in 0..READS_AT_ONCE {
            let Some((address, socket)) = &self.udp else { break };
            let target = Target::Reflector(*address);
            let Some(received) = socket::receive(socket, false, &mut buffer) else { break };
            let bytes = &buffer[..received.bytes.min(BUFFER_BYTES)];
            let Some(nonce) = reflector::answered_nonce(bytes) else { continue };
            let asked =
                |p: &Outstanding| matches!(p.asked, Asked::Target(asked) if asked == target);
            let probe = self.take(|p| p.nonce == nonce && asked(p));
            findings.extend(probe.map(|probe| returned(target, probe.sent, received.at)));
        }
        findings
    }

    /// Connected and refused are both answers, a round trip old.
    fn receive_tcp(&mut self) -> Vec<Finding> {
        let now = Instant::now();
        let mut findings = vec![];
        self.outstanding.retain(|probe| {
            let (Some(socket), Asked::Target(target)) = (&probe.socket, probe.asked) else {
                return true;
            };
            let outcome = match socket.take_error() {
                Ok(Some(error)) => Some(error.raw_os_error() == Some(libc::ECONNREFUSED)),
                Ok(None) => socket.peer_addr().is_ok().then_some(true),
                Err(_) => Some(false),
            };
            if outcome == Some(true) {
                findings.push(returned(target, probe.sent, now));
            }
            outcome.is_none()
        });
        findings
    }

    fn take(&mut self, wanted: impl Fn(&Outstanding) -> bool) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(wanted)?;
        self.outstanding.remove(at)
    }

    fn remember(&mut self, probe: Outstanding) {
        if self.outstanding.len() == OUTSTANDING_MAX {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(probe);
    }

    fn number(&mut self) -> (u16, [u8; NONCE_BYTES]) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut nonce = [0; NONCE_BYTES];
        self.rng.fill_bytes(&mut nonce);
        (self.sequence, nonce)
    }

    fn send_echo(
        &mut self,
        to: IpAddr,
        hops: u32,
        sequence: u16,
        nonce: &[u8; NONCE_BYTES],
    ) -> io::Result<()> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let at = match self.icmp.iter().position(|icmp| icmp.family == family) {
            Some(at) => at,
            None => {
                let icmp = IcmpSocket::open(family)?;
                register(&self.registry, &icmp.socket, Interest::READABLE)?;
                self.icmp.push(icmp);
                self.icmp.len() - 1
            }
        };
        let icmp = &self.icmp[at];
        icmp.set_hops_max(hops)?;
        let request = icmp::echo_request(family, self.ident, sequence, nonce);
        let to = SocketAddr::new(to, 0);
        match icmp.socket.send_to(&request, &to.into()) {
            Ok(_) => Ok(()),
            // Told of an earlier probe; this one has not been sent yet.
            Err(_) => icmp.socket.send_to(&request, &to.into()).map(drop),
        }
    }

    fn udp(&mut self, address: SocketAddr) -> io::Result<&Socket> {
        if self.udp.as_ref().is_none_or(|(to, _)| *to != address) {
            let socket = socket::open_udp(address)?;
            register(&self.registry, &socket, Interest::READABLE)?;
            self.udp = Some((address, socket));
        }
        let (_, socket) = self.udp.as_ref().expect("just put there");
        Ok(socket)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<Socket> {
        let under_way = self.outstanding.iter().filter(|p| p.socket.is_some()).count();
        if under_way >= TCP_AT_ONCE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let socket = socket::open_tcp(address)?;
        register(&self.registry, &socket, Interest::WRITABLE)?;
        Ok(socket)
    }
}

/// Closing a socket takes it out again.
fn register(registry: &Registry, socket: &Socket, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), SOCKETS, interest)
}

fn returned(target: Target, sent: Instant, at: Instant) -> Finding {
    Finding::Returned { target, rtt: at.saturating_duration_since(sent), sent }
}
